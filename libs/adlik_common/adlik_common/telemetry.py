"""Traces: one OpenTelemetry set-up for every service, and the mesh's own store of recent traces.

Spans are kept as OTLP messages in a bounded JetStream stream, a subject per trace, so that
`adlik trace` works with no collector; with OTEL_EXPORTER_OTLP_ENDPOINT set they are exported too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any

from nats.errors import Error as NatsError
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from adlik_common import spans
from adlik_common.errors import AdlikError
from adlik_common.settings import ServiceSettings

if TYPE_CHECKING:
    from adlik_common.bus import Bus

log = logging.getLogger(__name__)

STREAM = "ADLIK_TRACES"
PREFIX = "adlik.v1.trace"
MAX_WAITING_SPANS = 4096
SPANS_PER_MESSAGE = 200
FLUSH_SECONDS = 0.25

_PROPAGATOR = TraceContextTextMapPropagator()


def tracer() -> trace.Tracer:
    """Returns the process's tracer."""
    return trace.get_tracer("adlik")


def inject(context: Context | None = None) -> str:
    """Returns the W3C traceparent of the current span, "" where there is none."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, context)
    return carrier.get("traceparent", "")


def context_from(traceparent: str) -> Context:
    """Returns the context in which spans become children of a W3C traceparent."""
    return _PROPAGATOR.extract({"traceparent": traceparent} if traceparent else {}, Context())


def current_trace_id() -> str:
    """Returns the current trace's id, 32 hexadecimal digits, "" where there is none."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else ""


def record_error(span: trace.Span, error: BaseException) -> None:
    """Marks a span as failed, with the error's code."""
    code = error.code if isinstance(error, AdlikError) else "INTERNAL"
    span.set_attribute(spans.ERROR_CODE, code)
    span.set_status(trace.StatusCode.ERROR, str(error))


class JetStreamProcessor(SpanProcessor):
    """Collects ended spans and publishes them in the background, dropping the oldest in a flood."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._ended: deque[ReadableSpan] = deque(maxlen=MAX_WAITING_SPANS)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Does nothing: only ended spans are kept."""

    def on_end(self, span: ReadableSpan) -> None:
        """Takes an ended span; may be called from any thread."""
        if span.context is not None and span.context.trace_flags.sampled:
            self._ended.append(span)

    async def run(self) -> None:
        """Publishes what has ended, for ever."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Publishes what has ended; traces are worth no waiting, so nothing is tried twice."""
        by_trace: dict[int, list[ReadableSpan]] = defaultdict(list)
        while self._ended:
            span = self._ended.popleft()
            assert span.context is not None
            by_trace[span.context.trace_id].append(span)
        for trace_id, ended in by_trace.items():
            subject = f"{PREFIX}.{trace.format_trace_id(trace_id)}"
            for start in range(0, len(ended), SPANS_PER_MESSAGE):
                request = encode_spans(ended[start : start + SPANS_PER_MESSAGE])
                with contextlib.suppress(NatsError, OSError):
                    await self._bus.client.publish(subject, request.SerializeToString())


def configure(
    service: str, instance: str, settings: ServiceSettings, bus: Bus
) -> JetStreamProcessor:
    """Sets the process's tracer up and returns what publishes its spans."""
    resource = Resource.create(
        {"service.name": f"adlik-{service}", "service.instance.id": instance}
    )
    provider = TracerProvider(resource=resource)
    processor = JetStreamProcessor(bus)
    provider.add_span_processor(processor)
    if settings.otlp_endpoint:
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return processor


def shut_down() -> None:
    """Exports what is left."""
    provider: Any = trace.get_tracer_provider()
    if hasattr(provider, "shutdown"):
        provider.shutdown()
