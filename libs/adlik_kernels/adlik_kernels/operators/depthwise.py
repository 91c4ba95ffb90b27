"""Depthwise convolutions with fused bias and activation on channels-last arrays."""

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
from adlik_kernels.operators.operands import address, aligned_empty, check, check_output
from adlik_kernels.operators.packing import pad_columns
from adlik_kernels.templates.depthwise import Depthwise, depthwise_module
from adlik_kernels.templates.small import Grid
from adlik_kernels.workload import ACTIVATION_NAMES, Conv2d

_pack_words = struct.Struct("5q").pack


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
