"""What is kept of each inference: a span if it is traced, metrics and statistics always."""

from __future__ import annotations

import asyncio
import time

from adlik_common import spans, telemetry
from adlik_common.errors import AdlikError
from adlik_proto.adlik.link.v1.link_pb2 import InferResponseHead
from opentelemetry import trace

from adlik_gateway import metrics
from adlik_gateway.inference.calls import Call, size
from adlik_gateway.inference.replicas import ReplicaTable
from adlik_gateway.inference.sampling import TraceSampler
from adlik_gateway.inference.statistics import Statistics


class Recorder:
    """Begins a record for every inference.

    Args:
        table: Says which models exist; names from outside are no metric labels.
        statistics: Where counts and times go.
        sampler: Decides what is traced.
    """

    def __init__(self, table: ReplicaTable, statistics: Statistics, sampler: TraceSampler) -> None:
        self._table, self._statistics, self._sampler = table, statistics, sampler
        self._tracer = telemetry.tracer()

    def begin(self, call: Call) -> Record:
        """Returns the record of an inference that starts now."""
        span = None
        if self._sampler.traced(call.traceparent):
            metrics.TRACED.inc()
            span = self._tracer.start_span(
                spans.GATEWAY_INFER,
                context=telemetry.context_from(call.traceparent),
                kind=trace.SpanKind.SERVER,
                attributes={
                    spans.MODEL: call.model,
                    spans.PROTOCOL: call.protocol,
                    spans.REQUEST_BYTES: sum(map(size, call.body)),
                },
            )
        metrics.IN_FLIGHT.inc()
        return Record(self._table, self._statistics, call, span)

    def refused(self, protocol: str, error: AdlikError) -> None:
        """Counts a request that was no inference yet when it ended."""
        metrics.duration("", protocol, error.code).observe(0.0)


class Record:
    """One inference; ends with `succeeded` or `failed`.

    Attributes:
        traceparent: Trace context of the gateway's span; "" where there is none.
    """

    __slots__ = ("_call", "_span", "_started", "_statistics", "_table", "traceparent")

    def __init__(
        self, table: ReplicaTable, statistics: Statistics, call: Call, span: trace.Span | None
    ) -> None:
        self._table, self._statistics, self._call, self._span = table, statistics, call, span
        self.traceparent = ""
        if span is not None:
            self.traceparent = telemetry.inject(trace.set_span_in_context(span))
        self._started = time.perf_counter_ns()

    def succeeded(self, replica: str, head: InferResponseHead, answer_bytes: int) -> None:
        """Ends the record of an answered inference."""
        ns = time.perf_counter_ns() - self._started
        protocol = self._call.protocol
        model = head.model if head.model in self._table.releases else ""  # deleted meanwhile
        if model:
            self._statistics.succeeded(head, ns)
        metrics.IN_FLIGHT.dec()
        metrics.duration(model, protocol, "OK").observe(ns / 1e9)
        metrics.request_bytes(model, protocol).inc(sum(map(size, self._call.body)))
        metrics.response_bytes(model, protocol).inc(answer_bytes)
        if self._span is not None:
            self._span.set_attributes(
                {
                    spans.REPLICA: replica,
                    spans.VERSION: head.version,
                    spans.VARIANT: head.variant,
                    spans.RESPONSE_BYTES: answer_bytes,
                }
            )
            self._span.end()

    def failed(self, error: BaseException) -> None:
        """Ends the record of an inference that was not answered."""
        ns = time.perf_counter_ns() - self._started
        model, protocol = self._call.model, self._call.protocol
        if versions := self._table.versions(model):
            version = self._call.version or versions[-1]
            if version in versions:
                self._statistics.failed(model, version, ns)
        label = model if model in self._table.releases else ""
        metrics.IN_FLIGHT.dec()
        metrics.duration(label, protocol, _code(error)).observe(ns / 1e9)
        if self._span is not None:
            telemetry.record_error(self._span, error)
            self._span.end()


def _code(error: BaseException) -> str:
    if isinstance(error, AdlikError):
        return error.code
    return "CANCELLED" if isinstance(error, asyncio.CancelledError) else "INTERNAL"
