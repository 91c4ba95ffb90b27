"""The control plane's gRPC edge, on a real server, over a control plane that fails as told."""

import contextlib

import grpc
import grpc.aio
import pytest
from adlik_common.errors import AdlikError, InvalidName, NotFound
from adlik_gateway.rpc.servicer import CODE_METADATA, ControlServicer
from adlik_proto.adlik.control.v1 import control_pb2, control_pb2_grpc


class Control:
    """Answers, or raises, what a test has put there."""

    def __init__(self):
        self.error = None
        self.view = self
        self.parts = []
        self.traceparent = ""

    def model(self, name):
        if self.error is not None:
            raise self.error
        model = control_pb2.Model(name=name)
        for version in (3, 2):
            model.versions.add().pushed.version = version
        return model

    def version(self, name, version):
        return next(v for v in self.model(name).versions if v.pushed.version == version)

    def models(self):
        return [self.model("m")]

    async def watch(self, name):
        yield control_pb2.WatchModelsResponse(event="Snapshot", model=control_pb2.Model(name=name))
        if self.error is not None:
            raise self.error

    async def push(self, parts, traceparent):
        self.traceparent = traceparent
        async for part in parts:
            self.parts.append(part)
        return control_pb2.PushModelResponse(created=True)


@pytest.fixture
def control():
    return Control()


@pytest.fixture
async def stub(control):
    server = grpc.aio.server()
    control_pb2_grpc.add_ControlServiceServicer_to_server(ControlServicer(control), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield control_pb2_grpc.ControlServiceStub(channel)
    await server.stop(None)


@contextlib.asynccontextmanager
async def refused(status, code):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        yield caught
    assert caught.value.code() is status
    assert dict(caught.value.trailing_metadata())[CODE_METADATA] == code


@pytest.mark.parametrize("cls", AdlikError.__subclasses__(), ids=lambda cls: cls.__name__)
async def test_every_error_has_its_status_its_words_and_its_code(stub, control, cls):
    control.error = cls("It is wrong.", cure="Mend it: ä\n%")
    async with refused(grpc.StatusCode[cls.grpc_status], cls.code) as caught:
        await stub.GetModel(control_pb2.GetModelRequest(name="m"))
    assert caught.value.details() == "It is wrong. Mend it: ä\n%"


async def test_a_fault_of_our_own_is_internal_and_keeps_its_words_to_itself(stub, control):
    control.error = KeyError("secret")
    for call, request in (
        (stub.GetModel, control_pb2.GetModelRequest(name="m")),
        (stub.ListModels, control_pb2.ListModelsRequest()),
    ):
        async with refused(grpc.StatusCode.INTERNAL, "INTERNAL") as caught:
            await call(request)
        assert "secret" not in caught.value.details()


async def test_all_versions_or_one_are_shown(stub):
    response = await stub.GetModel(control_pb2.GetModelRequest(name="m"))
    assert [v.pushed.version for v in response.model.versions] == [3, 2]
    response = await stub.GetModel(control_pb2.GetModelRequest(name="m", version=2))
    assert [v.pushed.version for v in response.model.versions] == [2]


async def test_a_watch_that_ends_says_why_after_what_it_has_told(stub, control):
    control.error = NotFound("It went.")
    call = stub.WatchModels(control_pb2.WatchModelsRequest(name="m"))
    assert (await call.read()).event == "Snapshot"
    async with refused(grpc.StatusCode.NOT_FOUND, "NOT_FOUND"):
        await call.read()


async def test_a_push_arrives_part_by_part_in_its_callers_trace(stub, control):
    sent = [
        {"header": control_pb2.PushHeader(name="m")},
        {"file": control_pb2.FileHeader(role=control_pb2.FileHeader.ROLE_MODEL)},
        {"chunk": b"abc"},
        {"chunk": b""},
    ]
    requests = [control_pb2.PushModelRequest(**part) for part in sent]
    response = await stub.PushModel(iter(requests), metadata=(("traceparent", "00-1-2-01"),))
    assert response.created
    assert control.parts == [value for part in sent for value in part.values()]
    assert control.traceparent == "00-1-2-01"


async def test_an_empty_part_is_refused(stub):
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"):
        await stub.PushModel(iter([control_pb2.PushModelRequest()]))


async def test_an_invalid_name_is_the_callers_fault(stub, control):
    control.error = InvalidName("'/' is no model name.")
    async with refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_NAME"):
        await stub.GetModel(control_pb2.GetModelRequest(name="/"))
