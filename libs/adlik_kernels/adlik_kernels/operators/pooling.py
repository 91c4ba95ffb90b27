"""Pooling of channels-last pictures: the largest or the mean number of each window."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adlik_kernels.errors import InvalidOperand
from adlik_kernels.operators.calls import name_of, run
from adlik_kernels.operators.operands import address, check, check_output
from adlik_kernels.operators.quantized import Levels
from adlik_kernels.templates.grids import Grid
from adlik_kernels.templates.pooling import Pool

DTYPES = ("float32", "uint8")
"""Element types of pictures."""

MOST_PLACES = (1 << 31) // 256
"""Places of a window whose levels a 32-bit sum can hold."""


_SAME = Levels(1.0, 0), Levels(1.0, 0)


def max_pool(
    x: NDArray[Any],
    window: tuple[int, int],
    *,
    stride: tuple[int, int] | None = None,
    padding: tuple[int, int] = (0, 0),
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Returns the largest number of each window; NaN stays NaN.

    Args:
        x: [batch, height, width, channels], float32 or uint8, contiguous.
        window: Rows and columns of a window.
        stride: Its steps, down and across; as the window if None.
        padding: Rows and columns by which windows may leave the picture on each side.
        out: Where to write, [batch, rows, columns, channels]; not in x's memory.

    Raises:
        InvalidOperand: An array or the window does not fit; nothing was written.
    """
    x = _check_pictures(x)
    workload = _workload(x.shape[1:], ("max", name_of(x)), window, stride, padding)
    return _pooled(x, workload, None, out)


def average_pool(
    x: NDArray[Any],
    window: tuple[int, int],
    *,
    stride: tuple[int, int] | None = None,
    padding: tuple[int, int] = (0, 0),
    levels: tuple[Levels, Levels] | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Returns the mean number of each window, counting places inside the picture only.

    The mean of uint8 pictures is computed from the exact sum and rounded half to even.

    Args:
        x: [batch, height, width, channels], float32 or uint8, contiguous.
        window: Rows and columns of a window.
        stride: Its steps, down and across; as the window if None.
        padding: Rows and columns by which windows may leave the picture on each side.
        levels: What the levels of uint8 x and of the result stand for; None if it is the same.
        out: Where to write, [batch, rows, columns, channels]; not in x's memory.

    Raises:
        InvalidOperand: An array or the window does not fit; nothing was written.
    """
    x = _check_pictures(x)
    workload = _workload(x.shape[1:], ("mean", name_of(x)), window, stride, padding)
    return _pooled(x, workload, levels, out)


def global_average_pool(
    x: NDArray[Any],
    *,
    levels: tuple[Levels, Levels] | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Returns the mean of each channel of each picture.

    Args:
        x: [batch, height, width, channels], float32 or uint8, contiguous.
        levels: What the levels of uint8 x and of the result stand for; None if it is the same.
        out: Where to write, [batch, channels]; it must not share memory with x.

    Raises:
        InvalidOperand: An array does not fit; nothing was written.
    """
    x = _check_pictures(x)
    batch, height, width, channels = x.shape
    if out is not None:
        check_output(out, x.dtype, (batch, channels), (("x", x),))
        out = out.reshape(batch, 1, 1, channels)
    size = (height, width, channels)
    workload = _workload(size, ("mean", name_of(x)), (height, width), None, (0, 0))
    return _pooled(x, workload, levels, out).reshape(batch, channels)


@functools.lru_cache(maxsize=4096)
def _workload(
    size: tuple[int, int, int],
    kind: tuple[str, str],
    window: tuple[int, int],
    stride: tuple[int, int] | None,
    padding: tuple[int, int],
) -> Pool:
    """What is computed for pictures of a size: height, width, channels; kind is also of element."""
    height, width, channels = size
    steps = window if stride is None else stride
    if min(*window, *steps) < 1 or min(padding) < 0:
        raise InvalidOperand("Windows and strides are at least 1, padding is at least 0.")
    if padding[0] >= window[0] or padding[1] >= window[1]:
        raise InvalidOperand(f"Padding {padding} would leave windows {window} outside the picture.")
    rows, columns = (
        (length + 2 * edge - span) // step + 1
        for length, span, step, edge in zip((height, width), window, steps, padding, strict=True)
    )
    if min(rows, columns) < 1:
        raise InvalidOperand(f"A window {window} does not fit a picture of {height} x {width}.")
    if window[0] * window[1] > MOST_PLACES:
        raise InvalidOperand(f"A window has at most {MOST_PLACES} places.")
    source, result = Grid(height, width, channels), Grid(rows, columns, channels)
    return Pool(source, result, kind[0], window, steps, padding, kind[1])


@functools.lru_cache(maxsize=4096)
def _constants(x: Levels, made: Levels) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """What a mean of levels is multiplied by, and both zeros."""
    return np.array([x.scale / made.scale], np.float32), np.array([x.zero, made.zero], np.int32)


def _pooled(
    x: NDArray[Any],
    workload: Pool,
    levels: tuple[Levels, Levels] | None,
    out: NDArray[Any] | None,
) -> NDArray[Any]:
    if levels is not None and x.dtype != np.uint8:
        raise InvalidOperand(f"Pictures of {x.dtype} have no levels.", cure="Leave levels out.")
    made = workload.result
    shape = (len(x), made.height, made.width, made.channels)
    if out is None:
        out = np.empty(shape, x.dtype)
    else:
        out = check_output(out, x.dtype, shape, (("x", x),))
    ratio, zeros = _constants(*(levels or _SAME))
    words = (address(x), address(out), 0, len(x), address(ratio), address(zeros))
    run(workload, words, out.size * min(workload.area, 16))
    return out


def _check_pictures(x: Any) -> NDArray[Any]:
    dtype = name_of(x) or DTYPES[0]
    if dtype not in DTYPES:
        raise InvalidOperand(
            f"x has the dtype {dtype}, expected one of {DTYPES}.", cure="Convert it with astype."
        )
    return check("x", x, dtype, (None,) * 4)
