"""Changes of layout: channels first, channels last, blocks of channels, any order of axes."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adlik_kernels import configuration
from adlik_kernels.errors import InvalidOperand
from adlik_kernels.operators.calls import name_of, run
from adlik_kernels.operators.operands import address, check, check_output
from adlik_kernels.operators.quantized import check_scales
from adlik_kernels.templates.grids import Grid, widest
from adlik_kernels.templates.layouts import PIECE, WIDEST, Blocked, Layout, Transpose
from adlik_kernels.workload import BLOCK

DTYPES = ("float32", "uint8")
"""Element types whose layout can be changed."""


def to_channels_last(x: NDArray[Any], *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Returns pictures with their channels behind their pixels.

    Args:
        x: [batch, channels, height, width], float32 or uint8, contiguous.
        out: Where to write, [batch, height, width, channels]; it must not share memory with x.

    Raises:
        InvalidOperand: An array does not fit; nothing was written.
    """
    dtype = _dtype_of(x)
    return _to_last(x, (dtype, dtype), out, None)


def to_channels_first(x: NDArray[Any], *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Returns pictures as one plane a channel.

    Args:
        x: [batch, height, width, channels], float32 or uint8, contiguous.
        out: Where to write, [batch, channels, height, width]; it must not share memory with x.

    Raises:
        InvalidOperand: An array does not fit; nothing was written.
    """
    dtype = _dtype_of(x)
    return _to_first(x, (dtype, dtype), out, None)


def quantize_to_channels_last(
    x: NDArray[np.float32], scale: float, zero: int, *, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Returns a quantized model's input: `quantize` and `to_channels_last` in one pass.

    Args:
        x: float32 [batch, channels, height, width], contiguous.
        scale: The real number between two levels.
        zero: The level that stands for 0.
        out: Where to write, uint8 [batch, height, width, channels]; not in x's memory.

    Raises:
        InvalidOperand: An array or a scale does not fit; nothing was written.
    """
    return _to_last(x, ("float32", "uint8"), out, check_scales(scale, zero, 1, "uint8"))


def dequantize_to_channels_first(
    x: NDArray[np.uint8], scale: float, zero: int, *, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Returns a quantized model's output: `dequantize` and `to_channels_first` in one pass.

    Args:
        x: uint8 [batch, height, width, channels], contiguous.
        scale: The real number between two levels.
        zero: The level that stands for 0.
        out: Where to write, float32 [batch, channels, height, width]; not in x's memory.

    Raises:
        InvalidOperand: An array or a scale does not fit; nothing was written.
    """
    return _to_first(x, ("float32", "uint8"), out, check_scales(scale, zero, 1, "uint8"))


def to_blocked(
    x: NDArray[np.float32], *, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Returns pictures in blocks of 16 channels; what fills the last block is 0.

    Args:
        x: float32 [batch, height, width, channels], contiguous.
        out: Where to write, [batch, blocks, height, width, 16]; it must not share memory with x.

    Raises:
        InvalidOperand: An array does not fit; nothing was written.
    """
    x = check("x", x, np.float32, (None,) * 4)
    batch, height, width, channels = x.shape
    shape = (batch, -(-channels // PIECE), height, width, PIECE)
    out = _result(out, np.float32, shape, x)
    workload = Blocked(Grid(height, width, channels), 0, to_blocked=True)
    run(workload, (address(x), address(out), 0, batch), out.size)
    return out


def from_blocked(
    x: NDArray[np.float32], channels: int, *, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Returns pictures whose channels were in blocks of 16 with their channels last.

    Args:
        x: float32 [batch, blocks, height, width, 16], contiguous.
        channels: Channels without those that only fill the last block.
        out: Where to write, [batch, height, width, channels]; it must not share memory with x.

    Raises:
        InvalidOperand: An array or the number of channels does not fit; nothing was written.
    """
    x = check("x", x, np.float32, (None, None, None, None, PIECE))
    batch, blocks, height, width, _ = x.shape
    if -(-channels // PIECE) != blocks:
        raise InvalidOperand(f"{channels} channels do not lie in {blocks} blocks of {PIECE}.")
    out = _result(out, np.float32, (batch, height, width, channels), x)
    workload = Blocked(Grid(height, width, channels), 0, to_blocked=False)
    run(workload, (address(x), address(out), 0, batch), x.size)
    return out


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


def transpose(
    x: NDArray[np.float32], axes: Sequence[int], *, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Returns a contiguous array with the axes in another order.

    Args:
        x: float32 with two to four axes, contiguous.
        axes: Which axis of x is the result's first, second and so on.
        out: Where to write; it must not share memory with x.

    Raises:
        InvalidOperand: An array or the axes do not fit; nothing was written.
    """
    x = check("x", x, np.float32, (None,) * np.ndim(x))
    order = tuple(axes)
    if not 2 <= x.ndim <= 4 or sorted(order) != list(range(x.ndim)):
        raise InvalidOperand(
            f"The axes {order} are no order of the {x.ndim} axes of x.",
            cure="Give two to four axes, each of them once.",
        )
    out = _result(out, np.float32, tuple(x.shape[axis] for axis in order), x)
    shape, order = _merged(x.shape, order)
    given = x.reshape(shape)
    made = out.reshape([shape[axis] for axis in order])
    if order[-1] == len(shape) - 1:
        # Runs stay whole: this is numpy's copying of rows.
        made[...] = given.transpose(order)
        return out
    pixels, channels = shape[-1], shape[order[-1]]
    outer = [axis for axis in order if axis not in {len(shape) - 1, order[-1]}]
    sizes = [1] * (2 - len(outer)) + [shape[axis] for axis in outer]
    read = [0] * (2 - len(outer)) + [given.strides[axis] for axis in (*outer, order[-1])]
    written = [0] * (2 - len(outer)) + [
        made.strides[order.index(axis)] for axis in (*outer, len(shape) - 1)
    ]
    tile = widest(pixels, min(configuration.target().lanes, WIDEST // 4)), widest(channels, PIECE)
    words = (address(x), address(out), *sizes, pixels, channels, *read, *written)
    run(Transpose(tile), words, x.size)
    return out


def _merged(
    shape: tuple[int, ...], order: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape and order without axes of one place, and with axes that stay together made one."""
    groups: list[list[int]] = []
    for axis in (axis for axis in order if shape[axis] > 1):
        before = groups[-1][-1] if groups else None
        if (
            before is not None
            and all(shape[n] == 1 for n in range(before + 1, axis))
            and axis > before
        ):
            groups[-1].append(axis)
        else:
            groups.append([axis])
    ranked = sorted(groups)
    sizes = tuple(math.prod(shape[axis] for axis in group) for group in ranked)
    return sizes or (1,), tuple(ranked.index(group) for group in groups) or (0,)


def _to_last(
    x: NDArray[Any],
    dtypes: tuple[str, str],
    out: NDArray[Any] | None,
    levels: tuple[NDArray[np.float32], NDArray[np.int32]] | None,
) -> NDArray[Any]:
    x = check("x", x, dtypes[0], (None,) * 4)
    batch, channels, height, width = x.shape
    out = _result(out, dtypes[1], (batch, height, width, channels), x)
    _run_layout(_layout((height, width, channels), dtypes, to_last=True), (x, out), levels)
    return out


def _to_first(
    x: NDArray[Any],
    dtypes: tuple[str, str],
    out: NDArray[Any] | None,
    levels: tuple[NDArray[np.float32], NDArray[np.int32]] | None,
) -> NDArray[Any]:
    x = check("x", x, dtypes[1], (None,) * 4)
    batch, height, width, channels = x.shape
    out = _result(out, dtypes[0], (batch, channels, height, width), x)
    _run_layout(_layout((height, width, channels), dtypes, to_last=False), (x, out), levels)
    return out


@functools.lru_cache(maxsize=4096)
def _layout(size: tuple[int, int, int], dtypes: tuple[str, str], *, to_last: bool) -> Layout:
    """What is computed; kept, so that its code is found at once."""
    return Layout(Grid(*size), to_last, *dtypes)


def _run_layout(
    workload: Layout,
    arrays: tuple[NDArray[Any], NDArray[Any]],
    levels: tuple[NDArray[np.float32], NDArray[np.int32]] | None,
) -> None:
    x, out = arrays
    places = (0, 0) if levels is None else (address(levels[0]), address(levels[1]))
    run(workload, (address(x), address(out), 0, len(x), *places), x.size)


def _dtype_of(x: object) -> str:
    dtype = name_of(x) or DTYPES[0]
    if dtype not in DTYPES:
        raise InvalidOperand(
            f"x has the dtype {dtype}, expected one of {DTYPES}.", cure="Convert it with astype."
        )
    return dtype


def _result(
    out: NDArray[Any] | None, dtype: Any, shape: tuple[int, ...], x: NDArray[Any]
) -> NDArray[Any]:
    return np.empty(shape, dtype) if out is None else check_output(out, dtype, shape, (("x", x),))
