"""Depthwise convolutions with fused ends on channels-last arrays: fp32 and int8."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adlik_kernels import configuration
from adlik_kernels.codegen.build import load
from adlik_kernels.errors import InvalidOperand
from adlik_kernels.machine.pool import shared
from adlik_kernels.operators.dense import WORTH_SHARING
from adlik_kernels.operators.ends import Quantization, int8_constants
from adlik_kernels.operators.operands import address, aligned_empty, check, check_output
from adlik_kernels.operators.packing import pad_columns
from adlik_kernels.templates.depthwise import Depthwise, depthwise_module
from adlik_kernels.templates.depthwise_int8 import (
    LINES,
    DepthwiseInt8,
    columns_read,
    depthwise_int8_module,
    most_pixels,
    tile_rows,
)
from adlik_kernels.templates.small import Grid
from adlik_kernels.workload import ACTIVATION_NAMES, Conv2d

_pack_words = struct.Struct("5q").pack
_pack_int8_words = struct.Struct("8q").pack


class PreparedDepthwise:
    """activation(depthwise(x, w) + bias) for weights that stay and pictures of one size.

    Made by `prepare_depthwise`; callable from any thread. A call never compiles and copies nothing.

    Attributes:
        workload: What is computed.
    """

    def __init__(
        self, workload: Depthwise, w: NDArray[np.float32], bias: NDArray[np.float32] | None
    ) -> None:
        self.workload = workload
        target, self._threads = configuration.target(), configuration.threads()
        module = lambda: depthwise_module(workload, target)  # noqa: E731
        self._code = load("depthwise", workload, module, target).address
        self._w = np.ascontiguousarray(w[:, 0].transpose(1, 2, 0))
        self._bias = pad_columns(0.0 if bias is None else bias, workload.result.channels)
        taps = workload.window[0] * workload.window[1]
        self._worth = -(-WORTH_SHARING // (2 * taps * workload.result.numbers))

    def __call__(
        self, x: NDArray[np.float32], *, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Computes the convolution.

        Args:
            x: float32 [batch, height, width, channels], contiguous, without padding.
            out: Where to write; it must not share memory with x.

        Returns:
            float32 [batch, rows, columns, channels].

        Raises:
            InvalidOperand: An array does not fit; nothing was written.
        """
        source, made = self.workload.source, self.workload.result
        x = check("x", x, np.float32, (None, source.height, source.width, source.channels))
        shape = (x.shape[0], made.height, made.width, made.channels)
        if out is None:
            out = aligned_empty(shape, np.float32)
        else:
            out = check_output(out, np.float32, shape, (("x", x),))
        arrays = (address(array) for array in (x, out, self._w))
        words = _pack_words(*arrays, x.shape[0], address(self._bias))
        pool = shared(self._threads)
        pool.run(self._code, words, pool.chunks if x.shape[0] >= self._worth else 1)
        return out


def prepare_depthwise(
    w: NDArray[np.float32],
    size: tuple[int, int],
    bias: NDArray[np.float32] | None = None,
    activation: str | None = None,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
) -> PreparedDepthwise:
    """Compiles a convolution of each channel with a window of its own, for pictures of one size.

    Args:
        w: float32 [channels, 1, rows, columns], contiguous, as ONNX and torch keep it. Copied.
        size: Height and width of the pictures.
        bias: float32 [channels].
        activation: One of `workload.ACTIVATION_NAMES`, or None.
        stride: Steps of the window, down and across.
        padding: Zero rows and columns on each side.

    Raises:
        InvalidOperand: An array does not fit, or the window does not fit the picture.
    """
    w = check("w", w, np.float32, (None, 1, None, None))
    if bias is not None:
        bias = check("bias", bias, np.float32, (w.shape[0],))
    return PreparedDepthwise(depthwise_of(w, size, activation or "", stride, padding), w, bias)


class PreparedDepthwiseInt8:
    """A depthwise convolution of uint8 pictures with int8 weights, exact in 32 bits.

    Made by `prepare_depthwise_int8`; callable from any thread. A call never compiles and copies
    nothing.

    Attributes:
        workload: What is computed.
    """

    def __init__(
        self,
        workload: DepthwiseInt8,
        w: NDArray[np.int8],
        quantization: Quantization,
        bias: NDArray[np.float32] | None,
    ) -> None:
        self.workload = workload
        sizes = workload.sizes
        target, self._threads = configuration.target(), configuration.threads()
        self._code = load(
            "depthwise_int8", workload, lambda: depthwise_int8_module(workload, target), target
        ).address
        self._w = pack_lines(w, sizes, target.lanes)
        taps = np.ascontiguousarray(w.reshape(len(w), -1).T)
        self._constants = int8_constants(quantization, taps, bias)
        outside = columns_read(sizes, most_pixels(sizes, target)) * len(w)
        self._outside = np.full(outside, quantization.x_zero, np.uint8)
        self._worth = -(-WORTH_SHARING // (2 * len(taps) * sizes.result.numbers))

    def __call__(self, x: NDArray[np.uint8], *, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Computes the convolution.

        Args:
            x: uint8 [batch, height, width, channels], contiguous, without padding.
            out: Where to write; it must not share memory with x.

        Returns:
            [batch, rows, columns, channels], float32 or, if requantized, uint8.

        Raises:
            InvalidOperand: An array does not fit; nothing was written.
        """
        source, made = self.workload.sizes.source, self.workload.sizes.result
        x = check("x", x, np.uint8, (None, source.height, source.width, source.channels))
        shape = (x.shape[0], made.height, made.width, made.channels)
        if out is None:
            out = aligned_empty(shape, self.workload.output)
        else:
            out = check_output(out, self.workload.output, shape, (("x", x),))
        arrays = (address(array) for array in (x, out, self._w))
        ends = (address(array) for array in (*self._constants, self._outside))
        words = _pack_int8_words(*arrays, x.shape[0], *ends)
        pool = shared(self._threads)
        pool.run(self._code, words, pool.chunks if x.shape[0] >= self._worth else 1)
        return out


def prepare_depthwise_int8(
    w: NDArray[np.int8],
    size: tuple[int, int],
    quantization: Quantization,
    bias: NDArray[np.float32] | None = None,
    activation: str | None = None,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
) -> PreparedDepthwiseInt8:
    """Packs quantized weights: uint8 pictures, exact 32-bit sums, the scales fused into the end.

    Args:
        w: int8 [channels, 1, rows, columns], contiguous. Copied.
        size: Height and width of the pictures.
        quantization: How levels stand for real numbers, and whether the result is requantized.
        bias: float32 [channels], in real numbers.
        activation: One of `workload.ACTIVATION_NAMES`, or None.
        stride: Steps of the window, down and across.
        padding: Rows and columns on each side that stand for 0.

    Raises:
        InvalidOperand: An array or a scale does not fit, or the window does not fit the picture.
    """
    w = check("w", w, np.int8, (None, 1, None, None))
    if bias is not None:
        bias = check("bias", bias, np.float32, (w.shape[0],))
    sizes = depthwise_of(w, size, activation or "", stride, padding)
    output = "uint8" if quantization.out_scale else "float32"
    return PreparedDepthwiseInt8(DepthwiseInt8(sizes, output), w, quantization, bias)


def pack_lines(w: NDArray[np.int8], sizes: Depthwise, lanes: int) -> NDArray[np.int8]:
    """Returns weights as [tile's row, word of lines, tap, channel, line], zero where none is seen.

    Args:
        w: int8 [channels, 1, rows, columns].
        sizes: The convolution.
        lanes: Channels of a vector: their number is padded to whole ones.
    """
    channels, _, height, width = w.shape
    rows, words = tile_rows(sizes), -(-height // LINES)
    padded = lanes * -(-channels // lanes)
    packed = aligned_empty((rows, words * LINES, width, padded), np.int8)
    packed[...] = 0
    for row in range(rows):
        first = row * sizes.stride[0]
        packed[row, first : first + height, :, :channels] = w[:, 0].transpose(1, 2, 0)
    lines = packed.reshape(rows, words, LINES, width, padded).transpose(0, 1, 3, 4, 2)
    return np.ascontiguousarray(lines)


def depthwise_of(
    w: NDArray[Any],
    size: tuple[int, int],
    activation: str,
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> Depthwise:
    """Returns what a depthwise convolution of pictures without borders computes.

    Raises:
        InvalidOperand: The window does not fit the picture, or the activation is unknown.
    """
    channels, _, rows, columns = w.shape
    if activation and activation not in ACTIVATION_NAMES:
        raise InvalidOperand(
            f"There is no activation {activation!r}.", cure=f"Use one of {ACTIVATION_NAMES}."
        )
    # A dense convolution of the same windows has the same sizes and the same checks.
    sizes = Conv2d(*size, channels, channels, (rows, columns), stride, padding)
    return Depthwise(
        source=Grid(*size, channels),
        result=Grid(sizes.out_height, sizes.out_width, channels),
        window=(rows, columns),
        stride=stride,
        padding=padding,
        activation=activation,
    )
