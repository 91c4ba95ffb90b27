"""Memory that stays with the calling thread: new pages cost more than most copies into them."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adlik_kernels.operators.operands import aligned_empty

_kept = threading.local()
"""Only one call of a thread runs at a time."""


def workspace(size: int) -> NDArray[np.uint8]:
    """Returns at least so many bytes at a cache line, the same ones at each call of a thread.

    Args:
        size: Bytes; what they hold is of no account.
    """
    found: NDArray[np.uint8] | None = getattr(_kept, "memory", None)
    if found is None or found.nbytes < size:
        found = _kept.memory = aligned_empty(size, np.uint8)
    return found


def padded_bytes(shape: tuple[int, ...], padding: tuple[int, int], item: int) -> int:
    """Returns the bytes of pictures with their padding; 0 without any padding."""
    return item * math.prod(_padded_shape(shape, padding)) if any(padding) else 0


def padded_in(
    memory: NDArray[np.uint8], x: NDArray[Any], padding: tuple[int, int], border: int = 0
) -> NDArray[Any]:
    """Returns pictures with rows and columns of a value around them, copied into given memory.

    Args:
        memory: `padded_bytes` at a cache line.
        x: [batch, height, width, channels].
        padding: Rows and columns on each side; without any, x itself is returned.
        border: Their value.
    """
    if not any(padding):
        return x
    shape = _padded_shape(x.shape, padding)
    padded = memory[: x.itemsize * math.prod(shape)].view(x.dtype).reshape(shape)
    (down, across), (height, width) = padding, x.shape[1:3]
    padded[:, :down], padded[:, down + height :] = border, border
    padded[:, :, :across], padded[:, :, across + width :] = border, border
    padded[:, down : down + height, across : across + width] = x
    return padded


def _padded_shape(shape: tuple[int, ...], padding: tuple[int, int]) -> tuple[int, ...]:
    batch, height, width, channels = shape
    return batch, height + 2 * padding[0], width + 2 * padding[1], channels
