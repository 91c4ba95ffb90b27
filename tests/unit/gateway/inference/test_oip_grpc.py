"""The protocol over gRPC, through a real server and a real link."""

import asyncio
import contextlib

import grpc
import pytest
from adlik_common.errors import InvalidRequest, InvalidTensor
from adlik_common.wire import bytes_head
from adlik_gateway.inference.oip_grpc import peek
from adlik_proto.adlik.link.v1.link_pb2 import ENCODING_PROTOBUF, InferResponseHead
from adlik_proto.inference import open_inference_pb2 as oip
from adlik_proto.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture
def stub(channel):
    return GRPCInferenceServiceStub(channel)


def answers(replica):
    """Makes the replica answer a ModelInferResponse with the request's id and tensor."""

    def answer(request, head):
        asked = oip.ModelInferRequest.FromString(request.body)
        body = oip.ModelInferResponse(
            model_name=head.model, id=asked.id, raw_output_contents=asked.raw_input_contents
        )
        response = InferResponseHead(model=head.model, version=1, batch_size=1)
        request.respond(response.SerializeToString(), body.SerializeToString())

    replica.answer = answer
    return answer


def asking(number=0, model="m", size=16):
    return oip.ModelInferRequest(
        model_name=model, id=str(number), raw_input_contents=[bytes([number % 251]) * size]
    )


@pytest.mark.parametrize("size", [0, 16, 600_000])
async def test_tensors_pass_through_untouched(stub, replica, size):
    answers(replica)
    answer = await stub.ModelInfer(asking(7, size=size))
    assert (answer.id, answer.raw_output_contents[0]) == ("7", b"\x07" * size)
    assert replica.heads[0].encoding == ENCODING_PROTOBUF


async def test_errors_carry_status_words_and_code(stub, replica):
    replica.refuse(InvalidTensor("Wrong shape.", cure="Reshape."))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.ModelInfer(asking())
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert raised.value.details() == "Wrong shape. Reshape."
    assert ("adlik-code", "INVALID_TENSOR") in tuple(raised.value.trailing_metadata())
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.ModelInfer(asking(model="nothing"))
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_request_over_the_limit_is_refused(stub, replica):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.ModelInfer(asking(size=1_000_001))
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not replica.heads


async def test_the_callers_deadline_reaches_the_replica_and_ends_the_request(stub, replica):
    replica.answer = replica.hold
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.ModelInfer(asking(), timeout=0.2)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert 0 < replica.heads[0].timeout_ms <= 200
    while not replica.requests[0].cancelled:
        await asyncio.sleep(0.001)


async def test_a_client_that_cancels_frees_the_replica(stub, replica):
    replica.answer = replica.hold
    asked = stub.ModelInfer(asking())
    task = asyncio.ensure_future(asked)
    while not replica.requests:
        await asyncio.sleep(0.001)
    asked.cancel()
    while not replica.requests[0].cancelled:
        await asyncio.sleep(0.001)
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_stream_is_answered_in_order_with_errors_among_the_answers(stub, replica):
    answers(replica)

    async def requests():
        for number in range(100):
            yield asking(number, model="nothing" if number == 50 else "m")

    got = [answer async for answer in stub.ModelStreamInfer(requests())]
    assert [answer.infer_response.id for answer in got] == [str(n) for n in range(100)]
    assert [n for n, answer in enumerate(got) if answer.error_message] == [50]
    assert "'nothing' is released" in got[50].error_message


async def test_a_stream_has_several_requests_under_way(stub, replica):
    answer = answers(replica)
    replica.answer = replica.hold
    stream = stub.ModelStreamInfer()
    for number in range(3):
        await stream.write(asking(number))
    while len(replica.requests) < 3:
        await asyncio.sleep(0.001)
    for request, head in reversed(list(zip(replica.requests, replica.heads, strict=True))):
        answer(request, head)
    await stream.done_writing()
    assert [(await stream.read()).infer_response.id for _ in range(3)] == ["0", "1", "2"]
    assert await stream.read() is grpc.aio.EOF


async def test_a_stream_that_is_cancelled_frees_the_replica(stub, replica):
    replica.answer = replica.hold
    stream = stub.ModelStreamInfer()
    for number in range(40):  # more than are taken at once
        await stream.write(asking(number))
    while len(replica.requests) < 32:
        await asyncio.sleep(0.001)
    stream.cancel()
    while not all(request.cancelled for request in replica.requests):
        await asyncio.sleep(0.001)


async def test_server_and_model_questions(stub, replica, table):
    assert (await stub.ServerLive(oip.ServerLiveRequest())).live
    assert (await stub.ServerReady(oip.ServerReadyRequest())).ready
    assert (await stub.ServerMetadata(oip.ServerMetadataRequest())).name == "adlik"
    assert (await stub.ModelReady(oip.ModelReadyRequest(name="m"))).ready
    assert not (await stub.ModelReady(oip.ModelReadyRequest(name="x"))).ready
    metadata = await stub.ModelMetadata(oip.ModelMetadataRequest(name="m", version="1"))
    assert list(metadata.inputs[0].shape) == [-1, 4]
    config = (await stub.ModelConfig(oip.ModelConfigRequest(name="m"))).config
    assert (config.max_batch_size, config.input[0].data_type) == (32, oip.TYPE_FP32)
    statistics = await stub.ModelStatistics(oip.ModelStatisticsRequest(name="m"))
    assert statistics.model_stats[0].inference_count == 0
    index = await stub.RepositoryIndex(oip.RepositoryIndexRequest())
    assert [(entry.name, entry.state) for entry in index.models] == [("m", "READY")]
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.ModelMetadata(oip.ModelMetadataRequest(name="m", version="v1"))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@given(st.text(min_size=1), st.text(), st.text(), st.lists(st.binary(max_size=50), max_size=5))
def test_peeking_reads_what_parsing_reads(name, version, request_id, tensors):
    message = oip.ModelInferRequest(
        model_name=name, model_version=version, id=request_id, raw_input_contents=tensors
    )
    assert peek(message.SerializeToString()) == (name, version, request_id)


def test_peeking_does_not_depend_on_the_order_of_fields():
    tensor, name = b"\x07" * 3, b"m"
    request = bytes_head(7, 3) + tensor + bytes_head(2, 1) + b"4" + bytes_head(1, 1) + name
    assert peek(request) == ("m", "4", "")


@pytest.mark.parametrize("request_bytes", [b"", b"\x0a\x05m", b"\xff" * 20, b"\x08\x01"])
def test_what_names_no_model_is_refused(request_bytes):
    with pytest.raises(InvalidRequest):
        peek(request_bytes)


@given(st.binary(max_size=200))
def test_peeking_at_anything_gives_fields_or_a_typed_error(request_bytes):
    with contextlib.suppress(InvalidRequest):
        assert peek(request_bytes).model
