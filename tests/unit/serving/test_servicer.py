"""Inference over a real link: answers, errors in words, timings, traces."""

import asyncio
import json

import numpy as np
import pytest
from adlik_common import spans, telemetry
from adlik_common.errors import EngineFailed
from adlik_common.link import RemoteError
from adlik_proto.adlik.link.v1 import link_pb2
from adlik_proto.inference import open_inference_pb2 as pb
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from replicas import message

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_a_protobuf_request_is_answered_with_the_models_version_and_the_times(replica):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    head, body = await replica.ask(message(array, id="a"))
    response = pb.ModelInferResponse.FromString(body)
    assert (response.model_name, response.model_version, response.id) == ("double", "3", "a")
    assert np.array_equal(np.frombuffer(response.raw_output_contents[0], np.float32) / 2, range(6))
    assert (head.model, head.version, head.variant) == ("double", 3, "pushed.onnxruntime-fp32")
    assert head.batch_size == 2
    assert min(head.queue_ns, head.input_ns, head.infer_ns, head.output_ns) > 0


async def test_a_json_request_is_answered_in_json_and_raw_where_wanted(replica):
    entry = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
    wanted = {"name": "y", "parameters": {"binary_data": True}}
    json_encoding = link_pb2.ENCODING_JSON
    _, body = await replica.ask(json.dumps({"inputs": [entry]}).encode(), json_encoding)
    assert json.loads(body)["outputs"][0]["data"] == [2, 4]
    text = json.dumps({"inputs": [entry], "outputs": [wanted]}).encode()
    head, body = await replica.ask(text, json_encoding)
    assert np.frombuffer(body[head.json_length :], np.float32).tolist() == [2, 4]


async def test_a_large_tensor_passes(replica):
    array = np.random.default_rng(0).random((3, 400_000), np.float32)
    _, body = await replica.ask(message(array))
    answer = np.frombuffer(pb.ModelInferResponse.FromString(body).raw_output_contents[0], "<f4")
    assert np.array_equal(answer.reshape(array.shape), array * 2)


async def test_many_requests_each_get_their_own_answer(replica):
    arrays = [np.full((1 + n % 3, 1 + n % 2), n, np.float32) for n in range(60)]
    answers = await asyncio.gather(*(replica.ask(message(array)) for array in arrays))
    for array, (_, body) in zip(arrays, answers, strict=True):
        response = pb.ModelInferResponse.FromString(body)
        assert response.raw_output_contents[0] == (array * 2).tobytes()
    assert len(replica.model.runs) < len(arrays)


async def test_an_unknown_model_or_version_names_what_is_served(replica):
    body = message(np.ones((1, 1), np.float32))
    error = await replica.refused(body, model="triple")
    assert error.code == "NOT_FOUND"
    assert "'double'" in error.message
    error = await replica.refused(body, version=4)
    assert error.code == "NOT_FOUND"
    assert "version 3 is" in error.message
    await replica.ask(body, version=3)


async def test_a_model_that_could_not_be_loaded_says_why(replica):
    replica.failed["broken"] = EngineFailed("no such operator", cure="Use another.")
    error = await replica.refused(b"", model="broken")
    assert error.code == "UNAVAILABLE"
    assert "no such operator" in error.message


@pytest.mark.parametrize(
    ("body", "head", "code"),
    [
        (b"\xff", {}, "INVALID_REQUEST"),
        (b"{", {"encoding": link_pb2.ENCODING_JSON}, "INVALID_REQUEST"),
        (b"", {"encoding": 0}, "INVALID_REQUEST"),
        (b"", {"encoding": 77}, "INVALID_REQUEST"),
        (b"", {}, "INVALID_TENSOR"),
        (b"{}", {"encoding": link_pb2.ENCODING_JSON, "json_length": -4}, "INVALID_REQUEST"),
    ],
)
async def test_wrong_requests_are_refused_and_the_connection_lives_on(replica, body, head, code):
    assert (await replica.refused(body, **head)).code == code
    await replica.ask(message(np.ones((1, 1), np.float32)))


async def test_a_head_that_is_none_is_refused(replica):
    with pytest.raises(RemoteError) as raised:
        await replica.client.request(b"\xff\xff", b"")
    assert link_pb2.ErrorHead.FromString(raised.value.head).error.code == "INVALID_REQUEST"


async def test_what_the_caller_takes_back_is_not_run(replica):
    replica.model.go.clear()
    first = asyncio.create_task(replica.ask(message(np.ones((1, 1), np.float32))))
    while not replica.model.threads:
        await asyncio.sleep(0.001)
    second = asyncio.create_task(replica.ask(message(np.full((1, 1), 9, np.float32))))
    third = asyncio.create_task(replica.ask(message(np.full((1, 1), 5, np.float32))))
    while replica.server.in_flight < 3:
        await asyncio.sleep(0.001)
    second.cancel()
    while replica.server.in_flight == 3:
        await asyncio.sleep(0.001)
    replica.model.go.set()
    await first
    _, body = await third
    assert pb.ModelInferResponse.FromString(body).raw_output_contents[0] == np.float32(10).tobytes()
    assert [run.tolist() for run in replica.model.runs] == [[[1]], [[5]]]


async def test_the_callers_time_limit_holds_in_the_queue(replica):
    replica.model.go.clear()
    first = asyncio.create_task(replica.ask(message(np.ones((1, 1), np.float32))))
    while not replica.model.threads:
        await asyncio.sleep(0.001)
    late = asyncio.create_task(replica.refused(message(np.ones((1, 1), np.float32)), timeout_ms=1))
    while replica.server.in_flight < 2:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.01)
    replica.model.go.set()
    await first
    assert (await late).code == "DEADLINE_EXCEEDED"


async def test_a_failing_run_is_answered(replica):
    replica.model.poison = 4
    error = await replica.refused(message(np.full((1, 1), 4, np.float32)))
    assert error.code == "ENGINE_FAILED"


async def test_a_run_that_gives_no_output_is_answered_and_the_next_one_too(replica):
    run = replica.model.run
    replica.model.run = lambda _inputs, _outputs=(): {}
    error = await replica.refused(message(np.ones((1, 1), np.float32)))
    assert error.code == "INTERNAL"
    replica.model.run = run
    await replica.ask(message(np.ones((1, 1), np.float32)))


@pytest.fixture
def recorded(monkeypatch):
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "tracer", lambda: provider.get_tracer("test"))
    return exporter.get_finished_spans


async def test_a_traced_request_leaves_spans_and_another_none(replica, recorded):
    body = message(np.ones((2, 1), np.float32))
    await replica.ask(body)
    assert not recorded()
    await replica.ask(body, traceparent=TRACE)
    by_name = {span.name: span for span in recorded()}
    names = {spans.SERVING_INFER, spans.QUEUE, spans.BATCH, spans.EXECUTE}
    assert set(by_name) == names
    infer = by_name.pop(spans.SERVING_INFER)
    assert f"{infer.parent.span_id:016x}" == TRACE.split("-")[2]
    assert infer.attributes[spans.VARIANT] == "pushed.onnxruntime-fp32"
    assert infer.attributes[spans.BATCH_SIZE] == 2
    for span in by_name.values():
        assert span.parent.span_id == infer.context.span_id
        assert infer.start_time <= span.start_time <= span.end_time <= infer.end_time


async def test_a_traced_error_is_in_the_trace(replica, recorded):
    await replica.refused(b"\xff", traceparent=TRACE)
    (span,) = recorded()
    assert span.attributes[spans.ERROR_CODE] == "INVALID_REQUEST"


async def test_retiring_closes_the_model_after_its_last_answer(replica):
    replica.model.go.clear()
    asked = asyncio.create_task(replica.ask(message(np.ones((1, 1), np.float32))))
    while not replica.model.threads:
        await asyncio.sleep(0.001)
    variant = replica.loaded.pop("double")
    retired = asyncio.create_task(variant.retire())
    await asyncio.sleep(0.01)
    assert not replica.model.closed
    replica.model.go.set()
    await asked
    await retired
    assert replica.model.closed
