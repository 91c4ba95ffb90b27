"""Search by reinforcement: a policy that edits a schedule, rewarded by the speed of where it ends.

An episode is a walk of a few edits from one of the best schedules known; only its end is measured.
At each step the policy sees every schedule that one edit reaches: how its features on this machine
change, in units of what the workload's schedules differ by; which field is edited; and how the cost
model's opinion changes. It draws one by a softmax of a linear score, hot at first and cooler later.

Edits on the way are not measured, so the reward is shaped by a potential, the cost model's opinion
(Ng, Harada and Russell, "Policy invariance under reward transformations", 1999). Without discount,
and with no potential at the end, an edit's return is the measured speed less the opinion of where
it was made: the shaping is the baseline of REINFORCE (Williams, 1992).

Transfer: the weights speak of no shape, so they are first trained on the records of other shapes.
There every speed is known and the policy's gradient is exact; nothing is drawn, so the same records
always give the same weights.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from adlik_kernels.schedules.db import Record
from adlik_kernels.schedules.schedule import CHOICES, Schedule
from adlik_kernels.schedules.space import Space
from adlik_kernels.search.cost import CostModel, Judged
from adlik_kernels.search.features import FEATURES, features
from adlik_kernels.search.plain import ATTEMPTS

KNOBS = ("shape", *CHOICES)
"""What one edit changes."""

SEEN = len(FEATURES) + len(KNOBS) + 1
"""Numbers of an edit: changes of features, its field, the change of the cost model's opinion."""

WALK = 3
"""Edits of one episode at most."""

ELITE = 4
"""Best schedules from which walks begin."""

RATE, ENTROPY = 0.2, 0.01
"""How far one episode moves the weights, and what evenness of the choice is worth."""

TRUST = 8.0
"""Weight of the cost model's opinion before anything is learnt."""

HOT, COLD, COOLING = 1.0, 0.25, 0.94
"""First and last temperature of the choice, and what each trial leaves of it."""

LEARN_EVERY = 4
"""Measurements between two lessons of the cost model."""

LESSONS, LESSON_RATE = 60, 0.5
"""Passes over the records of other shapes, and how far each moves the weights."""


class Policy:
    """Tries the ends of walks that its policy draws.

    Args:
        space: Where to look.
        seed: Seed of the choice.
        records: Records of other shapes for the cost model and the policy; none for no transfer.
        weights: [`SEEN`] weights of a policy that was trained before; None to train one.
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
        self.weights = trained(self._model) if weights is None else weights.copy()
        self._heat = HOT
        self._speeds: dict[Schedule, float] = {}
        self._walk: list[tuple[Schedule, NDArray[np.float64]]] = []
        drawn = random.Random(0)  # noqa: S311 # the same for every seed
        self._units = _units(self._features([space.sample(drawn) for _ in range(ATTEMPTS)]))

    def ask(self) -> Schedule | None:
        """Returns the end of the policy's next walk; the first one begins at the default."""
        if not self._speeds and not self._model.knows:
            return self._space.default()
        for _ in range(ATTEMPTS):
            end = self._wander()
            if end not in self._speeds:
                return end
        draws = (self._space.sample(self._rng) for _ in range(ATTEMPTS))
        return next((schedule for schedule in draws if schedule not in self._speeds), None)

    def tell(self, schedule: Schedule, speed: float) -> None:
        """Rewards the walk that led there and moves the policy."""
        self._speeds[schedule] = speed
        self._heat = max(self._heat * COOLING, COLD)
        if self._walk and self._walk[-1][0] == schedule and self._model.knows:
            self._reward(speed / (max(self._speeds.values()) or 1.0))
        self._walk = []
        if len(self._speeds) >= LEARN_EVERY and len(self._speeds) % LEARN_EVERY == 0:
            self._model.update(self._space.workload, list(self._speeds.items()))

    def _wander(self) -> Schedule:
        """Walks a few edits in thought and remembers how the policy chose them."""
        best = sorted(self._speeds, key=lambda schedule: -self._speeds[schedule])[:ELITE]
        here = self._rng.choice(best) if best else self._space.default()
        self._walk = []
        for _ in range(self._rng.randint(1, WALK)):
            options = [edit for edit in self._space.edits(here) if edit not in self._speeds]
            if not options:
                break
            seen = self._seen(here, options)
            chances = _softmax(seen @ self.weights / self._heat)
            chosen = int(self._numpy.choice(len(options), p=chances))
            surprise = -np.log(chances[chosen]) + chances @ np.log(np.maximum(chances, 1e-12))
            slope = (seen[chosen] - chances @ seen) * (1 + ENTROPY * surprise)
            self._walk.append((here, slope))
            here = options[chosen]
        self._walk.append((here, np.zeros(SEEN)))
        return here

    def _reward(self, speed: float) -> None:
        places = [place for place, _ in self._walk[:-1]]
        if not places:
            return
        opinions = self._model.predict(self._space.workload, places)
        for (_, slope), opinion in zip(self._walk, opinions, strict=False):
            self.weights += RATE * (speed - opinion) * slope

    def _features(self, schedules: Sequence[Schedule]) -> NDArray[np.float64]:
        space = self._space
        limits = self._model.limits
        rows = [features(space.workload, s, space.target, space.threads, limits) for s in schedules]
        return np.array(rows, np.float64)

    def _seen(self, here: Schedule, options: list[Schedule]) -> NDArray[np.float64]:
        """[options, SEEN]: what each edit changes."""
        both = [here, *options]
        opinion = self._model.predict(self._space.workload, both)
        return changes(both, self._features(both) / self._units, opinion)


def changes(
    schedules: Sequence[Schedule], table: NDArray[np.float64], opinions: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Returns [schedules - 1, `SEEN`]: what leads from the first schedule to each of the others.

    Args:
        schedules: Where the edits begin, then where they end.
        table: [schedules, features] in the workload's units.
        opinions: [schedules] of the cost model.
    """
    before = asdict(schedules[0])
    changed = [
        [before["rows"] != after.rows or before["vectors"] != after.vectors]
        + [before[name] != getattr(after, name) for name in CHOICES]
        for after in schedules[1:]
    ]
    parts = (table[1:] - table[0], np.array(changed, np.float64))
    return np.concatenate([*parts, (opinions[1:] - opinions[0])[:, None]], axis=1)


def trained(model: CostModel) -> NDArray[np.float64]:
    """Returns the weights of a policy that was trained on the records of a cost model.

    Args:
        model: What it learnt from; its opinions of its own records come from folds that did not
            hold them.
    """
    weights = np.zeros(SEEN)
    weights[-1] = TRUST
    shapes = model.judged()
    lessons = [_lesson(judged) for judged in shapes]
    counts = np.array([judged.weight for judged in shapes])
    for _ in range(LESSONS):
        slope = np.zeros(SEEN)
        for (seen, speeds), count in zip(lessons, counts, strict=True):
            chances = _softmax(seen @ weights)
            # The exact gradient of the expected speed of where the policy goes.
            slope += count / counts.sum() * ((chances * (speeds - chances @ speeds)) @ seen)
        weights += LESSON_RATE * slope / max(float(np.abs(slope).max()), 1.0)
    return weights


def _lesson(judged: Judged) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Edits from the middling schedule of a shape to all others, and the speeds they lead to."""
    middle = int(np.argsort(judged.speeds)[len(judged.speeds) // 2])
    order = [middle, *(n for n in range(len(judged.speeds)) if n != middle)]
    table = judged.table[order] / _units(judged.table)
    schedules = [judged.schedules[n] for n in order]
    return changes(schedules, table, judged.opinions[order]), judged.speeds[order][1:]


def _units(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """The spread of each feature; no end where it never differs, so that it does not count."""
    spread = table.std(axis=0)
    return np.where(spread > 0, spread, np.inf)


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(scores - scores.max())
    result: NDArray[np.float64] = powers / powers.sum()
    return result
