"""How far from right an output is: within noise, a little over it, or beyond the limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.proof_cases.case import Array

RIGHT, SLIGHT, WRONG = "right", "slight", "wrong"
FACTOR, RMS_SHARE, PEAK_SHARE = 100.0, 1e-4, 1e-3
"""Beyond the limits: over so many times the noise, and over such a share of the spread."""


@dataclass(slots=True)
class Grade:
    """How right a variant is.

    Attributes:
        grade: "right", "slight" (more than noise, less than counts) or "wrong".
        kinds: Kinds of requests that it answers wrong.
        text: What is wrong.
    """

    grade: str = RIGHT
    kinds: set[str] = field(default_factory=set)
    text: str = ""

    def add(self, grade: str, kind: str, text: str) -> None:
        if grade == WRONG:
            self.kinds.add(kind)
        if (RIGHT, SLIGHT, WRONG).index(grade) > (RIGHT, SLIGHT, WRONG).index(self.grade):
            self.grade, self.text = grade, text


def _columns(arrays: list[Array]) -> Array:
    """Returns all elements by column, float64: the shortest inner axis that all share."""
    first = arrays[0]
    axes = [
        (first.shape[at], at)
        for at in range(1, first.ndim)
        if first.shape[at] > 1 and len({a.shape[at] if at < a.ndim else 0 for a in arrays}) == 1
    ]
    if not axes:
        return np.concatenate([a.astype(np.float64).ravel() for a in arrays])[None]
    at = min(axes)[1]
    tables = [np.moveaxis(a.astype(np.float64), at, 0).reshape(a.shape[at], -1) for a in arrays]
    return np.concatenate(tables, axis=1)


def grade_floats(
    answers: list[Array], others: Sequence[list[Array]], found: list[Array]
) -> tuple[str, str]:
    """Grades one output that claims the model's own precision.

    Args:
        answers: The right ones, one for each question.
        others: Other right ones: what differs between these is noise.
        found: The variant's.
    """
    wanted = _columns(answers)
    finite = np.isfinite(wanted)
    spread = np.array(
        [row[ok].std() if ok.any() else 0.0 for row, ok in zip(wanted, finite, strict=True)]
    )
    size = np.abs(np.where(finite, wanted, 0)).max(axis=1, initial=0.0)
    spread = np.maximum(spread, 1e-7 * size)
    noise = np.zeros_like(wanted)
    for other in others:
        alike = [b if a.shape == b.shape else a for a, b in zip(answers, other, strict=True)]
        noise = np.maximum(noise, _distance(_columns(alike), wanted))
    noise = np.maximum(noise, np.finfo(answers[0].dtype).eps / 4 * size[:, None])
    error = _distance(_columns(found), wanted)
    rms_noise, peak_noise = _sizes(noise)
    rms, peak = _sizes(error)
    is_wrong = ((rms > FACTOR * rms_noise) & (rms > RMS_SHARE * spread)) | (
        (peak > FACTOR * peak_noise) & (peak > PEAK_SHARE * spread)
    )
    at = int(np.argmax(rms / np.maximum(spread, 1e-300)))
    text = (
        f"error {rms[at]:.2g}, peak {peak[at]:.2g}; noise {rms_noise[at]:.2g}, "
        f"peak {peak_noise[at]:.2g}; spread {spread[at]:.2g}"
    )
    if is_wrong.any():
        return WRONG, text
    is_slight = (peak > 10 * peak_noise) & (peak > 3e-5 * spread)
    return (SLIGHT if is_slight.any() else RIGHT), text


def _distance(left: Array, right: Array) -> Array:
    both = np.isfinite(left) & np.isfinite(right)
    return np.asarray(np.abs(np.where(both, left, 0) - np.where(both, right, 0)))


def _sizes(error: Array) -> tuple[Array, Array]:
    count = max(error.shape[1], 1)
    return np.sqrt((error**2).sum(axis=1) / count), error.max(axis=1, initial=0.0)


def grade_coarse(wanted: list[Array], found: list[Array]) -> tuple[str, str]:
    """Grades one output of a lower precision: clearly good, clearly bad, or neither."""
    if wanted[0].dtype.kind != "f":
        total = sum(a.size for a in wanted)
        same = sum(int((a == b).sum()) for a, b in zip(wanted, found, strict=True)) / max(total, 1)
        grade = RIGHT if same >= 0.985 else WRONG if same < 0.9 else SLIGHT
        return grade, f"{same:.1%} equal"
    left, right = _columns(wanted), _columns(found)
    if (np.isfinite(left) & ~np.isfinite(right)).any():
        return WRONG, "not finite"
    left, right = np.nan_to_num(left), np.nan_to_num(right)
    centred = left - left.mean(axis=1, keepdims=True)
    errors, squares = ((right - left) ** 2).sum(axis=1), (centred**2).sum(axis=1)
    alive = squares > 0.1 * squares.max(initial=0.0)
    if not alive.any():
        return (RIGHT if errors.sum() <= 1e-6 * (left**2).sum() else SLIGHT), "constant"
    columns = 1 - errors[alive] / squares[alive]
    whole, worst = 1 - errors.sum() / squares.sum(), columns.min()
    kept = _expected_accuracy(wanted, found)
    text = f"R² {whole:.4f}, worst column {worst:.3f}, expected accuracy {kept:.3f}"
    if whole < 0.85 or worst < 0.3 or kept < 0.96:
        return WRONG, text
    return (RIGHT if whole >= 0.99 and worst >= 0.9 and kept >= 0.99 else SLIGHT), text


def _expected_accuracy(wanted: list[Array], found: list[Array]) -> float:
    if wanted[0].ndim != 2 or wanted[0].shape[1] < 5 or len({a.shape[1] for a in wanted}) > 1:
        return 1.0
    left, right = np.concatenate(wanted).astype(np.float64), np.concatenate(found)
    if not np.allclose(left.sum(axis=1), 1, atol=1e-2):
        left = np.exp(left - left.max(axis=1, keepdims=True))
        left /= left.sum(axis=1, keepdims=True)
    rows = np.arange(len(left))
    return float(left[rows, right.argmax(axis=1)].sum() / left.max(axis=1).sum())
