"""Runs plans with every array at pages that nobody may touch, and with poison where nothing lives.

What a kernel reads beside its arrays ends the process; what it reads of another value's memory is
NaN, or 255 where it is a level.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
from adlik_kernels.operators import packing
from adlik_kernels.plans import layouts, model
from adlik_kernels.plans import plan as plans

from tests.unit.kernels.fences import Fence

POISON = 0xFF
"""Four such bytes are NaN."""


class _Drawn(dict[str, float]):
    """Costs of convolutions in all ways and layouts as if they had been measured: any."""

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: str) -> float:
        return float(zlib.crc32(key.encode()) % 1000)

    def get(self, key: str, default: float = 0.0) -> float:  # all are known
        return self[key] / 10


@contextmanager
def algorithms(*, drawn: bool) -> Iterator[None]:
    """Lets convolutions be computed in ways and layouts that are drawn, not chosen for speed."""
    before = layouts.known_costs
    if drawn:
        layouts.known_costs = lambda *_: _Drawn()
    try:
        yield
    finally:
        layouts.known_costs = before


@contextmanager
def fenced(side: str) -> Iterator[tuple[Fence, list[Any]]]:
    """Lets arenas, packed weights and results end, or begin, at such pages.

    Args:
        side: "end" or "begin".

    Yields:
        What makes arrays there, and the plans that are made meanwhile.
    """
    fence, made = Fence(side), []
    before = packing.aligned_empty, plans.arrange, plans.np, model.Plan

    def empty(shape: Any, dtype: Any) -> np.ndarray:
        return fence.empty(tuple(np.atleast_1d(shape)), dtype)

    def plan(*arguments: Any) -> Any:
        made.append(plans.Plan(*arguments))
        return made[-1]

    known = {name: getattr(np, name) for name in dir(np) if not name.startswith("__")}
    plans.np = SimpleNamespace(**{**known, "empty": empty})
    plans.arrange = lambda lifetimes: _scattered(lifetimes, side)
    packing.aligned_empty = plans.aligned_empty = empty
    model.Plan = plan
    try:
        yield fence, made
    finally:
        packing.aligned_empty, plans.arrange, plans.np, model.Plan = before
        plans.aligned_empty = packing.aligned_empty


def _scattered(lifetimes: Any, side: str) -> tuple[dict[str, int], int]:
    """A place of its own for every value, in an order that is not that of its use."""
    order = sorted(lifetimes, key=lambda lifetime: lifetime.name[::-1], reverse=side == "end")
    places, at = {}, 0
    for lifetime in order:
        places[lifetime.name] = at
        at += -(-lifetime.size // 64) * 64
    return places, max(at, 64)


def poison(plan: Any) -> None:
    """Fills what a plan's values lie in, but for values with borders: these stay as they are."""
    for (batch, tokens), bound in plan._bound.items():
        sizes = {"batch": batch, "tokens": tokens}
        for name, start in plan.arena(sizes)[0].items():
            if name in plan.graph.values and not plan._grids[name].border:
                bound._memory[start : start + plan._bytes(name, sizes)] = POISON
