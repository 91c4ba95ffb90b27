"""A real data plane with real servers and links; replicas are link servers that a test scripts."""

from __future__ import annotations

import contextlib

import grpc.aio
import httpx
import pytest
from adlik_common.errors import to_proto
from adlik_common.health import serve_http
from adlik_common.link import LinkServer
from adlik_gateway.inference.http_protocol import HttpProtocol
from adlik_gateway.inference.plane import assemble
from adlik_gateway.inference.replicas import ReplicaTable
from adlik_gateway.settings import GatewaySettings
from adlik_proto.adlik.control.v1.control_pb2 import LoadedModel, Replica
from adlik_proto.adlik.link.v1.link_pb2 import ErrorHead, InferRequestHead, InferResponseHead
from adlik_proto.adlik.model.v1.model_pb2 import (
    CompiledModel,
    PushedModel,
    Release,
    Signature,
    TensorSpec,
)

SIGNATURE = Signature(
    inputs=[TensorSpec(name="x", datatype="FP32", shape=[-1, 4])],
    outputs=[TensorSpec(name="y", datatype="FP32", shape=[-1, 2])],
)


def release(model, version=1):
    return Release(
        pushed=PushedModel(name=model, version=version, signature=SIGNATURE),
        compiled=CompiledModel(
            variant="pushed.onnxruntime-fp32", engine="onnxruntime", format="onnx"
        ),
    )


def loaded(model, version=1):
    return LoadedModel(
        name=model,
        version=version,
        variant="pushed.onnxruntime-fp32",
        engine="onnxruntime",
        signature=SIGNATURE,
        max_batch_size=32,
    )


class StubReplica:
    """Answers what the test says: by default, the request's own body."""

    def __init__(self, name, address):
        self.name, self.address = name, address
        self.heads: list[InferRequestHead] = []
        self.requests = []
        self.answer = self.echo
        self.server = LinkServer(self.take)

    def take(self, request):
        self.heads.append(InferRequestHead.FromString(request.head))
        self.requests.append(request)
        self.answer(request, self.heads[-1])

    def echo(self, request, head):
        timings = {"queue_ns": 10, "input_ns": 20, "infer_ns": 30, "output_ns": 40}
        response = InferResponseHead(
            model=head.model,
            version=head.version or 1,
            variant="pushed.onnxruntime-fp32",
            json_length=head.json_length,
            batch_size=2,
            **timings,
        )
        request.respond(response.SerializeToString(), request.body)

    def hold(self, request, head):
        """Never answers."""

    def refuse(self, error):
        head = ErrorHead(error=to_proto(error)).SerializeToString()
        self.answer = lambda request, _: request.fail(head)

    def entry(self, *models, **fields):
        return Replica(
            id=self.name, service="serving", link=self.server.address, loaded=models, **fields
        )


@pytest.fixture
async def replicas(tmp_path):
    """Starts replicas by name."""
    started = []

    async def start(name="a"):
        replica = StubReplica(name, f"unix://{tmp_path}/{name}.sock")
        await replica.server.start(replica.address)
        started.append(replica)
        return replica

    yield start
    for replica in started:
        await replica.server.stop(0)


def gateway_settings(**changes):
    return GatewaySettings(
        **{"replica_wait_seconds": 0.2, "trace_inferences_per_second": 0.0, **changes}
    )


@pytest.fixture
async def table():
    """A table that has read an empty mesh."""
    table = ReplicaTable()
    table.apply("", None)
    table.apply_release("", None)
    yield table
    await table.close()


@pytest.fixture
async def replica(replicas, table):
    """One replica that holds version 1 of the released model "m"."""
    replica = await replicas()
    table.apply_release("m", release("m"))
    table.apply("serving.a", replica.entry(loaded("m")))
    return replica


@pytest.fixture
def plane(table):
    return assemble(table, gateway_settings(max_request_bytes=1_000_000))


@pytest.fixture
async def http(plane):
    """An HTTP client of the plane, behind a real server."""
    async with contextlib.AsyncExitStack() as stack:
        port = await stack.enter_async_context(
            serve_http(plane.http_app, "127.0.0.1", 0, http=HttpProtocol)
        )
        yield await stack.enter_async_context(
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=5)
        )


@pytest.fixture
async def channel(plane):
    """A gRPC channel to the plane, behind a real server."""
    server = grpc.aio.server(options=plane.grpc_options)
    plane.add_to_grpc(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(0)
