"""The loops of image preparation, compiled by numba: see `images` for what they compute.

Rows are blended first, whole and vectorised; then each channel picks its columns from the blended
row.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from adlik_kernels.codegen.compiled import array_at

IMAGE, ROWS, COLUMNS, ROW_PLACES, ROW_WEIGHTS, COLUMN_PLACES, COLUMN_WEIGHTS = range(7)
AFFINE, OUT, SCRATCH, HEIGHT, WIDTH, TOP, LEFT, PLACED_HEIGHT, PLACED_WIDTH, SWAP, FILL = range(
    7, 18
)
PITCH = 18
"""Bytes from one row of the picture to the next."""


def prepare_floats(chunk: int, chunks: int, words: Any) -> None:
    """Writes rows of a float32 input."""
    out = array_at(words, OUT, (3, words[HEIGHT], words[WIDTH]), np.float32)
    first = words[HEIGHT] * chunk // chunks
    last = words[HEIGHT] * (chunk + 1) // chunks
    for row in range(first, last):
        blended = blend_row(chunk, row, words)
        for channel in range(3):
            pick_floats(blended, channel, row, words, out[channel, row])


def prepare_levels(chunk: int, chunks: int, words: Any) -> None:
    """Writes rows of a uint8 input."""
    out = array_at(words, OUT, (3, words[HEIGHT], words[WIDTH]), np.uint8)
    line = np.empty(words[WIDTH], np.float32)
    first = words[HEIGHT] * chunk // chunks
    last = words[HEIGHT] * (chunk + 1) // chunks
    for row in range(first, last):
        blended = blend_row(chunk, row, words)
        for channel in range(3):
            pick_floats(blended, channel, row, words, line)
            target = out[channel, row]
            for column in range(words[WIDTH]):
                level = min(max(np.rint(line[column]), np.float32(0)), np.float32(255))
                target[column] = np.uint8(np.int32(level))


@numba.njit(inline="always")  # type: ignore[untyped-decorator] # numba is untyped
def blend_row(chunk: int, row: int, words: Any) -> Any:
    """Returns one row of the picture at the height of a row of the input."""
    samples = words[COLUMNS] * 3
    blended = array_at(words, SCRATCH, (chunk + 1, samples), np.float32)[chunk]
    inner = row - words[TOP]
    if inner < 0 or inner >= words[PLACED_HEIGHT]:
        return blended
    image = array_at(words, IMAGE, (words[ROWS], words[PITCH]), np.uint8)
    place = array_at(words, ROW_PLACES, words[PLACED_HEIGHT], np.int64)[inner]
    weight = array_at(words, ROW_WEIGHTS, words[PLACED_HEIGHT], np.float32)[inner]
    upper, lower = image[place], image[min(place + 1, words[ROWS] - 1)]
    for sample in range(samples):
        near = np.float32(upper[sample])
        blended[sample] = near + (np.float32(lower[sample]) - near) * weight
    return blended


@numba.njit(inline="always")  # type: ignore[untyped-decorator] # numba is untyped
def pick_floats(blended: Any, channel: int, row: int, words: Any, target: Any) -> None:
    """Writes one row of one channel, normalised."""
    affine = array_at(words, AFFINE, 6, np.float32)
    slope, shift = affine[channel], affine[3 + channel]
    inner = row - words[TOP]
    left, width = words[LEFT], words[PLACED_WIDTH]
    filled = np.float32(words[FILL]) * slope + shift
    if inner < 0 or inner >= words[PLACED_HEIGHT]:
        target[:] = filled
        return
    target[:left] = filled
    target[left + width :] = filled
    source = 2 - channel if words[SWAP] else channel
    places = array_at(words, COLUMN_PLACES, width, np.int64)
    weights = array_at(words, COLUMN_WEIGHTS, width, np.float32)
    step = 3 if words[COLUMNS] > 1 else 0
    inside = target[left : left + width]
    for column in range(width):
        at = places[column] * 3 + source
        near = blended[at]
        inside[column] = (near + (blended[at + step] - near) * weights[column]) * slope + shift
