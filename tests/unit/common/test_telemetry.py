"""Traces: contexts pass through text, and ended spans are published by trace."""

import pytest
from adlik_common import telemetry
from adlik_common.errors import NotFound
from adlik_common.telemetry import JetStreamProcessor, context_from, inject
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import ConnectionClosedError
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider


class Sink:
    """Stands for the bus and its client; keeps what is published."""

    def __init__(self):
        self.client, self.published, self.broken = self, [], False

    async def publish(self, subject, data):
        if self.broken:
            raise ConnectionClosedError
        self.published.append((subject, ExportTraceServiceRequest.FromString(data)))


def spans_of(request):
    return [s for r in request.resource_spans for scope in r.scope_spans for s in scope.spans]


@pytest.fixture
def sink():
    return Sink()


@pytest.fixture
def processor(sink):
    return JetStreamProcessor(sink)


@pytest.fixture
def tracer(processor):
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider.get_tracer("test")


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.sampled_from(["00", "01"]))
def test_a_traceparent_comes_back(trace_id, span_id, flags):
    written = f"00-{trace_id:032x}-{span_id:016x}-{flags}"
    assert inject(context_from(written)) == written


@given(st.text(st.characters(codec="latin-1"), max_size=60))
def test_garbage_from_outside_is_no_context(text):
    given_ids = trace.get_current_span(context_from(text)).get_span_context()
    assert not given_ids.is_valid or inject(context_from(text)) == text


def test_without_a_span_there_is_nothing_to_pass_on():
    assert inject() == ""
    assert telemetry.current_trace_id() == ""


def test_the_current_trace_is_named_as_in_its_traceparent(tracer):
    with tracer.start_as_current_span("push"):
        assert telemetry.current_trace_id() == inject().split("-")[1]


async def test_spans_are_published_by_trace(tracer, processor, sink):
    for name in ("one", "two"):
        with tracer.start_as_current_span(name), tracer.start_as_current_span(f"{name}.child"):
            pass
    await processor.flush()
    assert len(sink.published) == 2
    for subject, request in sink.published:
        found = spans_of(request)
        assert {f"{telemetry.PREFIX}.{span.trace_id.hex()}" for span in found} == {subject}
        assert len(found) == 2
    await processor.flush()
    assert len(sink.published) == 2, "nothing is published twice"


async def test_a_long_trace_goes_in_several_messages(tracer, processor, sink):
    with tracer.start_as_current_span("root"):
        for _ in range(telemetry.SPANS_PER_MESSAGE + 1):
            tracer.start_span("child").end()
    await processor.flush()
    sizes = [len(spans_of(request)) for _, request in sink.published]
    assert sizes == [telemetry.SPANS_PER_MESSAGE, 2]


async def test_a_flood_drops_the_oldest(tracer, processor, sink):
    with tracer.start_as_current_span("root"):
        for number in range(telemetry.MAX_WAITING_SPANS + 10):
            tracer.start_span(f"child {number}").end()
    await processor.flush()
    names = [span.name for _, request in sink.published for span in spans_of(request)]
    assert len(names) == telemetry.MAX_WAITING_SPANS
    assert names[0] == "child 11"
    assert names[-1] == "root"


async def test_spans_of_a_caller_that_does_not_sample_are_not_kept(tracer, processor, sink):
    context = context_from(f"00-{1:032x}-{1:016x}-00")
    with tracer.start_as_current_span("quiet", context=context):
        pass
    await processor.flush()
    assert not sink.published


async def test_a_bus_that_is_away_costs_the_spans_and_nothing_else(tracer, processor, sink):
    sink.broken = True
    tracer.start_span("lost").end()
    await processor.flush()
    sink.broken = False
    await processor.flush()
    assert not sink.published


async def test_an_error_is_marked_with_its_code(tracer, processor, sink):
    with tracer.start_as_current_span("push") as span:
        telemetry.record_error(span, NotFound("There is none.", cure="Look elsewhere."))
    await processor.flush()
    ((_, request),) = sink.published
    (marked,) = spans_of(request)
    assert marked.status.message == "There is none. Look elsewhere."
    assert {a.key: a.value.string_value for a in marked.attributes} == {
        "adlik.error.code": "NOT_FOUND"
    }
