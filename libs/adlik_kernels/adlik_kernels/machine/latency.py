"""How long one load takes that waits for the one before, by cache level, and what the TLB holds.

A pointer chase: every word read is the address of the next one, in an order that no prefetcher
guesses. The TLB is found by its edges: one line on each of n pages is compared with n lines side by
side, which lie in the same caches; what the former costs more is address translation. Saavedra and
Smith, "Measuring Cache and TLB Performance and Their Effect on Benchmark Run Times" (1995).
"""

from __future__ import annotations

import itertools
import mmap
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from adlik_kernels.codegen.build import load
from adlik_kernels.codegen.emit import I64, POINTER, Emitter, kernel_function
from adlik_kernels.machine.pool import Pool
from adlik_kernels.machine.target import Target
from adlik_kernels.operators.operands import address, aligned_empty

LINE, PAGE = 64, 4096
"""Bytes of a cache line and of the smallest page."""

STEPS, UNROLL = 1 << 14, 8
"""Loads of one timed call, and how many of them are written out."""

CALLS, MOST, MOMENT = 8, 64, 0.1
"""Calls of which the shortest counts: at least, at most, and seconds after which it is enough."""

PASSES = 3
"""Times that the TLB is measured; the lower cost counts."""

COUNTS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
"""Pages tried: the sizes that TLBs have lie among them."""

STEP = 2.0
"""A miss of the second level costs this many times a miss of the first, or there is no second."""


@dataclass(frozen=True, slots=True)
class Translation:
    """The TLB of one core.

    Attributes:
        first: Entries of the first level, for pages of 4 KiB.
        second: Entries of the second level; those of the first where there is only one.
        first_miss: Seconds that a miss of the first level adds to a load.
        second_miss: Seconds that a miss of both adds to a load.
    """

    first: int
    second: int
    first_miss: float
    second_miss: float


def latencies(sizes: dict[str, int], target: Target, pool: Pool) -> dict[str, float]:
    """Returns seconds of a dependent load, by where it finds its word; all threads load at once.

    Args:
        sizes: Bytes that each thread chases through, by the name of the place.
        target: The machine.
        pool: The threads.
    """
    found = {}
    for place, size in sizes.items():
        rooms = [_small_pages(size) for _ in range(pool.threads)]
        rings = [ring(room, range(0, size, LINE)) for room in rooms]
        found[place] = chase(rings, target, pool)
    return found


def translation(target: Target, pool: Pool) -> Translation:
    """Measures the TLB of one core; takes half a second.

    Args:
        target: The machine.
        pool: Threads, of which the caller's is used.
    """
    paged, dense = _small_pages(COUNTS[-1] * PAGE), _small_pages(COUNTS[-1] * LINE)
    extra = [float("inf")] * len(COUNTS)
    for _, (place, pages) in itertools.product(range(PASSES), enumerate(COUNTS)):
        # Every page uses another line of itself: at the same place of all, they would share a set.
        far = ring(paged, [page * PAGE + page % 64 * LINE for page in range(pages)])
        cost = chase([far], target, pool)
        cost -= chase([ring(dense, range(0, pages * LINE, LINE))], target, pool)
        extra[place] = min(extra[place], max(cost, 0.0))
    base = chase([ring(dense, range(0, 16 * LINE, LINE))], target, pool)
    return edges(COUNTS, extra, base)


def edges(counts: Sequence[int], extra: Sequence[float], base: float) -> Translation:
    """Reads the two levels off what translation costs for each number of pages.

    Args:
        counts: Pages, rising.
        extra: Seconds that a load of so many pages takes longer than one of as many lines.
        base: Seconds of a load from the first cache.
    """
    # Noise only ever adds: what more pages cost at least, fewer pages cost at most.
    least = [min(extra[n:]) for n in range(len(extra))]
    first = _last(counts, least, base / 2)
    missed = [cost for count, cost in zip(counts, least, strict=True) if count > first]
    if not missed:
        return Translation(first, first, 0.0, 0.0)
    # A second level shows as a second step: what lies below the middle of it still hits.
    low, high = missed[0], missed[-1]
    second = _last(counts, least, (low + high) / 2) if high > STEP * low else first
    return Translation(first, second, low, high)


def _last(counts: Sequence[int], costs: Sequence[float], limit: float) -> int:
    """The most pages that cost no more than a limit."""
    fitting = [count for count, cost in zip(counts, costs, strict=True) if cost <= limit]
    return max(fitting, default=counts[0])


def ring(memory: NDArray[np.uint8], offsets: Sequence[int]) -> int:
    """Writes a chain of addresses through memory, in random order, and returns where it begins.

    Args:
        memory: [bytes] uint8.
        offsets: Where in memory its words lie.
    """
    order = address(memory) + np.random.default_rng(0).permutation(np.asarray(offsets, np.int64))
    memory.view(np.int64)[(order - address(memory)) // 8] = np.roll(order, -1)
    return int(order[0])


def chase(starts: Sequence[int], target: Target, pool: Pool) -> float:
    """Returns seconds of one load along a ring for each thread.

    Args:
        starts: Where each thread's ring begins.
        target: The machine.
        pool: The threads, as many as rings or more.
    """
    code = load("chase", (STEPS, UNROLL), _chase_module, target).address
    places = aligned_empty((len(starts), LINE // 8), np.int64)
    places[:, 0] = starts
    arguments = struct.pack("q", address(places))
    return _shortest(lambda: pool.run(code, arguments, len(starts))) / STEPS


def _shortest(call: Callable[[], None]) -> float:
    call()
    best, calls, end = float("inf"), 0, time.perf_counter() + MOMENT
    while calls < CALLS or (calls < MOST and time.perf_counter() < end):
        start = time.perf_counter()
        call()
        best, calls = min(best, time.perf_counter() - start), calls + 1
    return best


def _small_pages(size: int) -> NDArray[np.uint8]:
    """Memory of 4 KiB pages, where the system lets one choose."""
    room = mmap.mmap(-1, -(-size // PAGE) * PAGE)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        try:
            room.madvise(mmap.MADV_NOHUGEPAGE)
        except OSError:  # a kernel without huge pages has nothing to be told
            return np.frombuffer(room, np.uint8)
    return np.frombuffer(room, np.uint8)


def _chase_module() -> Any:
    """Loads that each wait for the one before; a call goes on where the last one ended."""
    module = ir.Module("chase")
    e = Emitter(kernel_function(module, "kernel"))
    chunk, _, arguments = e.function.args
    start = e.at(e.argument(arguments, 0), e.mul(chunk, LINE))
    here = e.variable(I64, e.load(start, I64, align=8))
    with e.loop(0, STEPS // UNROLL):
        place = e.builder.load(here)
        for _ in range(UNROLL):
            place = e.load(e.builder.inttoptr(place, POINTER), I64, align=8)
        e.builder.store(place, here)
    e.store(e.builder.load(here), start, align=8)
    e.builder.ret_void()
    return module
