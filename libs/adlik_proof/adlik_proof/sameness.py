"""Whether an output is the reference's own, as near as float noise allows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from adlik_proof.noise import Noise, by_column
from adlik_proof.tolerance import NOISE_FACTOR, allowed_error

Array = np.ndarray[Any, np.dtype[Any]]

MAX_LEVEL_FLIPS = 1e-4
"""Share of levels in an output that may be the next one: a sum fell just between two."""
MAX_FLIPS = 0.005
"""Share of an output's elements that may move by a step where a model rounds or chooses."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Where an output is not what it must be.

    Attributes:
        output: Its name.
        text: What is wrong, in words.
        excess: How many times what is allowed; infinite where nothing is.
    """

    output: str
    text: str
    excess: float = float("inf")


@dataclass(frozen=True, slots=True)
class Leeway:
    """What an output may differ by without being wrong.

    Attributes:
        noise: Its measured noise; None: of an output without floats.
        unsure: Elements that the reference itself changes when nothing that matters changes.
        scores: What an index was chosen among: the index may be another of the same score.
        scores_noise: The measured noise of the scores.
        axis: Axis of the scores along which was chosen.
        is_level: Whole numbers that floats were rounded to: few may be the next one.
    """

    noise: Noise | None = None
    unsure: Array | None = None
    scores: Array | None = None
    scores_noise: float = 0.0
    axis: int = 0
    is_level: bool = False


def form_fault(expected: Mapping[str, Array], found: Mapping[str, Array]) -> Fault | None:
    """Returns how outputs differ in name, shape or datatype."""
    if set(expected) != set(found):
        return Fault("", f"the outputs are {sorted(found)} in place of {sorted(expected)}")
    for name, array in expected.items():
        other = found[name]
        if other.shape != array.shape:
            text = f"has shape {list(other.shape)} in place of {list(array.shape)}"
            return Fault(name, text)
        if other.dtype != array.dtype and not _is_text(other) and not _is_text(array):
            return Fault(name, f"has datatype {other.dtype} in place of {array.dtype}")
    return None


def difference(
    name: str, expected: Array, found: Array, leeway: Leeway
) -> tuple[Fault | None, float, bool]:
    """Compares one output of one run, whose shape and datatype are right.

    Returns:
        The fault, None where there is none; the largest share of what is allowed that was used;
        and whether an index fell another way between equal scores.
    """
    if not expected.size:
        return None, 0.0, False
    if expected.dtype.kind == "f":
        fault, used = _float_fault(name, expected, found, leeway)
        return fault, used, False
    return _exact_fault(name, expected, found, leeway)


def _exact_fault(
    name: str, expected: Array, found: Array, leeway: Leeway
) -> tuple[Fault | None, float, bool]:
    if _is_text(expected):
        differs = np.array(
            [_text(a) != _text(b) for a, b in zip(expected.flat, found.flat, strict=True)]
        )
        differs = differs.reshape(expected.shape)
    else:
        differs = expected != found
    if leeway.unsure is not None:
        differs = differs & ~leeway.unsure
    if not differs.any():
        return None, 0.0, False
    tied = _ties(expected, found, leeway)
    if tied is not None:
        differs = differs & ~tied
        if not differs.any():
            return None, 0.0, True
    wrong = int(differs.sum())
    if leeway.is_level and wrong <= MAX_LEVEL_FLIPS * expected.size:
        steps = np.abs(found[differs].astype(np.int64) - expected[differs].astype(np.int64))
        if steps.max() <= 1:
            return None, 1.0, False
    at = np.unravel_index(int(np.argmax(differs)), expected.shape)
    text = (
        f"{_place(at)} is {_shown(found[at])} in place of {_shown(expected[at])} "
        f"({wrong} of {expected.size} differ)"
    )
    return Fault(name, text), float("inf"), False


def _ties(expected: Array, found: Array, leeway: Leeway) -> Array | None:
    """Returns where an index is another one of the same score, as near as noise can tell.

    Where the scores bear no noise (they were rounded, say) the standard says which index comes
    first, so that nothing is left to chance.
    """
    scores, axis = leeway.scores, leeway.axis
    if scores is None or leeway.scores_noise <= 0:
        return None
    shape = expected.shape
    if scores.ndim == expected.ndim + 1:  # the axis along which was chosen is gone
        expected, found = np.expand_dims(expected, axis), np.expand_dims(found, axis)
    length = scores.shape[axis]
    if not ((found >= 0) & (found < length)).all():
        return None
    wanted = np.take_along_axis(scores, expected.astype(np.int64), axis).astype(np.float64)
    chosen = np.take_along_axis(scores, found.astype(np.int64), axis).astype(np.float64)
    with np.errstate(invalid="ignore"):  # scores may be infinite
        is_tie: Array = np.abs(wanted - chosen) <= NOISE_FACTOR * leeway.scores_noise
    if expected.shape[axis] > 1:  # each place once
        ordered = np.sort(found, axis=axis)
        repeated = (np.diff(ordered, axis=axis) == 0).any(axis=axis, keepdims=True)
        is_tie = is_tie & ~repeated
    return is_tie.reshape(shape)


def _float_fault(
    name: str, expected: Array, found: Array, leeway: Leeway
) -> tuple[Fault | None, float]:
    judged = np.ones(expected.shape, np.bool_) if leeway.unsure is None else ~leeway.unsure
    finite = np.isfinite(expected)
    alike = np.where(
        finite, np.isfinite(found), (np.isnan(expected) & np.isnan(found)) | (expected == found)
    )
    if fault := _nonfinite_fault(name, expected, found, judged & ~alike):
        return fault, float("inf")
    both = judged & finite
    axis = leeway.noise.axis if leeway.noise and leeway.noise.fits(expected.shape) else None
    wanted, got = (
        by_column(np.where(both, expected, 0), axis),
        by_column(np.where(both, found, 0), axis),
    )
    error = np.abs(got - wanted)
    allowed = allowed_error(wanted, leeway.noise, axis, expected.dtype)
    flips = (error > allowed.peak) & (error <= allowed.step)
    if flips.any() and flips.sum() <= max(1, MAX_FLIPS * expected.size):
        error = np.where(flips, 0.0, error)  # something that is rounded fell the other way
    rms = np.sqrt(np.mean(error**2, axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = np.where(error > 0, error / allowed.peak, 0.0)
        column_excess = np.where(rms > 0, rms / allowed.rms, 0.0)
    used = float(max(excess.max(initial=0.0), column_excess.max(initial=0.0)))
    if used <= 1.0:
        return None, used
    column = int(np.argmax(np.maximum(excess.max(axis=1, initial=0.0), column_excess)))
    at = _element(expected.shape, axis, column, int(np.argmax(error[column])))
    noise = float(allowed.peak[column, int(np.argmax(error[column]))])
    text = (
        f"{_place(at)} is {_shown(found[at])} in place of {_shown(expected[at])}, "
        f"±{noise:.2g} being its float noise"
    )
    return Fault(name, text, used), used


def _nonfinite_fault(name: str, expected: Array, found: Array, wrong: Array) -> Fault | None:
    if not wrong.any():
        return None
    at = np.unravel_index(int(np.argmax(wrong)), expected.shape)
    text = (
        f"{_place(at)} is {_shown(found[at])} in place of {_shown(expected[at])} "
        f"({int(wrong.sum())} elements are finite in one and not in the other)"
    )
    return Fault(name, text)


def _element(shape: tuple[int, ...], axis: int | None, column: int, at: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(int(i) for i in np.unravel_index(at, shape))
    others = shape[:axis] + shape[axis + 1 :]
    place = [int(i) for i in np.unravel_index(at, others)] if others else []
    return (*place[:axis], column, *place[axis:])


def _place(at: tuple[Any, ...]) -> str:
    return f"element [{', '.join(str(int(i)) for i in at)}]" if at else "the value"


def _shown(value: Any) -> str:
    if isinstance(value, bytes | str):
        return repr(_text(value))
    number = value.item() if hasattr(value, "item") else value
    return f"{number:.6g}" if isinstance(number, float) else str(number)


def _is_text(array: Array) -> bool:
    return array.dtype.kind in "OUS"


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
