"""Search by a cost model: measure what it thinks is best, learn from it, ask again."""

from __future__ import annotations

import random
from collections.abc import Iterable

from adlik_kernels.schedules.db import Record
from adlik_kernels.schedules.schedule import Schedule
from adlik_kernels.schedules.space import Space
from adlik_kernels.search.cost import CostModel
from adlik_kernels.search.plain import ATTEMPTS

POOL = 400
"""Schedules that the model judges for each that is measured."""

LEARN_EVERY = 4
"""Measurements between two lessons."""

CURIOUS = 0.1
"""Part of the trials that stays random."""

FIRST = 8
"""Random schedules before the first lesson, when there are no records to start from."""


class Learned:
    """Tries what a cost model ranks first.

    Args:
        space: Where to look.
        seed: Seed of the choice.
        records: Records of other shapes to start from: transfer. None to start from nothing.
    """

    def __init__(self, space: Space, seed: int = 0, records: Iterable[Record] = ()) -> None:
        self._space, self._rng = space, random.Random(seed)  # noqa: S311 # no secret is made here
        others = [record for record in records if record.workload != space.workload.key]
        self._model = CostModel(space.target, space.threads, others)
        self._transfers = self._model.knows
        self._speeds: dict[Schedule, float] = {}

    def ask(self) -> Schedule | None:
        """Returns the most promising schedule of a pool that was not tried."""
        if not self._speeds and not self._transfers:
            return self._space.default()
        ready = self._transfers or len(self._speeds) >= FIRST
        if not ready or (self._speeds and self._rng.random() < CURIOUS):
            draws = (self._space.sample(self._rng) for _ in range(ATTEMPTS))
            return next((schedule for schedule in draws if schedule not in self._speeds), None)
        pool = self._pool()
        if not pool:
            return None
        return pool[int(self._model.predict(self._space.workload, pool).argmax())]

    def tell(self, schedule: Schedule, speed: float) -> None:
        """Adds a measurement, and learns when there are enough new ones."""
        self._speeds[schedule] = speed
        enough = 2 if self._transfers else FIRST
        if len(self._speeds) >= enough and len(self._speeds) % LEARN_EVERY == 0:
            self._model.update(self._space.workload, list(self._speeds.items()))

    def _pool(self) -> list[Schedule]:
        """Random schedules, and neighbours of the best ones so far."""
        best = sorted(self._speeds, key=lambda schedule: -self._speeds[schedule])[:4]
        near = [self._space.neighbour(s, self._rng) for s in best for _ in range(POOL // 16)]
        drawn = [self._space.sample(self._rng) for _ in range(POOL - len(near))]
        candidates = dict.fromkeys([self._space.default(), *near, *drawn])
        return [schedule for schedule in candidates if schedule not in self._speeds]
