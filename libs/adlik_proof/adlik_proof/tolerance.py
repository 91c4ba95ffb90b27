"""How far a right variant may be off: a small multiple of the measured float noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from adlik_proof.noise import Noise

Array = np.ndarray[Any, np.dtype[Any]]

NOISE_FACTOR = 64.0
"""A right variant sums in another order: its error is a multiple of the noise, seldom over 20."""
_HALF_FACTOR = 8.0
"""Of 16 bits, whose noise is large enough to be measured well."""
_LARGE, _LARGE_FACTOR = 1e-4, 2.0
"""Noise, in units of the spread, from which it is no longer multiplied so much: it is a step of
something that is rounded, and many steps are another model."""
_FLOORS = {8: 1e-12, 4: 3e-5, 2: 4e-3}
"""Error that is always allowed, in units of the output's spread, by bytes of an element."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What an output of one run may differ by.

    Attributes:
        rms: Root mean square of the error, [columns].
        peak: Error of each element, [columns, elements].
        step: The same where something inside that is rounded falls the other way, [columns, 1].
    """

    rms: Array
    peak: Array
    step: Array


def allowed_error(
    wanted: Array, noise: Noise | None, axis: int | None, dtype: np.dtype[Any]
) -> Allowed:
    """Returns what an output may differ by.

    Args:
        wanted: The reference's, float64 [columns, elements].
        noise: Its measured noise; None: only rounding of its own size.
        axis: The axis of its columns; None: it is one.
        dtype: Of the output.
    """
    factor = _HALF_FACTOR if dtype.itemsize == 2 else NOISE_FACTOR
    rms, peak, spread, step = _figures(noise, axis, len(wanted))
    floor = _FLOORS[dtype.itemsize] * spread
    size = np.abs(wanted)
    own = np.finfo(dtype).eps / 8
    rms = _multiple(np.maximum(rms, own * np.sqrt(np.mean(size**2, axis=1))), spread, factor)
    peak = np.maximum(_multiple(peak, spread, factor)[:, None], factor * own * size)
    return Allowed(
        rms + floor,
        np.maximum(peak + floor[:, None], np.finfo(dtype).tiny),
        2 * step[:, None] + floor[:, None],
    )


def _multiple(noise: Array, spread: Array, factor: float) -> Array:
    """Returns a multiple of the noise, a smaller one where it is a large share of the spread."""
    bound = np.maximum(_LARGE_FACTOR * noise, factor * _LARGE * spread)
    return np.asarray(np.where(spread > 0, np.minimum(factor * noise, bound), factor * noise))


def _figures(
    noise: Noise | None, axis: int | None, columns: int
) -> tuple[Array, Array, Array, Array]:
    if noise is None:
        nothing = np.zeros(columns)
        return nothing, nothing, nothing, nothing
    found = (noise.rms, noise.peak, noise.spread, noise.step)
    if axis is None and len(noise.rms) > 1:  # the noise was measured on other columns
        rms, peak, spread, step = (np.array([part.max()]) for part in found)
        return rms, peak, spread, step
    return found
