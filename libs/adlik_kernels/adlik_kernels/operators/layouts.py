"""Pictures with channels last and in blocks: their shapes, and from one to the other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from adlik_kernels.errors import InvalidOperand
from adlik_kernels.workload import BLOCK


def to_blocked(x: NDArray[Any]) -> NDArray[Any]:
    """Returns pictures in blocks of 16 channels, as convolutions with a blocked layout take them.

    Args:
        x: [batch, height, width, channels] of any type; channels are a multiple of 16.

    Returns:
        [batch, channels / 16, height, width, 16], contiguous.

    Raises:
        InvalidOperand: The shape is another.
    """
    if x.ndim != 4 or x.shape[3] % BLOCK:
        raise InvalidOperand(
            f"x has the shape {x.shape}, which makes no blocks of {BLOCK} channels.",
            cure="Give [batch, height, width, channels], the channels padded to whole blocks.",
        )
    batch, height, width, channels = x.shape
    blocks = x.reshape(batch, height, width, channels // BLOCK, BLOCK)
    return np.ascontiguousarray(blocks.transpose(0, 3, 1, 2, 4))


def from_blocked(x: NDArray[Any]) -> NDArray[Any]:
    """Returns pictures with channels last.

    Args:
        x: [batch, channels / 16, height, width, 16] of any type.

    Returns:
        [batch, height, width, channels], contiguous.

    Raises:
        InvalidOperand: The shape is another.
    """
    if x.ndim != 5 or x.shape[4] != BLOCK:
        raise InvalidOperand(f"x has the shape {x.shape}, which is not in blocks of {BLOCK}.")
    batch, blocks, height, width, _ = x.shape
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1, 4)).reshape(
        batch, height, width, blocks * BLOCK
    )


def picture_shape(layout: str, height: int, width: int, channels: int) -> tuple[int, ...]:
    """Returns the shape of one picture.

    Args:
        layout: One of `workload.LAYOUTS`.
        height: Rows.
        width: Columns.
        channels: Channels.
    """
    if layout == "blocked":
        return (channels // BLOCK, height, width, BLOCK)
    return (height, width, channels)
