"""What is kept of an inference: spans of the traced, metrics of all."""

import asyncio

import pytest
from adlik_common.errors import InvalidTensor
from adlik_gateway.inference.calls import Call
from adlik_gateway.inference.plane import assemble
from adlik_gateway.inference.sampling import TraceSampler
from adlik_proto.adlik.link.v1.link_pb2 import ENCODING_JSON
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY

from .conftest import gateway_settings

TRACE = "0af7651916cd43dd8448eb211c80319c"
SAMPLED, UNSAMPLED = (f"00-{TRACE}-b7ad6b7169203331-{flags}" for flags in ("01", "00"))


@pytest.fixture
def ended(monkeypatch):
    """Spans that have ended, kept in memory."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("adlik_common.telemetry.tracer", lambda: provider.get_tracer("test"))
    return exporter.get_finished_spans


def call(model="m", **fields):
    return Call(model, 0, ENCODING_JSON, (b"body",), "http", **fields)


async def test_a_traced_request_is_one_span_of_the_callers_trace(ended, table, replica):
    plane = assemble(table, gateway_settings())
    answer = await plane.router.infer(call(traceparent=SAMPLED))
    (span,) = ended()
    assert span.name == "gateway.infer"
    assert f"{span.context.trace_id:032x}" == TRACE
    assert span.parent.span_id == 0xB7AD6B7169203331
    assert answer.traceparent == f"00-{TRACE}-{span.context.span_id:016x}-01"
    assert replica.heads[0].traceparent == answer.traceparent
    assert span.attributes == {
        "adlik.model": "m",
        "adlik.protocol": "http",
        "adlik.request.bytes": 4,
        "adlik.response.bytes": 4,
        "adlik.replica": "a",
        "adlik.version": 1,
        "adlik.variant": "pushed.onnxruntime-fp32",
    }


async def test_a_failed_request_is_a_failed_span(ended, table, replica):
    plane = assemble(table, gateway_settings())
    replica.refuse(InvalidTensor("Wrong shape."))
    with pytest.raises(InvalidTensor):
        await plane.router.infer(call(traceparent=SAMPLED))
    (span,) = ended()
    assert span.attributes["adlik.error.code"] == "INVALID_TENSOR"
    assert not span.status.is_ok


async def test_what_is_not_sampled_has_no_span(ended, table, replica):
    plane = assemble(table, gateway_settings(trace_inferences_per_second=5))
    answer = await plane.router.infer(call(traceparent=UNSAMPLED))
    assert (ended(), answer.traceparent, replica.heads[0].traceparent) == ((), "", "")


def counted(name, **labels):
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_metrics_count_by_result_and_never_by_names_from_outside(table, replica):
    plane = assemble(table, gateway_settings())
    count = "adlik_gateway_inference_seconds_count"
    good = {"model": "m", "protocol": "http", "code": "OK"}
    unknown = {"model": "", "protocol": "http", "code": "NOT_FOUND"}
    cancelled = {**good, "code": "CANCELLED"}
    before = [counted(count, **labels) for labels in (good, unknown, cancelled)]
    await plane.router.infer(call())
    with pytest.raises(Exception, match="released"):
        await plane.router.infer(call("m\nstrange name"))
    replica.answer = replica.hold
    task = asyncio.create_task(plane.router.infer(call()))
    while len(replica.requests) < 2:
        await asyncio.sleep(0.001)
    assert counted("adlik_gateway_inferences_in_flight") == 1
    task.cancel()
    await asyncio.wait([task])
    after = [counted(count, **labels) for labels in (good, unknown, cancelled)]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1, 1]
    assert counted("adlik_gateway_inferences_in_flight") == 0


def test_the_sampler_follows_the_caller_and_else_takes_a_few_a_second():
    now = [0.0]
    sampler = TraceSampler(2, clock=lambda: now[0])
    assert [sampler.traced("") for _ in range(4)] == [True, True, False, False]
    now[0] = 0.5
    assert [sampler.traced("") for _ in range(2)] == [True, False]
    now[0] = 100.0
    assert [sampler.traced("") for _ in range(3)] == [True, True, False]
    assert sampler.traced(SAMPLED)
    now[0] = 200.0
    assert not sampler.traced(UNSAMPLED)
    assert sampler.traced("no traceparent")
    assert not TraceSampler(0).traced("")
