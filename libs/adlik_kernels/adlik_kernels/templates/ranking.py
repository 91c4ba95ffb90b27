"""The loops of softmax and top k, compiled by numba: see `ranking` for what they compute."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

BLOCK = 64
"""Logits that are passed over at once when none of them is among the best."""

_compiled = numba.njit(
    nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc"}
)


@_compiled  # type: ignore[untyped-decorator] # numba is untyped
def softmax_top_k(logits: Any, k: int) -> Any:
    """Returns probabilities and places, both [rows, k]."""
    rows, classes = logits.shape
    values = np.empty((rows, k), np.float32)
    places = np.zeros((rows, k), np.int64)
    powers = np.empty(classes, np.float32)
    scales = np.empty(classes, np.int32)
    for row in range(rows):
        top_k(logits[row], values[row], places[row])
        largest = values[row, 0]
        total = exp_sum(logits[row], largest, powers, scales)
        for n in range(k):
            values[row, n] = np.exp(values[row, n] - largest) / total
    return values, places


@_compiled  # type: ignore[untyped-decorator] # numba is untyped
def top_k(line: Any, values: Any, places: Any) -> None:
    """Fills the k largest of a line by insertion; blocks below the k-th are passed over."""
    k, count = len(values), 0
    for start in range(0, len(line), BLOCK):
        block = line[start : start + BLOCK]
        if count == k and not block.max() > values[k - 1]:
            continue
        for offset in range(len(block)):
            value = block[offset]
            if count == k and not value > values[k - 1]:
                continue
            place = min(count, k - 1)
            count = min(count + 1, k)
            while place > 0 and values[place - 1] < value:
                values[place], places[place] = values[place - 1], places[place - 1]
                place -= 1
            values[place], places[place] = value, start + offset


@_compiled  # type: ignore[untyped-decorator] # numba is untyped
def exp_sum(line: Any, largest: Any, powers: Any, scales: Any) -> Any:
    """Returns the sum of exp(x - largest): a polynomial that vectorises, after Cephes."""
    for place in range(len(line)):
        x = line[place] - largest
        x = max(x, np.float32(-87))  # NaN stays NaN
        power = np.rint(x * np.float32(1.44269504088896341))
        rest = x - power * np.float32(0.693359375) + power * np.float32(2.12194440e-4)
        series = np.float32(1.9875691500e-4)
        series = series * rest + np.float32(1.3981999507e-3)
        series = series * rest + np.float32(8.3334519073e-3)
        series = series * rest + np.float32(4.1665795894e-2)
        series = series * rest + np.float32(1.6666665459e-1)
        series = series * rest + np.float32(0.5)
        powers[place] = series * rest * rest + rest + np.float32(1)
        scales[place] = (np.int32(power) + np.int32(127)) << np.int32(23)
    total = np.float32(0)
    exponents = scales.view(np.float32)
    for place in range(len(line)):
        total += powers[place] * exponents[place]
    return total
