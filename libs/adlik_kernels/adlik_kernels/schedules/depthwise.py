"""The tile of a depthwise convolution, by rule."""

from __future__ import annotations

from dataclasses import dataclass

from adlik_kernels.machine.target import Target

FEW_ROWS = 7
"""Rows of a result that one tile may hold from top to bottom."""


@dataclass(frozen=True, slots=True)
class DepthwiseSchedule:
    """One way to compute a depthwise convolution.

    Attributes:
        rows: Rows of the result that a tile has.
        pixels: Pixels of a row that a tile has at most.
    """

    rows: int
    pixels: int


def depthwise_default(
    size: tuple[int, int],
    touched: int,
    stride: tuple[int, int],
    target: Target,
) -> DepthwiseSchedule:
    """Returns the tile of a depthwise convolution.

    Large tiles load least. Where x and the result have no room in the second cache, small ones are
    faster: they walk along fewer pixels at once, and so along fewer pages.

    Args:
        size: Rows and columns of the result.
        touched: Bytes of one picture of x and of the result.
        stride: Steps of the window.
        target: The machine.
    """
    height = size[0]
    wide = target.registers == 32
    if touched > target.l2_bytes:
        return DepthwiseSchedule(min(4 if wide else 2, height), 2)
    if wide and stride == (1, 1) and height <= FEW_ROWS:
        return DepthwiseSchedule(height, 2)
    return DepthwiseSchedule(min(2, height), 7 if wide else 3)
