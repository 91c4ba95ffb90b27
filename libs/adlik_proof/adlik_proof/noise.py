"""The float noise of a model: how far its outputs move when nothing that matters is changed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

MIN_COUNT = 16
"""Elements from which a column's own figures are taken, and not those of all columns."""
MAX_COLUMNS = 4096


def column_axis(shape: Sequence[int]) -> int | None:
    """Returns the axis along which an output holds different quantities, None where it has none.

    Scores [N, classes], boxes [N, boxes, 4 + classes] or [N, 4 + classes, boxes], feature maps
    [N, channels, rows, columns]: the shortest axis behind the first that is longer than one.
    """
    inner = [(size, at) for at, size in enumerate(shape) if at and size > 1]
    if not inner:
        return None
    size, at = min(inner)
    return at if size <= MAX_COLUMNS else None


def common_axis(outputs: Sequence[Array]) -> int | None:
    """Returns the columns' axis of one output in several runs, None where it is not the same."""
    axes = {column_axis(array.shape) for array in outputs}
    axis = axes.pop() if len(axes) == 1 else None
    if axis is None or len({array.shape[axis] for array in outputs}) > 1:
        return None
    return axis


def by_column(array: Array, axis: int | None) -> Array:
    """Returns an array as float64 [columns, elements]."""
    values = array.astype(np.float64)
    if axis is None:
        return values.reshape(1, -1)
    return np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)


@dataclass(frozen=True, slots=True)
class Noise:
    """Noise and spread of one output over a group of runs, per column.

    Attributes:
        axis: The columns' axis; None: the output is one column.
        rms: Root mean square of the noise, [columns].
        peak: Largest noise of an element, [columns].
        spread: Standard deviation of the output itself, [columns].
        step: How far an element moves where something inside that is rounded or chosen flips,
            [columns]; 0 where nothing is.
    """

    axis: int | None
    rms: Array
    peak: Array
    spread: Array
    step: Array

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether an output of this shape has these columns."""
        return self.axis is None or (self.axis < len(shape) and shape[self.axis] == len(self.rms))


def measure_noise(
    expected: Sequence[Array],
    moved: Sequence[Sequence[Array]],
    shaken: Sequence[Array | None] = (),
) -> Noise:
    """Returns the noise of one output over a group of runs.

    Args:
        expected: The output in each run.
        moved: The same output after changes that must not matter; of some runs none.
        shaken: The same after larger ones, of models that round or choose.
    """
    axis = common_axis(expected)
    differences = [
        _difference(by_column(other, axis), by_column(array, axis))
        for array, others in zip(expected, moved, strict=True)
        for other in others
        if other.shape == array.shape
    ]
    columns = 1 if axis is None else expected[0].shape[axis]
    rms, peak = _rms_and_peak(differences, columns)
    steps = [
        _difference(by_column(other, axis), by_column(array, axis))
        for array, other in zip(expected, shaken, strict=False)
        if other is not None and other.shape == array.shape
    ]
    step = _rms_and_peak(steps, columns)[1]
    spread = _spread([by_column(array, axis) for array in expected], columns)
    return Noise(axis, rms, peak, spread, step)


def _difference(left: Array, right: Array) -> Array:
    both = np.isfinite(left) & np.isfinite(right)
    return np.asarray(np.abs(np.where(both, left, 0) - np.where(both, right, 0)))


def _rms_and_peak(differences: Sequence[Array], columns: int) -> tuple[Array, Array]:
    joined = np.concatenate(differences, axis=1) if differences else np.zeros((columns, 0))
    count = max(joined.shape[1], 1)
    rms = np.asarray(np.sqrt((joined**2).sum(axis=1) / count))
    peak = np.asarray(joined.max(axis=1, initial=0.0))
    if joined.shape[1] >= MIN_COUNT:
        return rms, peak
    pooled = math.sqrt(float((rms**2).sum()) / max(columns, 1))
    return np.maximum(rms, pooled), np.maximum(peak, peak.max(initial=0.0))


def _spread(outputs: Sequence[Array], columns: int) -> Array:
    joined = np.concatenate(outputs, axis=1) if outputs else np.zeros((columns, 0))
    finite = np.isfinite(joined)
    count = np.maximum(finite.sum(axis=1), 1)
    values = np.where(finite, joined, 0.0)
    mean = values.sum(axis=1) / count
    centred = np.where(finite, values - mean[:, None], 0.0)
    spread = np.asarray(np.sqrt((centred**2).sum(axis=1) / count))
    if joined.shape[1] < MIN_COUNT and columns > 1:
        spread = np.maximum(spread, float(values.std()))
    return np.asarray(spread)


def moved_inputs(inputs: Mapping[str, Array], seed: int, relative: float = 0.0) -> dict[str, Array]:
    """Returns inputs whose floats are each moved by one unit in the last place, up or down.

    Args:
        inputs: By name.
        seed: The same seed gives the same directions.
        relative: Moved by this share of themselves instead, if that is more.
    """
    random = np.random.default_rng(seed)
    moved = {}
    for name, array in inputs.items():
        if array.dtype.kind != "f":
            moved[name] = array
            continue
        towards = np.where(random.random(array.shape) < 0.5, np.inf, -np.inf)
        found = np.nextafter(array, towards.astype(array.dtype), dtype=array.dtype)
        if relative > np.finfo(array.dtype).eps:
            with np.errstate(over="ignore", invalid="ignore"):
                found = (array * (1 + np.sign(towards) * relative)).astype(array.dtype)
        moved[name] = np.where(np.isfinite(array) & (array != 0), found, array)
    return moved
