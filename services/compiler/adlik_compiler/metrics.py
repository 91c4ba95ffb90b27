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
