"""The compiler's Prometheus metrics."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

_SECONDS = (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600)

COMPILE_SECONDS = Histogram(
    "adlik_compile_seconds", "Time to compile a model for a target.", ["target"], buckets=_SECONDS
)
COMPILE_CACHED = Counter(
    "adlik_compile_cached_total", "Compilations answered from the cache.", ["target"]
)
COMPILE_FAILED = Counter(
    "adlik_compile_failed_total", "Compilations that failed.", ["target", "code"]
)
VERIFY_SECONDS = Histogram(
    "adlik_verify_seconds", "Time to verify a variant.", ["target"], buckets=_SECONDS
)
VERIFIED = Counter("adlik_verified_total", "Verified variants.", ["target", "accepted"])
TUNED = Counter("adlik_tuned_total", "Bundles tuned in idle time, by what came of it.", ["outcome"])
TUNE_SECONDS = Histogram(
    "adlik_tune_seconds", "Time to tune a bundle in idle time.", buckets=_SECONDS
)
TUNE_SPEEDUP = Histogram(
    "adlik_tune_speedup",
    "How many times faster a model was with what was found.",
    buckets=(0.9, 0.95, 1, 1.02, 1.05, 1.1, 1.2, 1.5, 2, 3),
)
