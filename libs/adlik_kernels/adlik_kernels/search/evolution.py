"""Evolutionary search: the best schedules are crossed and changed a little.

Zheng et al., "Ansor: Generating High-Performance Tensor Programs for Deep Learning" (2020) searches
like this.
"""

from __future__ import annotations

import random
from dataclasses import replace

from adlik_kernels.schedules.schedule import CHOICES, Schedule
from adlik_kernels.schedules.space import Space
from adlik_kernels.search.plain import ATTEMPTS

PARENTS = 8
"""Schedules that have children."""

FIRST = 8
"""Random schedules before the first child."""

FRESH = 0.15
"""Part of the trials that stays random."""


class Evolution:
    """Tries children of the best schedules so far.

    Args:
        space: Where to look.
        seed: Seed of the choice.
    """

    def __init__(self, space: Space, seed: int = 0) -> None:
        self._space, self._rng = space, random.Random(seed)  # noqa: S311 # no secret is made here
        self._speeds: dict[Schedule, float] = {}

    def ask(self) -> Schedule | None:
        """Returns the default, then random schedules, then children."""
        if not self._speeds:
            return self._space.default()
        for _ in range(ATTEMPTS):
            schedule = self._next()
            if schedule not in self._speeds:
                return schedule
        return None

    def tell(self, schedule: Schedule, speed: float) -> None:
        """Makes a schedule a possible parent."""
        self._speeds[schedule] = speed

    def _next(self) -> Schedule:
        if len(self._speeds) < FIRST or self._rng.random() < FRESH:
            return self._space.sample(self._rng)
        ranked = sorted(self._speeds, key=lambda schedule: -self._speeds[schedule])
        mother, father = (self._rng.choice(ranked[:PARENTS]) for _ in range(2))
        child = cross(mother, father, self._rng)
        if not self._space.fits(child) or self._rng.random() < 0.7:
            child = self._space.neighbour(mother, self._rng)
        return child


def cross(mother: Schedule, father: Schedule, rng: random.Random) -> Schedule:
    """Returns a schedule that has every choice from one of two; rows and vectors stay together."""
    taken = {name: getattr(father, name) for name in CHOICES if rng.random() < 0.5}
    child = replace(mother, **taken)
    if rng.random() < 0.5:
        child = replace(child, rows=father.rows, vectors=father.vectors)
    return child
