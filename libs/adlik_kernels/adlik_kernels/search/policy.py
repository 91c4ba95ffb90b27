"""Search by reinforcement: a policy that edits a schedule, rewarded by the speed it gains.

An episode is a walk of a few edits. The policy chooses among the schedules that one edit reaches,
by a linear score of what is seen of each: its features on this machine and what the cost model
thinks of it. After each measurement its weights move along the gradient of REINFORCE (Williams,
1992) with the mean reward as baseline. The weights speak of machine-relative features and not of
one shape, so a policy that was trained on other shapes starts the next one.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from adlik_kernels.schedules.db import Record
from adlik_kernels.schedules.schedule import Schedule
from adlik_kernels.schedules.space import Space
from adlik_kernels.search.cost import CostModel
from adlik_kernels.search.features import FEATURES, features
from adlik_kernels.search.plain import ATTEMPTS

EDITS = 48
"""Neighbours that the policy chooses among."""

WALK = 6
"""Edits of one episode; the next begins at the best schedule known."""

RATE = 0.3
"""How far one reward moves the weights."""

TRUST = 12.0
"""Weight of the cost model's opinion before anything is learnt."""

LEARN_EVERY = 4
"""Measurements between two lessons of the cost model."""


class Policy:
    """Tries edits that its policy draws.

    Args:
        space: Where to look.
        seed: Seed of the choice.
        records: Records of other shapes for the cost model that shapes the policy's view.
        weights: Weights of a policy trained on other shapes; None for an untrained one.
    """

    def __init__(
        self,
        space: Space,
        seed: int = 0,
        records: Iterable[Record] = (),
        weights: NDArray[np.float64] | None = None,
    ) -> None:
        self._space, self._rng = space, random.Random(seed)  # noqa: S311 # no secret is made here
        self._numpy = np.random.default_rng(seed)
        others = [record for record in records if record.workload != space.workload.key]
        self._model = CostModel(space.target, space.threads, others)
        self.weights = np.zeros(len(FEATURES) + 1) if weights is None else weights.copy()
        if weights is None:
            self.weights[-1] = TRUST
        self._speeds: dict[Schedule, float] = {}
        self._here: Schedule | None = None
        self._left = WALK
        self._mean = 0.0
        self._drawn: tuple[Schedule, NDArray[np.float64]] | None = None

    def ask(self) -> Schedule | None:
        """Returns the schedule that the policy's next edit leads to."""
        if self._here is None:
            return self._space.default()
        if self._left == 0:
            self._here = max(self._speeds, key=lambda schedule: self._speeds[schedule])
            self._left = WALK
        self._left -= 1
        edits = [self._space.neighbour(self._here, self._rng) for _ in range(EDITS)]
        if not self._model.knows:
            edits += [self._space.sample(self._rng) for _ in range(EDITS // 4)]
        options = [s for s in dict.fromkeys(edits) if s not in self._speeds]
        if not options:  # everything near is known
            draws = (self._space.sample(self._rng) for _ in range(ATTEMPTS))
            return next((schedule for schedule in draws if schedule not in self._speeds), None)
        seen = self._seen(options)
        chances = _softmax(seen @ self.weights)
        chosen = int(self._numpy.choice(len(options), p=chances))
        self._drawn = (options[chosen], seen[chosen] - chances @ seen)
        return options[chosen]

    def tell(self, schedule: Schedule, speed: float) -> None:
        """Rewards the edit that led there and moves the policy."""
        before = self._speeds.get(self._here, 0.0) if self._here else 0.0
        self._speeds[schedule] = speed
        if self._drawn is not None and self._drawn[0] == schedule:
            reward = speed - before
            self.weights += RATE * (reward - self._mean) * self._drawn[1]
            self._mean = 0.9 * self._mean + 0.1 * reward
        if speed >= before:
            self._here = schedule
        if len(self._speeds) >= 4 and len(self._speeds) % LEARN_EVERY == 0:
            self._model.update(self._space.workload, list(self._speeds.items()))

    def _seen(self, options: list[Schedule]) -> NDArray[np.float64]:
        """[options, features + 1]: standardized features, then the cost model's opinion."""
        space = self._space
        rows = [
            features(space.workload, s, space.target, space.threads, self._model.limits)
            for s in options
        ]
        table = np.array(rows, np.float64)
        spread = table.std(axis=0)
        table = (table - table.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        opinion = self._model.predict(space.workload, options)
        return np.concatenate([table, opinion[:, None]], axis=1)


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(scores - scores.max())
    result: NDArray[np.float64] = powers / powers.sum()
    return result
