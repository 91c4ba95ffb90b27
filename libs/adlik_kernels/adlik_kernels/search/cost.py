"""A learned cost model: gradient-boosted trees that judge a schedule before it is measured.

It learns speed relative to the best known schedule of the same workload, so records of all shapes
teach it at once and what it learnt carries over to a shape it has never seen. Friedman, "Greedy
function approximation: a gradient boosting machine" (2001); the idea of ranking schedules with it
is from Chen et al., "Learning to optimize tensor programs" (2018).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from adlik_kernels.machine.roofline import Roofline, roofline
from adlik_kernels.machine.target import Target
from adlik_kernels.schedules.db import Record, workload_of
from adlik_kernels.schedules.schedule import Schedule
from adlik_kernels.search.features import FEATURES, features
from adlik_kernels.workload import Workload

CORRECTIONS = 30
"""Trees that new measurements add to what was learnt from other shapes."""

OWN_WEIGHT = 3.0
"""How much a measurement counts against the trees' caution, which is worth one sample a leaf."""

FOREIGN = 0.05
"""How much a record of another machine counts."""

LEAST = 8
"""Records from which anything can be learnt."""


@dataclass(frozen=True, slots=True)
class _Tree:
    """A tree of one depth: at level l, node n asks whether a feature's bin is above a threshold."""

    splits: tuple[tuple[NDArray[np.int64], NDArray[np.int64]], ...]
    leaves: NDArray[np.float64]

    def predict(self, binned: NDArray[np.int64]) -> NDArray[np.float64]:
        node = np.zeros(len(binned), np.int64)
        for feature, threshold in self.splits:
            above = binned[np.arange(len(binned)), feature[node]] > threshold[node]
            node = 2 * node + above
        return self.leaves[node]


@dataclass(slots=True)
class BoostedTrees:
    """Gradient-boosted regression trees on quantized features.

    Attributes:
        count: Trees.
        depth: Levels of each.
        rate: Part of each tree's answer that is used.
        bins: Values that a feature is reduced to.
    """

    count: int = 60
    depth: int = 4
    rate: float = 0.2
    bins: int = 24
    _edges: list[NDArray[np.float64]] = field(default_factory=list)
    _trees: list[_Tree] = field(default_factory=list)
    _start: float = 0.0

    def fit(
        self,
        x: NDArray[np.float64],
        y: NDArray[np.float64],
        weights: NDArray[np.float64] | None = None,
    ) -> BoostedTrees:
        """Learns y from x.

        Args:
            x: [samples, features].
            y: [samples].
            weights: [samples], how much each counts; all alike if not given.
        """
        weights = np.ones(len(y)) if weights is None else weights
        quantiles = np.linspace(0, 1, self.bins + 1)[1:-1]
        self._edges = [np.unique(np.quantile(column, quantiles)) for column in x.T]
        binned = self._binned(x)
        self._start = float(np.average(y, weights=weights))
        self._trees = []
        answer = np.full(len(y), self._start)
        for _ in range(self.count):
            tree = self._grow(binned, y - answer, weights)
            self._trees.append(tree)
            answer += self.rate * tree.predict(binned)
        return self

    def predict(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns y for x of shape [samples, features]."""
        binned = self._binned(x)
        answer = np.full(len(x), self._start)
        for tree in self._trees:
            answer += self.rate * tree.predict(binned)
        return answer

    def _binned(self, x: NDArray[np.float64]) -> NDArray[np.int64]:
        columns = [np.searchsorted(edges, x[:, i]) for i, edges in enumerate(self._edges)]
        return np.stack(columns, axis=1)

    def _grow(
        self, binned: NDArray[np.int64], rest: NDArray[np.float64], weights: NDArray[np.float64]
    ) -> _Tree:
        node = np.zeros(len(rest), np.int64)
        splits = []
        for level in range(self.depth):
            feature, threshold = self._best_splits(binned, rest, weights, node, 1 << level)
            splits.append((feature, threshold))
            node = 2 * node + (binned[np.arange(len(node)), feature[node]] > threshold[node])
        total = np.bincount(node, weights * rest, 1 << self.depth)
        weight = np.bincount(node, weights, 1 << self.depth)
        return _Tree(tuple(splits), total / (weight + 1.0))

    def _best_splits(
        self,
        binned: NDArray[np.int64],
        rest: NDArray[np.float64],
        weights: NDArray[np.float64],
        node: NDArray[np.int64],
        nodes: int,
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The feature and threshold of each node that explain most of what is left."""
        count = binned.shape[1]
        shape = (nodes, count, self.bins)
        cell = (node[:, None] * count + np.arange(count)) * self.bins + binned
        heavy = np.repeat(weights, count)
        size = nodes * count * self.bins
        total = np.bincount(cell.ravel(), np.repeat(weights * rest, count), size).reshape(shape)
        weight = np.bincount(cell.ravel(), heavy, size).reshape(shape)
        low, low_weight = total.cumsum(axis=2), weight.cumsum(axis=2)
        high, high_weight = low[..., -1:] - low, low_weight[..., -1:] - low_weight
        gain = low**2 / (low_weight + 1.0) + high**2 / (high_weight + 1.0)
        best = gain.reshape(nodes, -1).argmax(axis=1)
        return best // self.bins, best % self.bins


@dataclass(frozen=True, slots=True)
class Judged:
    """The records of one shape, and what a model that never saw them thinks of them.

    Attributes:
        schedules: What was measured.
        table: [schedules, features].
        speeds: [schedules], as parts of the best.
        opinions: [schedules], what they were expected to be.
        weight: How much they count.
    """

    schedules: Sequence[Schedule]
    table: NDArray[np.float64]
    speeds: NDArray[np.float64]
    opinions: NDArray[np.float64]
    weight: float


class CostModel:
    """Says how good schedules are, from records of any shape and from new measurements.

    Args:
        target: The machine that is tuned for.
        threads: Threads that will share the work.
        records: Earlier records of this machine or of others; empty to start from nothing.
        limits: What one thread of the machine can do; measured here if not given.
    """

    def __init__(
        self,
        target: Target,
        threads: int,
        records: Iterable[Record] = (),
        limits: Roofline | None = None,
    ) -> None:
        self.target, self.threads, self.limits = target, threads, limits or roofline(1)
        self._prior = [record for record in records if record.target.endswith(target.level)]
        self._prior_x = self._rows(
            [(workload_of(r.workload), r.schedule, r.threads) for r in self._prior]
        )
        self._prior_y = _relative([_place(r) for r in self._prior], [r.speed for r in self._prior])
        home = [1.0 if record.target == target.key else FOREIGN for record in self._prior]
        self._prior_weights = np.array(home)
        self._prior_trees: BoostedTrees | None = None
        self._own_trees: BoostedTrees | None = None
        if len(self._prior) >= LEAST:
            self._prior_trees = self._learnt(slice(None))

    @property
    def knows(self) -> bool:
        """Whether it has learnt anything yet."""
        return self._prior_trees is not None or self._own_trees is not None

    def update(self, workload: Workload, measured: Sequence[tuple[Schedule, float]]) -> None:
        """Learns again, with measurements of the workload at hand.

        Args:
            workload: What is tuned.
            measured: Schedules and their speeds.
        """
        x = self._rows([(workload, schedule, self.threads) for schedule, _ in measured])
        y = _relative([""] * len(measured), [speed for _, speed in measured])
        weights = np.full(len(measured), OWN_WEIGHT)
        if self._prior_trees is None:
            self._own_trees = BoostedTrees().fit(x, y, weights)
            return
        # What it knew is kept: few new measurements cannot outweigh it, but they can correct it.
        left = y - self._prior_trees.predict(x)
        self._own_trees = BoostedTrees(CORRECTIONS).fit(x, left, weights)

    def predict(self, workload: Workload, schedules: Sequence[Schedule]) -> NDArray[np.float64]:
        """Returns the expected speeds, 1 for the best; all alike if nothing is known."""
        x = self._rows([(workload, schedule, self.threads) for schedule in schedules])
        opinion = np.zeros(len(schedules))
        for trees in (self._prior_trees, self._own_trees):
            if trees is not None:
                opinion += trees.predict(x)
        return opinion

    def judged(self) -> list[Judged]:
        """Returns earlier records by shape, each judged by trees that learnt from half the others.

        Empty where there are too few shapes to leave some out.
        """
        shapes: dict[tuple[str, str, int], list[int]] = {}
        for place, record in enumerate(self._prior):
            shapes.setdefault(_place(record), []).append(place)
        groups = list(shapes.values())
        folds = [[n for places in groups[half::2] for n in places] for half in (0, 1)]
        if min(len(fold) for fold in folds) < LEAST:
            return []
        opinions = np.zeros(len(self._prior))
        for held, rest in (folds, folds[::-1]):
            opinions[held] = self._learnt(rest).predict(self._prior_x[held])
        return [self._judged(n, opinions[n]) for n in groups if len(n) >= LEAST]

    def _judged(self, places: list[int], opinions: NDArray[np.float64]) -> Judged:
        return Judged(
            schedules=[self._prior[n].schedule for n in places],
            table=self._prior_x[places],
            speeds=self._prior_y[places],
            opinions=opinions,
            weight=float(self._prior_weights[places[0]]),
        )

    def _learnt(self, places: list[int] | slice) -> BoostedTrees:
        """Trees that learnt from some of the earlier records."""
        x, y, weights = self._prior_x[places], self._prior_y[places], self._prior_weights[places]
        return BoostedTrees().fit(x, y, weights)

    def _rows(self, cases: Sequence[tuple[Workload, Schedule, int]]) -> NDArray[np.float64]:
        rows = [features(w, s, self.target, threads, self.limits) for w, s, threads in cases]
        return np.array(rows, np.float64).reshape(len(rows), len(FEATURES))


def _place(record: Record) -> tuple[str, str, int]:
    """Records of one place can be compared: their default schedule is the same."""
    return record.workload, record.target, record.threads


def _relative(places: Sequence[Hashable], speeds: Sequence[float]) -> NDArray[np.float64]:
    """Returns speeds as parts of the best speed of their place; 0 where all have failed."""
    best: dict[Hashable, float] = {}
    for place, speed in zip(places, speeds, strict=True):
        best[place] = max(best.get(place, 0.0), speed)
    parts = [speed / (best[place] or 1.0) for place, speed in zip(places, speeds, strict=True)]
    return np.array(parts, np.float64)
