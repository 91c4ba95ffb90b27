"""Simulated annealing: walk to neighbours, uphill always, downhill less and less often.

Kirkpatrick, Gelatt and Vecchi, "Optimization by Simulated Annealing" (1983).
"""

from __future__ import annotations

import math
import random

from adlik_kernels.schedules.schedule import Schedule
from adlik_kernels.schedules.space import Space
from adlik_kernels.search.plain import ATTEMPTS

HOT, COLD, COOLING = 0.2, 0.01, 0.93
"""First and last temperature, in relative speed, and what each trial leaves of it."""


class Annealing:
    """Tries a neighbour of where it stands.

    Args:
        space: Where to look.
        seed: Seed of the choice.
    """

    def __init__(self, space: Space, seed: int = 0) -> None:
        self._space, self._rng = space, random.Random(seed)  # noqa: S311 # no secret is made here
        self._seen: set[Schedule] = set()
        self._here: tuple[Schedule, float] | None = None
        self._heat = HOT

    def ask(self) -> Schedule | None:
        """Returns the default, then a neighbour that was not tried; or any, if all were."""
        if self._here is None:
            return self._space.default()
        for _ in range(ATTEMPTS):
            schedule = self._space.neighbour(self._here[0], self._rng)
            if schedule not in self._seen:
                return schedule
        draws = (self._space.sample(self._rng) for _ in range(ATTEMPTS))
        return next((schedule for schedule in draws if schedule not in self._seen), None)

    def tell(self, schedule: Schedule, speed: float) -> None:
        """Walks there if it is faster, or by chance."""
        self._seen.add(schedule)
        gain = speed - (self._here[1] if self._here else 0.0)
        if gain >= 0 or self._rng.random() < math.exp(gain / self._heat):
            self._here = (schedule, speed)
        self._heat = max(self._heat * COOLING, COLD)
