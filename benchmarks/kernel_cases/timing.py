"""What a comparison is, and how its contenders are timed in turns."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

TURN = 0.012
"""Seconds of one turn."""

REST = 0.035
"""Seconds before a turn of several threads: idle ones of ONNX Runtime spin for 32 ms."""


@dataclass
class Case:
    """One comparison: what it is called, how many operations, and a call for each contender.

    A call that returns a float has timed itself, in seconds.
    """

    name: str
    operations: float
    peak: str
    calls: dict[str, Callable[[], object]]
    best: dict[str, float] = field(default_factory=dict)
    median: dict[str, float] = field(default_factory=dict)


def measure(case: Case, seconds: float, rest: float = 0.0) -> None:
    for call in case.calls.values():
        call()
    turns = {name: [] for name in case.calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, call in case.calls.items():
            time.sleep(rest)
            turns[name].append(turn(call))
    case.best = {name: min(found) for name, found in turns.items()}
    case.median = {name: statistics.median(found) for name, found in turns.items()}


def turn(call: Callable[[], object]) -> float:
    shortest, end = math.inf, time.perf_counter() + TURN
    while time.perf_counter() < end:
        start = time.perf_counter()
        result = call()
        own = result if isinstance(result, float) else time.perf_counter() - start
        shortest = min(shortest, own)
    return shortest


def check_same(got, calls: dict[str, Callable[[], object]]) -> None:
    """Stops the benchmark if a plan computes something else than ONNX Runtime."""
    import numpy as np

    for call in calls.values():
        want = call()[0]
        np.testing.assert_allclose(got, want, rtol=1e-2, atol=1e-3 * np.abs(want).max())


def aligned(array):
    """Returns a copy that begins at a cache line, as libraries keep their own arrays."""
    from adlik_kernels.operators.operands import aligned_empty

    copy = aligned_empty(array.shape, array.dtype)
    copy[...] = array
    return copy
