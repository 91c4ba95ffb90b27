"""Convolutions with fused bias, residual and activation, channels last or in blocks."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adlik_kernels import configuration
from adlik_kernels.codegen.build import Loaded, load
from adlik_kernels.errors import InvalidOperand
from adlik_kernels.machine.pool import shared
from adlik_kernels.machine.target import Target
from adlik_kernels.operators.ends import Constants, Quantization, float_constants, int8_constants
from adlik_kernels.operators.layouts import picture_shape
from adlik_kernels.operators.operands import address, aligned_empty, check, check_output
from adlik_kernels.operators.packing import pack_groups
from adlik_kernels.schedules.registry import choose
from adlik_kernels.schedules.schedule import Schedule
from adlik_kernels.templates.conv import conv2d_module
from adlik_kernels.workload import BLOCK, Conv2d, Sides, four_sides

_pack_words = struct.Struct("8q").pack


class PreparedConv2d:
    """activation(conv(x, w) + bias + residual) for weights that stay and pictures of one size.

    Made by `prepare_conv2d` and `prepare_conv2d_int8`; callable from any thread. A call never
    compiles.

    Attributes:
        workload: What is computed.
    """

    def __init__(
        self, workload: Conv2d, w: NDArray[Any], constants: Constants, border: int = 0
    ) -> None:
        self.workload, self._border, self._constants = workload, border, constants
        self._x_dtype = np.dtype("uint8" if workload.dtype == "int8" else "float32")
        self._out_dtype = np.dtype(workload.output)
        self._residual_dtype = np.dtype(workload.residual_dtype)
        self._spare: list[NDArray[Any]] = []
        self._picture = picture_shape(
            workload.in_layout, workload.height, workload.width, workload.channels
        )
        self._result = picture_shape(workload.out_layout, *workload.out_size, workload.filters)
        self._target, self._threads = configuration.target(), configuration.threads()
        schedule = choose(workload, self._target, self._threads).schedule
        self._code = conv2d_kernel(workload, schedule, self._target).address
        width = schedule.vectors * self._target.lanes
        self._w = pack_groups(w, width, workload.dtype, workload.groups)

    def __call__(
        self,
        x: NDArray[Any],
        *,
        residual: NDArray[Any] | None = None,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Computes the convolution.

        Args:
            x: [batch, height, width, channels] or, if blocked, [batch, channels / 16, height,
                width, 16]; contiguous, without padding; float32, or uint8 for int8 filters.
            residual: Shaped like the result, float32 or, if its scale was given, uint8; given if
                and only if it was prepared for.
            out: Where to write; it must not share memory with x or residual.

        Returns:
            [batch, rows, columns, filters] or, if blocked, [batch, filters / 16, rows, columns,
            16]; float32 or, if requantized, uint8.

        Raises:
            InvalidOperand: An array does not fit; nothing was written.
        """
        workload = self.workload
        x = check("x", x, self._x_dtype, (None, *self._picture))
        shape = (x.shape[0], *self._result)
        if workload.residual != (residual is not None):
            wanted = "needs a" if workload.residual else "was prepared without a"
            raise InvalidOperand(f"This convolution {wanted} residual.")
        if residual is not None:
            residual = check("residual", residual, self._residual_dtype, shape)
        if out is None:
            out = aligned_empty(shape, self._out_dtype)
        else:
            out = check_output(out, self._out_dtype, shape, (("x", x), ("residual", residual)))
        held = self._held(x) if any(workload.pads) else x
        bias, scale, levels = (address(array) for array in self._constants)
        words = _pack_words(
            address(held),
            address(self._w),
            address(out),
            bias,
            0 if residual is None else address(residual),
            scale,
            levels,
            x.shape[0],
        )
        pool = shared(self._threads)
        pool.run(self._code, words, pool.chunks)
        if held is not x:
            self._spare.append(held)
        return out

    def _held(self, x: NDArray[Any]) -> NDArray[Any]:
        """A copy of x within its border, in memory of an earlier call: fresh pages are slow."""
        try:
            held = self._spare.pop()
        except IndexError:  # other threads have it, or nobody has called yet
            return padded_copy(x, self.workload.pads, self._border)
        if held.shape[0] != x.shape[0]:
            return padded_copy(x, self.workload.pads, self._border)
        inside(held, self.workload.pads)[...] = x
        return held


def prepare_conv2d(
    w: NDArray[np.float32],
    size: tuple[int, int],
    bias: NDArray[np.float32] | None = None,
    activation: str | None = None,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: Sides = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    in_layout: str = "last",
    out_layout: str = "last",
    residual: bool = False,
) -> PreparedConv2d:
    """Packs filters and compiles a convolution for pictures of one size.

    Args:
        w: float32 [filters, channels of a group, rows, columns], contiguous, as ONNX and torch
            keep it. Copied.
        size: Height and width of the pictures.
        bias: float32 [filters].
        activation: One of `workload.ACTIVATION_NAMES`, or None.
        stride: Steps of the window, down and across.
        padding: Zero rows and columns: (above and below, left and right), or (above, left, below,
            right).
        dilation: Pixels from one row and column of the window to the next.
        groups: Groups of channels; filters see the channels of their group alone.
        in_layout: Where the channels of x lie: "last", or "blocked" as `to_blocked` makes it.
        out_layout: The same of the result and the residual.
        residual: Whether calls will give a residual.

    Raises:
        InvalidOperand: An array does not fit, or the window does not fit the picture.
    """
    w = check("w", w, np.float32, (None, None, None, None))
    filters, channels, rows, columns = w.shape
    if bias is not None:
        bias = check("bias", bias, np.float32, (filters,))
    workload = Conv2d(
        height=size[0],
        width=size[1],
        channels=channels * max(groups, 1),
        filters=filters,
        kernel=(rows, columns),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        in_layout=in_layout,
        out_layout=out_layout,
        bias=bias is not None,
        residual=residual,
        activation=activation or "",
    )
    return PreparedConv2d(workload, along_k(w, in_layout), float_constants(bias, filters))


def prepare_conv2d_int8(
    w: NDArray[np.int8],
    size: tuple[int, int],
    quantization: Quantization,
    bias: NDArray[np.float32] | None = None,
    activation: str | None = None,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: Sides = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    groups: int = 1,
    in_layout: str = "last",
    out_layout: str = "last",
    residual: bool = False,
) -> PreparedConv2d:
    """Packs quantized filters: uint8 pictures, exact 32-bit sums, the scales fused into the end.

    Args:
        w: int8 [filters, channels of a group, rows, columns], contiguous; channels of a group fill
            whole 32-bit words. Copied.
        size: Height and width of the pictures.
        quantization: How levels stand for real numbers, and whether result and residual are
            quantized.
        bias: float32 [filters], in real numbers.
        activation: One of `workload.ACTIVATION_NAMES`, or None.
        stride: Steps of the window, down and across.
        padding: Rows and columns that stand for 0: (above and below, left and right), or (above,
            left, below, right).
        dilation: Pixels from one row and column of the window to the next.
        groups: Groups of channels; filters see the channels of their group alone.
        in_layout: Where the channels of x lie: "last", or "blocked" as `to_blocked` makes it.
        out_layout: The same of the result and the residual.
        residual: Whether calls will give a residual.

    Raises:
        InvalidOperand: An array, a scale or the number of channels does not fit.
    """
    w = check("w", w, np.int8, (None, None, None, None))
    filters, channels, rows, columns = w.shape
    if bias is not None:
        bias = check("bias", bias, np.float32, (filters,))
    workload = Conv2d(
        height=size[0],
        width=size[1],
        channels=channels * max(groups, 1),
        filters=filters,
        kernel=(rows, columns),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        in_layout=in_layout,
        out_layout=out_layout,
        dtype="int8",
        output=quantization.output,
        bias=True,
        residual=residual,
        residual_dtype=quantization.residual_dtype,
        rounded=quantization.rounded,
        activation=activation or "",
    )
    turned = along_k(w, in_layout)
    constants = int8_constants(quantization, turned, bias, residual=residual)
    return PreparedConv2d(workload, turned, constants, quantization.x_zero)


def along_k(w: NDArray[Any], layout: str = "last") -> NDArray[Any]:
    """Returns filters as the matrix of the product they are: rows, columns, channels along k.

    Args:
        w: [filters, channels, rows, columns].
        layout: Where the channels of x lie; "blocked" puts blocks of channels before the rows.
    """
    filters, channels, rows, columns = w.shape
    block = BLOCK if layout == "blocked" else channels
    blocks = w.reshape(filters, channels // block, block, rows, columns)
    return np.ascontiguousarray(blocks.transpose(1, 3, 4, 2, 0).reshape(-1, filters))


def padded_copy(x: NDArray[Any], padding: Sides, border: int = 0) -> NDArray[Any]:
    """Returns pictures with rows and columns of a value around them.

    Args:
        x: [..., height, width, channels].
        padding: Rows and columns around each picture.
        border: The value.
    """
    *outer, height, width, channels = x.shape
    above, left, below, right = four_sides(padding)
    shape = (*outer, height + above + below, width + left + right, channels)
    padded = aligned_empty(shape, x.dtype)
    padded[..., :above, :, :], padded[..., above + height :, :, :] = border, border
    padded[..., :left, :], padded[..., left + width :, :] = border, border
    inside(padded, padding)[...] = x
    return padded


def inside(held: NDArray[Any], padding: Sides) -> NDArray[Any]:
    """Returns pictures without the rows and columns around them, as a view.

    Args:
        held: [..., height, width, channels], with what is around.
        padding: Rows and columns around each picture.
    """
    above, left, below, right = four_sides(padding)
    height, width = held.shape[-3:-1]
    return held[..., above : height - below, left : width - right, :]


def conv2d_kernel(workload: Conv2d, schedule: Schedule, target: Target) -> Loaded:
    """Returns a convolution's kernel, compiling it if no cache has it."""
    return load(
        "conv2d",
        (workload, schedule),
        lambda: conv2d_module(workload, schedule, target),
        target,
    )
