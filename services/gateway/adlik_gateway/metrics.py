"""Prometheus metrics of the gateway; docs/telemetry.md lists the same names."""

from __future__ import annotations

import functools

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
)  # fmt: skip

_DURATION = Histogram(
    "adlik_gateway_inference_seconds",
    "Time from a request's arrival to its answer, by result code.",
    ("model", "protocol", "code"),
    buckets=_SECONDS,
)
_REQUEST_BYTES = Counter(
    "adlik_gateway_inference_request_bytes", "Bytes of inference requests.", ("model", "protocol")
)
_RESPONSE_BYTES = Counter(
    "adlik_gateway_inference_response_bytes", "Bytes of inference answers.", ("model", "protocol")
)
_RETRIES = Counter(
    "adlik_gateway_inference_retries",
    "Inferences sent to a further replica, by the code of the first one's failure.",
    ("code",),
)
IN_FLIGHT = Gauge("adlik_gateway_inferences_in_flight", "Inferences that are not answered yet.")
TRACED = Counter("adlik_gateway_inferences_traced", "Inferences that were traced.")


# Finding a labelled child costs more than using it, so each is looked up once. The model label is
# only ever the name of a released model, which bounds the caches; `forget` empties them.
@functools.cache
def duration(model: str, protocol: str, code: str) -> Histogram:
    """Returns the histogram of an inference's seconds."""
    return _DURATION.labels(model, protocol, code)


@functools.cache
def request_bytes(model: str, protocol: str) -> Counter:
    """Returns the counter of bytes that came in."""
    return _REQUEST_BYTES.labels(model, protocol)


@functools.cache
def response_bytes(model: str, protocol: str) -> Counter:
    """Returns the counter of bytes that went out."""
    return _RESPONSE_BYTES.labels(model, protocol)


@functools.cache
def retries(code: str) -> Counter:
    """Returns the counter of inferences sent again after a failure with this code."""
    return _RETRIES.labels(code)


def forget(model: str) -> None:
    """Takes a model's series away: it is deleted, and a successor counts from 0."""
    for metric in (_DURATION, _REQUEST_BYTES, _RESPONSE_BYTES):
        metric.remove_by_labels({"model": model})
    for found in (duration, request_bytes, response_bytes):
        found.cache_clear()
