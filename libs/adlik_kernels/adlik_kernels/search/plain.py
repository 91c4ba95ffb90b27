"""The two agents that learn nothing: random choice, and one schedule after the other."""

from __future__ import annotations

import random

from adlik_kernels.schedules.schedule import Schedule
from adlik_kernels.schedules.space import Space

ATTEMPTS = 200
"""Draws after which a space counts as exhausted."""


class Random:
    """Tries schedules at random, the default first.

    Args:
        space: Where to look.
        seed: Seed of the choice.
    """

    def __init__(self, space: Space, seed: int = 0) -> None:
        self._space, self._rng = space, random.Random(seed)  # noqa: S311 # no secret is made here
        self._seen: set[Schedule] = set()

    def ask(self) -> Schedule | None:
        """Returns a schedule that was not asked for before."""
        if not self._seen:
            return self._took(self._space.default())
        draws = (self._space.sample(self._rng) for _ in range(ATTEMPTS))
        found = next((schedule for schedule in draws if schedule not in self._seen), None)
        return None if found is None else self._took(found)

    def tell(self, schedule: Schedule, speed: float) -> None:
        """Notes that a schedule was tried; how fast it was does not matter."""
        del speed
        self._seen.add(schedule)

    def _took(self, schedule: Schedule) -> Schedule:
        self._seen.add(schedule)
        return schedule


class Grid:
    """Tries the schedules of a space in order, evenly spread if there are more than trials.

    Args:
        space: Where to look.
        trials: Trials that there will be.
    """

    def __init__(self, space: Space, trials: int) -> None:
        everything = list(space)
        step = max(len(everything) // max(trials, 1), 1)
        self._left = everything[::step][::-1]

    def ask(self) -> Schedule | None:
        """Returns the next schedule."""
        return self._left.pop() if self._left else None

    def tell(self, schedule: Schedule, speed: float) -> None:
        """Has nothing to learn."""
