"""Measures models beside each other: latency run by run in turns, and memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np
import psutil

MIN_RUNS, MAX_RUNS = 5, 1000
_WARM_UP_RUNS = 2


@dataclass(frozen=True, slots=True)
class Latency:
    """Times of single runs of batch 1.

    Attributes:
        p50_ms: Median, milliseconds.
        p99_ms: 99th percentile, milliseconds.
        runs: How many were timed.
    """

    p50_ms: float
    p99_ms: float
    runs: int


def measure_in_turns(calls: Sequence[Callable[[], object]], seconds: float) -> list[Latency]:
    """Times calls, each in turn, so that a disturbance of the machine meets all of them.

    Args:
        calls: What to time.
        seconds: About how long to go on; each runs at least 5 and at most 1000 times.

    Returns:
        The latency of each call.
    """
    for call in calls:
        for _ in range(_WARM_UP_RUNS):
            call()
    times: list[list[int]] = [[] for _ in calls]
    deadline = perf_counter_ns() + int(seconds * 1e9)
    while len(times[0]) < MIN_RUNS or (len(times[0]) < MAX_RUNS and perf_counter_ns() < deadline):
        for call, taken in zip(calls, times, strict=True):
            started = perf_counter_ns()
            call()
            taken.append(perf_counter_ns() - started)
    return [_latency(taken) for taken in times]


def resident_bytes() -> int:
    """Returns the resident memory of this process."""
    return int(psutil.Process().memory_info().rss)


def _latency(taken_ns: list[int]) -> Latency:
    p50, p99 = np.percentile(taken_ns, [50, 99]) / 1e6
    return Latency(float(p50), float(p99), len(taken_ns))
