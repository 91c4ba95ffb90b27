"""Reads the mesh's recent traces back from their stream."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable

from adlik_common import spans, telemetry
from adlik_common.bus import Bus
from adlik_common.errors import NotFound
from adlik_proto.adlik.trace.v1 import trace_pb2
from nats.js import api
from nats.js import errors as js_errors
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

MAX_SPANS = 5000
MAX_MESSAGES_BACK = 500
_TRACE_ID = re.compile(r"[0-9a-f]{32}")


async def read_trace(bus: Bus, trace_id: str) -> trace_pb2.Trace:
    """Returns a trace's spans by start time; raises `NotFound` where none are kept."""
    found: dict[str, trace_pb2.Span] = {}
    if _TRACE_ID.fullmatch(trace_id):
        async for message in _messages(bus, f"{telemetry.PREFIX}.{trace_id}"):
            for span in _spans(message):
                found[span.span_id] = span
            if len(found) > MAX_SPANS:
                break
    if not found:
        raise NotFound(
            f"No trace {trace_id[:40]!r} is kept.",
            cure="Only recent traces are; wait a second after the request, or trace a new one.",
        )
    ordered = sorted(found.values(), key=lambda span: span.start_unix_nano)
    return trace_pb2.Trace(trace_id=trace_id, spans=ordered)


async def last_inference(bus: Bus) -> str:
    """Returns the id of the newest recorded inference; raises `NotFound`."""
    info = await bus.jetstream.stream_info(telemetry.STREAM)
    last = info.state.last_seq
    for sequence in range(last, max(0, last - MAX_MESSAGES_BACK), -1):
        try:
            message = await bus.jetstream.get_msg(telemetry.STREAM, sequence)
        except js_errors.NotFoundError:
            break
        for span in _spans(message):
            if span.name == spans.GATEWAY_INFER:
                return str((message.subject or "").rpartition(".")[2])
    raise NotFound("No inference was recorded.", cure="Run one, e.g. with `adlik infer`.")


async def _messages(bus: Bus, subject: str) -> AsyncIterator[api.RawStreamMsg]:
    sequence = 1
    while True:
        try:
            message = await bus.jetstream.get_msg(
                telemetry.STREAM, sequence, subject=subject, next=True
            )
        except js_errors.NotFoundError:
            return
        yield message
        sequence = (message.seq or sequence) + 1


def _spans(message: api.RawStreamMsg) -> list[trace_pb2.Span]:
    request = ExportTraceServiceRequest.FromString(message.data or b"")
    return [
        _span(span, _text(resource.resource.attributes, "service.name"))
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def _span(span: Span, service: str) -> trace_pb2.Span:
    return trace_pb2.Span(
        span_id=span.span_id.hex(),
        parent_span_id=span.parent_span_id.hex(),
        name=span.name,
        service=service.removeprefix("adlik-"),
        start_unix_nano=span.start_time_unix_nano,
        end_unix_nano=span.end_time_unix_nano,
        attributes={pair.key: _value(pair.value) for pair in span.attributes},
        error=span.status.message if span.status.code == Status.STATUS_CODE_ERROR else "",
    )


def _text(attributes: Iterable[KeyValue], key: str) -> str:
    for pair in attributes:
        if pair.key == key:
            return _value(pair.value)
    return ""


def _value(value: AnyValue) -> str:
    kind = value.WhichOneof("value")
    if kind is None:
        return ""
    if kind == "array_value":
        return ", ".join(_value(item) for item in value.array_value.values)
    return str(getattr(value, kind))
