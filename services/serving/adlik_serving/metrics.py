"""The serving service's Prometheus metrics, with labels bound once per loaded variant."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
_VARIANT = ("model", "variant")

REQUESTS = Counter(
    "adlik_serving_requests", "Inference requests by outcome (OK or error code).", ("model", "code")
)
QUEUE_SECONDS = Histogram(
    "adlik_serving_queue_seconds", "Time a request waited for its run.", _VARIANT, buckets=_SECONDS
)
BATCH_ROWS = Histogram("adlik_serving_batch_rows", "Rows in one run.", _VARIANT, buckets=_ROWS)
EXECUTION_SECONDS = Histogram(
    "adlik_serving_execution_seconds", "Time of one run of a model.", _VARIANT, buckets=_SECONDS
)
QUEUED_REQUESTS = Gauge("adlik_serving_queued_requests", "Requests that wait.", _VARIANT)
QUEUED_BYTES = Gauge("adlik_serving_queued_bytes", "Tensor bytes that wait.", _VARIANT)
LOADED_MODELS = Gauge("adlik_serving_loaded_models", "Models that are served.")
MODEL_MEMORY_BYTES = Gauge(
    "adlik_serving_model_memory_bytes", "Memory that loading a model added.", _VARIANT
)


class VariantMetrics:
    """The metrics of one model's loaded variant.

    Args:
        model: The model's name.
        variant: The variant's id.
    """

    __slots__ = ("_labels", "batch_rows", "execution_seconds", "queue_seconds")

    def __init__(self, model: str, variant: str) -> None:
        self._labels = (model, variant)
        self.queue_seconds = QUEUE_SECONDS.labels(model, variant)
        self.batch_rows = BATCH_ROWS.labels(model, variant)
        self.execution_seconds = EXECUTION_SECONDS.labels(model, variant)

    def show(self, length: Callable[[], int], size: Callable[[], int], memory_bytes: int) -> None:
        """Shows the queue's length and bytes whenever metrics are collected, and the memory."""
        _shown[self._labels] = self
        QUEUED_REQUESTS.labels(*self._labels).set_function(length)
        QUEUED_BYTES.labels(*self._labels).set_function(size)
        MODEL_MEMORY_BYTES.labels(*self._labels).set(memory_bytes)
        LOADED_MODELS.set(len(_shown))

    def hide(self) -> None:
        """Takes the variant's series away, unless the model's next version shows its own by now.

        With a model's last variant goes what was counted of the model: a successor begins at 0.
        """
        if _shown.get(self._labels) is not self:
            return
        del _shown[self._labels]
        for metric in (*_GAUGES, QUEUE_SECONDS, BATCH_ROWS, EXECUTION_SECONDS):
            metric.remove(*self._labels)
        LOADED_MODELS.set(len(_shown))
        model = self._labels[0]
        if not _is_shown(model):
            REQUESTS.remove_by_labels({"model": model})
            for counted in [key for key in _counters if key[0] == model]:
                del _counters[counted]


_GAUGES = (QUEUED_REQUESTS, QUEUED_BYTES, MODEL_MEMORY_BYTES)
_shown: dict[tuple[str, str], VariantMetrics] = {}
_counters: dict[tuple[str, str], Counter] = {}


def count_request(model: str, code: str) -> None:
    """Counts a request by its outcome: "OK" or an error code."""
    counter = _counters.get((model, code))
    if counter is None:
        model = model if _is_shown(model) else ""  # answered as the last of one that is unloaded
        counter = _counters[model, code] = REQUESTS.labels(model, code)
    counter.inc()


def _is_shown(model: str) -> bool:
    return any(name == model for name, _ in _shown)
