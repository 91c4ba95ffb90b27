"""How near the outputs of a lower precision are: each output by what it is."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from adlik_proof import detections
from adlik_proof.noise import by_column, common_axis

Array = np.ndarray[Any, np.dtype[Any]]

SCORES, DETECTIONS, NUMBERS, EXACT = "class scores", "detections", "numbers", "exact"
MIN_CLASSES = 5
"""Numbers [N, C] of fewer columns that are no probabilities are taken for a regression."""
SURE = 0.5
"""Probability of its best class from which the reference is sure."""
MIN_SURE = 8
_RESAMPLES, _SEED = 400, 7
_DEAD_SHARE, _MIN_COLUMN, _MIN_RUN = 0.25, 16, 4
_CONSTANT, _CONSTANT_SHARE, _NOTHING = 1e-6, 0.05, 1e-30


@dataclass(slots=True)
class OutputFigures:
    """How near one output is, over all runs that were judged.

    Attributes:
        name: The output.
        kind: What it is: "class scores", "detections", "numbers" or "exact".
        elements: Numbers compared.
        r2: Share of the output's variance over samples and elements that is kept; of the worst kind
            of column (boxes, scores); 1 where nothing differs.
        column_r2: The same of the worst single column; None where columns are too short to say.
        run_share: Of the worst single run: R² against the spread over all runs, or the share of
            whole numbers and texts that is equal; None where runs are too short to say.
        cosine: Mean cosine over runs.
        max_error: Largest difference of an element.
        max_spreads: The same in units of the output's spread (of its kind of column).
        worst: Where that is: sample, element, found and wanted.
        expected_accuracy: Σ p of the reference for the variant's class over Σ p of its own.
        interval: 5 % to 95 % of it, by resampling.
        sure_agreement: Share of rows with the reference's class, of those where it is sure.
        sure: How many those are.
        agreement: Share of all rows with the reference's class.
        objects: Objects that the reference finds.
        objects_kept: F1 of the variant's objects against those.
        exact_share: Share of whole numbers and texts that are equal.
    """

    name: str
    kind: str
    elements: int = 0
    r2: float = 1.0
    column_r2: float | None = None
    run_share: float | None = None
    cosine: float = 1.0
    max_error: float = 0.0
    max_spreads: float = 0.0
    worst: str = ""
    expected_accuracy: float | None = None
    interval: tuple[float, float] = (0.0, 0.0)
    sure_agreement: float | None = None
    sure: int = 0
    agreement: float | None = None
    objects: int | None = None
    objects_kept: float | None = None
    exact_share: float | None = None

    @property
    def snr_db(self) -> float:
        """Signal-to-noise ratio of the worst kind of column, decibels."""
        return -10 * math.log10(max(1 - self.r2, 1e-12)) if self.r2 < 1 else 120.0


@dataclass(slots=True)
class Pair:
    """Outputs of the reference and of a variant for the same inputs.

    Attributes:
        title: What the run is called.
        expected: The reference's.
        found: The variant's.
        label: The right class where it is known.
        scores: What outputs of indices were chosen among, by output.
    """

    title: str
    expected: Mapping[str, Array]
    found: Mapping[str, Array]
    label: int | None = None
    scores: Mapping[str, Array] = field(default_factory=dict)


@dataclass(slots=True)
class Accuracy:
    """Labelled rows that are answered right."""

    rows: int = 0
    right: int = 0
    reference_right: int = 0


@dataclass(slots=True)
class Summary:
    """Figures of all outputs, and labelled accuracy."""

    outputs: list[OutputFigures] = field(default_factory=list)
    accuracy: Accuracy = field(default_factory=Accuracy)


def summarize(pairs: Sequence[Pair], axes: Mapping[str, int], *, is_real: bool) -> Summary:
    """Returns how near a variant's outputs are.

    Args:
        pairs: What both answered; the forms of the outputs are the same.
        axes: Axis along which the scores of an output of indices were chosen.
        is_real: The inputs are real samples, so that classes and objects mean something.
    """
    if not pairs:
        return Summary()
    layout = detections.layout_of(pairs[0].expected) if is_real else None
    found = Summary()
    for name, array in pairs[0].expected.items():
        if array.dtype.kind != "f":
            found.outputs.append(_exact(name, pairs, axes.get(name)))
            continue
        figures = _numbers(name, pairs)
        if layout is not None and name in (layout.boxes, layout.scores):
            figures.kind = DETECTIONS
        elif is_real and looks_like_scores([pair.expected[name] for pair in pairs]):
            figures.kind = SCORES
            _classes(figures, pairs)
        found.outputs.append(figures)
    if layout is not None:
        _detections(found.outputs, layout, pairs)
    _accuracy(found, pairs)
    return found


def looks_like_scores(outputs: Sequence[Array]) -> bool:
    """Whether outputs are scores of classes: probabilities, or [N, C] of five columns or more."""
    if any(array.ndim != 2 or array.shape[1] < 2 for array in outputs):
        return False
    return are_probabilities(outputs) or outputs[0].shape[1] >= MIN_CLASSES


def are_probabilities(outputs: Sequence[Array]) -> bool:
    """Whether every row is of numbers from 0 to 1 that sum to 1."""
    return all(
        array.size == 0 or (array.min() >= -1e-6 and np.allclose(array.sum(axis=1), 1.0, atol=1e-2))
        for array in outputs
    )


def probabilities(scores: Array, *, normalized: bool) -> Array:
    """Returns the probability of each class, float64 [N, C]."""
    values = scores.astype(np.float64)
    if normalized:
        return values
    values = values - values.max(axis=1, keepdims=True)
    exponents = np.exp(values)
    return np.asarray(exponents / exponents.sum(axis=1, keepdims=True))


def _numbers(name: str, pairs: Sequence[Pair]) -> OutputFigures:
    wanted = [pair.expected[name] for pair in pairs]
    axis = common_axis(wanted)
    left = np.concatenate([by_column(a, axis) for a in wanted], axis=1)
    right = np.concatenate([by_column(pair.found[name], axis) for pair in pairs], axis=1)
    both = np.isfinite(left) & np.isfinite(right)
    left = np.where(both, left, 0.0)
    error = np.where(both, right, 0.0) - left
    figures = OutputFigures(name, NUMBERS, elements=int(both.sum()))
    if not figures.elements:
        return figures
    spreads = _kept_variance(figures, left, error)
    figures.max_error = float(np.abs(error).max())
    relative = np.abs(error) / spreads[:, None]
    ends = np.cumsum([by_column(a, axis).shape[1] for a in wanted])
    runs = [part for part in np.split(relative, ends[:-1], axis=1) if part.size >= _MIN_RUN]
    if runs:
        figures.run_share = float(min(1 - np.mean(part**2) for part in runs))
    figures.max_spreads = float(relative.max())
    column, at = (int(i) for i in np.unravel_index(int(relative.argmax()), relative.shape))
    where = pairs[int(np.searchsorted(ends, at, side="right"))].title
    if axis is not None:
        where += f", column {column}"
    figures.worst = f"{where}: {right[column, at]:.6g} in place of {left[column, at]:.6g}"
    figures.cosine = float(np.mean([_cosine(p.expected[name], p.found[name]) for p in pairs]))
    return figures


def _kept_variance(figures: OutputFigures, left: Array, error: Array) -> Array:
    """Fills in R² of the worst kind of column and column; returns the spreads, [columns]."""
    is_long = left.shape[1] >= _MIN_COLUMN
    centred = left - (left.mean(axis=1, keepdims=True) if is_long else left.mean())
    squares, errors = (centred**2).sum(axis=1), (error**2).sum(axis=1)
    spreads = np.zeros(len(left))
    figures.r2 = 1.0
    for kind in _kinds(left):
        elements = left[kind].size
        spread = math.sqrt(float(squares[kind].sum()) / elements)
        size = float(np.abs(left[kind]).max())
        if spread <= _CONSTANT * size:  # what does not move is held to its size
            spread = max(_CONSTANT_SHARE * size, _NOTHING)
        spreads[kind] = spread
        figures.r2 = min(figures.r2, 1 - float(errors[kind].sum()) / (spread**2 * elements))
        alive = kind & (squares > _DEAD_SHARE**2 * spread**2 * left.shape[1])
        if is_long and len(left) > 1 and alive.any():
            worst = float((1 - errors[alive] / squares[alive]).min())
            figures.column_r2 = min(1.0 if figures.column_r2 is None else figures.column_r2, worst)
    return spreads


def _kinds(columns: Array) -> list[Array]:
    """Returns masks of the columns of one kind: those within 0..1, and the others."""
    if len(columns) == 1:
        return [np.ones(1, np.bool_)]
    unit = (columns.min(axis=1) >= -1e-3) & (columns.max(axis=1) <= 1.001)
    return [mask for mask in (unit, ~unit) if mask.any()]


def _cosine(left: Array, right: Array) -> float:
    a, b = left.astype(np.float64).ravel(), right.astype(np.float64).ravel()
    usable = np.isfinite(a) & np.isfinite(b)
    a, b = a[usable], b[usable]
    largest = max(float(np.abs(a).max(initial=0.0)), float(np.abs(b).max(initial=0.0)))
    if largest == 0.0:
        return 1.0
    # Squares of very small or large numbers would leave the range of float64.
    a, b = a / largest, b / largest
    norms = math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))
    return max(-1.0, min(1.0, float(a @ b) / norms)) if norms else 0.0


def _classes(figures: OutputFigures, pairs: Sequence[Pair]) -> None:
    name = figures.name
    normalized = are_probabilities([pair.expected[name] for pair in pairs])
    scores = np.concatenate([pair.expected[name] for pair in pairs])
    found = np.concatenate([pair.found[name] for pair in pairs])
    answered = np.isfinite(scores).all(axis=1)
    if not answered.any():
        return
    own = probabilities(scores[answered], normalized=normalized)
    rows = np.arange(len(own))
    best, chosen = own.argmax(axis=1), np.nan_to_num(found[answered], nan=-np.inf).argmax(axis=1)
    kept, total = own[rows, chosen], own[rows, best]
    figures.expected_accuracy = float(kept.sum() / total.sum())
    figures.interval = _interval(kept, total)
    figures.agreement = float((best == chosen).mean())
    sure = total >= SURE
    figures.sure = int(sure.sum())
    if figures.sure >= MIN_SURE:
        figures.sure_agreement = float((best == chosen)[sure].mean())


def _interval(kept: Array, total: Array) -> tuple[float, float]:
    random = np.random.default_rng(_SEED)
    picks = random.integers(0, len(kept), (_RESAMPLES, len(kept)))
    shares = kept[picks].sum(axis=1) / total[picks].sum(axis=1)
    low, high = np.quantile(shares, [0.05, 0.95])
    return float(low), float(high)


def _detections(
    outputs: list[OutputFigures], layout: detections.Layout, pairs: Sequence[Pair]
) -> None:
    wanted = found = same = 0
    for pair in pairs:
        left = detections.objects(pair.expected, layout)
        right = detections.objects(pair.found, layout)
        for one, other in zip(left, right, strict=True):
            wanted, found = wanted + len(one.boxes), found + len(other.boxes)
            same += detections.matched(one, other)
    for figures in outputs:
        if figures.kind == DETECTIONS:
            figures.objects = wanted
            figures.objects_kept = 2 * same / (wanted + found) if wanted + found else 1.0


def _exact(name: str, pairs: Sequence[Pair], axis: int | None) -> OutputFigures:
    count = equal = 0
    worst, worst_run = "", 1.0
    for pair in pairs:
        left, right = pair.expected[name], pair.found[name]
        same = np.asarray(left == right)
        count, equal = count + same.size, equal + int(same.sum())
        if same.size >= _MIN_RUN:
            worst_run = min(worst_run, float(same.mean()))
        if not worst and not same.all():
            at = np.unravel_index(int(np.argmin(same)), same.shape)
            worst = (
                f"{pair.title}, element {[int(i) for i in at]}: {right[at]} in place of {left[at]}"
            )
    figures = OutputFigures(
        name,
        EXACT,
        elements=count,
        worst=worst,
        exact_share=equal / count if count else 1.0,
        run_share=worst_run,
    )
    if axis is not None and all(name in pair.scores for pair in pairs):
        _choices(figures, pairs, axis)
    return figures


def _choices(figures: OutputFigures, pairs: Sequence[Pair], axis: int) -> None:
    """Judges indices by the probability of what they chose."""
    kept, total = [], []
    for pair in pairs:
        scores = np.moveaxis(pair.scores[figures.name], axis, -1)
        shape = (*scores.shape[:-1], -1)
        places = [
            np.moveaxis(np.expand_dims(a, axis) if a.ndim < scores.ndim else a, axis, -1).reshape(
                shape
            )
            for a in (pair.expected[figures.name], pair.found[figures.name])
        ]
        if any(a.size and (a.min() < 0 or a.max() >= scores.shape[-1]) for a in places):
            return
        flat = scores.reshape(-1, scores.shape[-1])
        own = probabilities(flat, normalized=are_probabilities([flat])).reshape(scores.shape)
        total.append(np.take_along_axis(own, places[0].astype(np.int64), -1).sum(axis=-1).ravel())
        kept.append(np.take_along_axis(own, places[1].astype(np.int64), -1).sum(axis=-1).ravel())
    all_kept, all_total = np.concatenate(kept), np.concatenate(total)
    if all_total.size and all_total.sum() > 0:
        figures.expected_accuracy = float(all_kept.sum() / all_total.sum())
        figures.interval = _interval(all_kept, all_total)


def _accuracy(found: Summary, pairs: Sequence[Pair]) -> None:
    """Counts labelled rows by the first output [N, C] of floats."""
    name = next(
        (
            n
            for n, a in pairs[0].expected.items()
            if a.dtype.kind == "f" and a.ndim == 2 and a.shape[1] > 1
        ),
        None,
    )
    if name is None:
        return
    for pair in pairs:
        if pair.label is None:
            continue
        left, right = pair.expected[name], pair.found[name]
        found.accuracy.rows += len(left)
        found.accuracy.right += int((right.argmax(axis=1) == pair.label).sum())
        found.accuracy.reference_right += int((left.argmax(axis=1) == pair.label).sum())
