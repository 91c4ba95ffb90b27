"""Answers inference requests from the link: find the model, decode, queue, encode, and trace."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from time import perf_counter_ns

from adlik_common import spans, telemetry
from adlik_common.errors import (
    AdlikError,
    Cancelled,
    Internal,
    InvalidRequest,
    NotFound,
    Unavailable,
    to_proto,
)
from adlik_common.link import IncomingRequest
from adlik_proto.adlik.link.v1 import link_pb2
from google.protobuf.message import DecodeError
from opentelemetry import trace
from opentelemetry.context import Context

from adlik_serving.batcher import Work
from adlik_serving.lanes import ELEMENT_WORK, Lane, Lanes
from adlik_serving.loaded import LoadedVariant
from adlik_serving.metrics import count_request
from adlik_serving.oip import json_body, protobuf_body, tensor_body
from adlik_serving.oip.request import Answer, Codec, InferRequest

log = logging.getLogger(__name__)

CODECS: dict[int, Codec] = {
    link_pb2.ENCODING_PROTOBUF: protobuf_body,
    link_pb2.ENCODING_JSON: json_body,
    link_pb2.ENCODING_TENSOR: tensor_body,
}


class Servicer:
    """The link's handler.

    Args:
        loaded: What is served, by model name; read at each request.
        failed: Why a model is not served, by model name.
        lane: Where bodies are read and written.
    """

    def __init__(
        self,
        loaded: Mapping[str, LoadedVariant],
        failed: Mapping[str, AdlikError],
        lane: Lane | None = None,
    ) -> None:
        self._loaded, self._failed = loaded, failed
        self._lane = lane or Lanes()

    def __call__(self, incoming: IncomingRequest) -> None:
        """Takes a request; it is answered from its batch, or at once where it is wrong."""
        call = _Call(incoming, self._find, self._lane)
        call.guard(call.start)()

    def _find(self, head: link_pb2.InferRequestHead) -> LoadedVariant:
        """Returns the variant that a request is for; raises `NotFound` or `Unavailable`."""
        variant = self._loaded.get(head.model)
        if variant is None:
            if (reason := self._failed.get(head.model)) is not None:
                raise Unavailable(
                    f"Model '{head.model}' can't be served by this replica: {reason.message}",
                    cure=reason.cure,
                )
            names = ", ".join(f"'{name}'" for name in sorted(self._loaded)) or "none"
            raise NotFound(
                f"No model '{head.model}' is served here; there are: {names}.",
                cure="Push it, or use the name of one that is served.",
            )
        if head.version not in (0, variant.version):
            raise NotFound(
                f"Version {head.version} of model '{head.model}' is not served; "
                f"version {variant.version} is.",
                cure="Ask for the served version, or for none.",
            )
        return variant


class _Call:
    """One request from frame to frame.

    Its body is read, and its answer written, in a lane; everything else is done on the event loop.
    """

    __slots__ = (
        "_answer", "_codec", "_decoded_ns", "_encoded_ns", "_find", "_incoming", "_lane",
        "_request", "_started", "_variant", "head",
    )  # fmt: skip

    _codec: Codec
    _request: InferRequest
    _answer: Answer

    def __init__(
        self,
        incoming: IncomingRequest,
        find: Callable[[link_pb2.InferRequestHead], LoadedVariant],
        lane: Lane,
    ) -> None:
        self._started = perf_counter_ns()
        self._decoded_ns = self._encoded_ns = 0
        self._incoming, self._find, self._lane = incoming, find, lane
        self._variant: LoadedVariant | None = None
        self.head = link_pb2.InferRequestHead()

    def guard(self, step: Callable[[], None], work: Work | None = None) -> Callable[[], None]:
        """Returns a step that answers with the error which it raises.

        This is the edge of the service: a fault of ours must not end the connection of others.
        """

        def guarded() -> None:
            try:
                step()
            except AdlikError as error:
                self.fail(error, work)
            except Exception as error:
                log.exception("request for %s", self.head.model)
                self.fail(Internal(f"{type(error).__name__}: {error}"), work)

        return guarded

    def start(self) -> None:
        """Finds the model and has the body read."""
        incoming = self._incoming
        try:
            self.head = head = link_pb2.InferRequestHead.FromString(incoming.head)
        except DecodeError as error:
            raise InvalidRequest(f"The frame's head can't be read: {error}.") from error
        codec = CODECS.get(head.encoding)
        if codec is None:
            raise InvalidRequest(f"Encoding {head.encoding} of the body is unknown.")
        self._codec = codec
        self._read(self._find(head))

    def _read(self, variant: LoadedVariant) -> None:
        """Has the body read as a request for a variant."""
        self._variant = variant
        body, length, signature = self._incoming.body, self.head.json_length, variant.signature
        amount = self._codec.decoding_work(body, length, signature)
        self._lane.check_room(amount)
        self._lane(amount, self._told(lambda: self._decode(variant), self._queue))

    def _decode(self, variant: LoadedVariant) -> None:
        if self._is_cancelled():
            raise Cancelled("The caller went away before its request was read.")
        codec, head = self._codec, self.head
        self._request = codec.decode(self._incoming.body, head.json_length, variant.signature)
        self._decoded_ns = perf_counter_ns() - self._started

    def _queue(self) -> None:
        """Queues the request; one that was read for a variant which is gone is read once more."""
        variant = self._find(self.head)
        if variant is not self._variant:
            self._read(variant)
            return
        request, wait_ns = self._request, self.head.timeout_ms * 1_000_000
        variant.batcher.submit(
            Work(
                request.inputs,
                tuple([output.name for output in request.outputs]),
                self._ran,
                self._is_cancelled,
                self._started + wait_ns if wait_ns > 0 else 0,
            )
        )

    def _is_cancelled(self) -> bool:
        return self._incoming.cancelled

    def _ran(self, work: Work) -> None:
        """Answers with what a run gave; called by the batcher, whose other requests go on."""
        self.guard(lambda: self._write(work), work)()

    def _write(self, work: Work) -> None:
        """Has the answer written."""
        if work.error is not None:
            raise work.error
        elements = self._codec.encoding_work(self._request, work.results)
        written = self._told(lambda: self._encode(work), lambda: self._respond(work), work)
        self._lane(elements * ELEMENT_WORK, written)

    def _encode(self, work: Work) -> None:
        variant = self._variant
        assert variant is not None
        started = perf_counter_ns()
        self._answer = self._codec.encode(self._request, variant.label, work.results)
        self._encoded_ns = perf_counter_ns() - started

    def _respond(self, work: Work) -> None:
        variant = self._variant
        assert variant is not None
        work.input_ns += self._decoded_ns
        work.output_ns += self._encoded_ns
        head = link_pb2.InferResponseHead(
            json_length=self._answer.json_length,
            model=variant.name,
            version=variant.version,
            variant=variant.variant,
            queue_ns=work.queue_ns,
            input_ns=work.input_ns,
            infer_ns=work.infer_ns,
            output_ns=work.output_ns,
            batch_size=work.batch_rows,
            rows=work.rows,
        )
        self._incoming.respond(head.SerializeToString(), *self._answer.buffers)
        count_request(variant.name, "OK")
        if self.head.traceparent:
            self._trace(work, None)

    def _told(
        self, step: Callable[[], None], then: Callable[[], None], work: Work | None = None
    ) -> Callable[[], Callable[[], None]]:
        """Returns work for a lane: a step, and what follows it on the loop, errors told there."""

        def done() -> Callable[[], None]:
            try:
                step()
            except Exception as error:  # noqa: BLE001 - raised again on the loop
                failure = error
                return self.guard(lambda: _raise(failure), work)
            return self.guard(then, work)

        return done

    def fail(self, error: AdlikError, work: Work | None = None) -> None:
        """Answers with an error."""
        head = link_pb2.ErrorHead(error=to_proto(error))
        self._incoming.fail(head.SerializeToString())
        # Names of models that do not exist must not become labels.
        count_request(self._variant.name if self._variant else "", error.code)
        if self.head.traceparent:
            self._trace(work, error)

    def _trace(self, work: Work | None, error: AdlikError | None) -> None:
        """Records the request's spans afterwards, from the times that were measured anyway."""
        tracer, wall = telemetry.tracer(), time.time_ns() - perf_counter_ns()
        attributes: dict[str, str | int] = {spans.MODEL: self.head.model}
        if self._variant is not None:
            compiled = self._variant.release.compiled
            attributes |= {
                spans.VERSION: self._variant.version,
                spans.VARIANT: compiled.variant,
                spans.ENGINE: compiled.engine,
                spans.PRECISION: compiled.precision,
            }
        span = tracer.start_span(
            spans.SERVING_INFER,
            telemetry.context_from(self.head.traceparent),
            kind=trace.SpanKind.SERVER,
            attributes=attributes,
            start_time=wall + self._started,
        )
        if error is not None:
            telemetry.record_error(span, error)
        if work is not None:
            span.set_attribute(spans.BATCH_SIZE, work.batch_rows)
            self._trace_parts(work, wall, trace.set_span_in_context(span))
        span.end(wall + perf_counter_ns())

    def _trace_parts(self, work: Work, wall: int, inside: Context) -> None:
        """Records what happened to a request between its reading and its answer."""
        tracer, pipeline = telemetry.tracer(), self._variant.pipeline if self._variant else None
        queued = wall + work.arrived_ns
        taken = queued + work.queue_ns
        # The batch is joined after it was taken from the queue, in the last part of input_ns.
        joined = taken + max(0, work.input_ns - self._decoded_ns)
        ran = joined + work.infer_ns
        parts = [(spans.QUEUE, queued, taken), (spans.EXECUTE, joined, ran)]
        attributes: dict[str, int] = {}
        if pipeline is not None:
            rows, columns = pipeline.picture_size(work)
            attributes = {spans.PICTURE_ROWS: rows, spans.PICTURE_COLUMNS: columns}
            parted = ran + max(0, work.output_ns - self._encoded_ns)
            parts += [(spans.PREPROCESS, taken, joined), (spans.POSTPROCESS, ran, parted)]
        else:
            parts.append((spans.BATCH, taken, joined))
        for name, start, end in parts:
            given = attributes if name == spans.PREPROCESS else None
            tracer.start_span(name, inside, attributes=given, start_time=start).end(end)


def _raise(error: Exception) -> None:
    raise error
