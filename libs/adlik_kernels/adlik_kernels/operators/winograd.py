"""3x3 convolutions by Winograd's method, called like the direct ones, and when that pays."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from adlik_kernels import configuration
from adlik_kernels.codegen.build import Loaded, load
from adlik_kernels.errors import InvalidOperand
from adlik_kernels.machine.pool import shared
from adlik_kernels.machine.target import Target
from adlik_kernels.operators.operands import address, aligned_empty, check, check_output
from adlik_kernels.operators.packing import pack_weights, pad_columns
from adlik_kernels.operators.workspace import padded_bytes, padded_in, workspace
from adlik_kernels.schedules.winograd import (
    WinogradSchedule,
    scratch_of,
    winograd_default,
    winograd_pays,
)
from adlik_kernels.templates.filtering import transformed_filters
from adlik_kernels.templates.winograd import winograd_module
from adlik_kernels.workload import Conv2d

__all__ = [
    "PreparedWinograd",
    "pack_winograd",
    "prepare_winograd",
    "scratch_bytes",
    "winograd_kernel",
    "winograd_pays",
]

_pack_words = struct.Struct("8q").pack


class PreparedWinograd:
    """activation(conv(x, w) + bias + residual) by Winograd's method, for pictures of one size.

    Made by `prepare_winograd`; callable from any thread. A call never compiles.

    Attributes:
        workload: What is computed.
        schedule: How.
    """

    def __init__(
        self,
        workload: Conv2d,
        w: NDArray[np.float32],
        bias: NDArray[np.float32] | None,
        results: int,
    ) -> None:
        self.workload = workload
        self._target, self._threads = configuration.target(), configuration.threads()
        results = results or winograd_pays(workload, self._target, self._threads) or 2
        self.schedule = winograd_default(workload, results, self._target, self._threads)
        self._code = winograd_kernel(workload, self.schedule, self._target).address
        self._w = pack_winograd(w, self.schedule, self._target)
        self._bias = pad_columns(0.0 if bias is None else bias, workload.filters)
        self._scratch = scratch_bytes(workload, self.schedule, self._target)

    def __call__(
        self,
        x: NDArray[np.float32],
        *,
        residual: NDArray[np.float32] | None = None,
        out: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Computes the convolution.

        Args:
            x: float32 [batch, height, width, channels], contiguous, without padding.
            residual: float32, shaped like the result; given if and only if it was prepared for.
            out: Where to write; it must not share memory with x or residual.

        Returns:
            float32 [batch, rows, columns, filters].

        Raises:
            InvalidOperand: An array does not fit; nothing was written.
        """
        workload = self.workload
        x = check("x", x, np.float32, (None, workload.height, workload.width, workload.channels))
        shape = (x.shape[0], workload.out_height, workload.out_width, workload.filters)
        if workload.residual != (residual is not None):
            wanted = "needs a" if workload.residual else "was prepared without a"
            raise InvalidOperand(f"This convolution {wanted} residual.")
        if residual is not None:
            residual = check("residual", residual, np.float32, shape)
        if out is None:
            out = np.empty(shape, np.float32)
        else:
            out = check_output(out, np.float32, shape, (("x", x), ("residual", residual)))
        pool = shared(self._threads)
        scratch = self._scratch * pool.chunks
        memory = workspace(scratch + padded_bytes(x.shape, workload.pads[:2], 4))
        padded = padded_in(memory[scratch:], x, workload.pads[:2])
        words = _pack_words(
            address(padded),
            address(self._w),
            address(out),
            address(self._bias),
            0 if residual is None else address(residual),
            address(memory),
            0,
            x.shape[0],
        )
        pool.run(self._code, words, pool.chunks)
        return out


def prepare_winograd(
    w: NDArray[np.float32],
    size: tuple[int, int],
    bias: NDArray[np.float32] | None = None,
    activation: str | None = None,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    residual: bool = False,
    results: int = 0,
) -> PreparedWinograd:
    """Transforms 3x3 filters and compiles a convolution that multiplies 2.25 or 4 times less.

    Results differ from the direct sums by rounding alone: by less than 1e-6 of the largest result
    with F(2) and 1e-5 with F(4), for numbers of like size. A NaN or an infinity in x reaches all
    results of its tile, not only those whose window holds it.

    Args:
        w: float32 [filters, channels, 3, 3], contiguous, as ONNX and torch keep it. Copied.
        size: Height and width of the pictures.
        bias: float32 [filters].
        activation: One of `workload.ACTIVATION_NAMES`, or None.
        stride: (1, 1): the method knows no other.
        padding: Zero rows and columns on each side.
        residual: Whether calls will give a residual.
        results: Rows and columns of the result that one tile makes, 2 or 4; 0 for the faster.

    Raises:
        InvalidOperand: An array does not fit, or the window or its steps are others.
    """
    w = check("w", w, np.float32, (None, None, None, None))
    filters, channels, rows, columns = w.shape
    if bias is not None:
        bias = check("bias", bias, np.float32, (filters,))
    workload = Conv2d(
        height=size[0],
        width=size[1],
        channels=channels,
        filters=filters,
        kernel=(rows, columns),
        stride=stride,
        padding=padding,
        bias=bias is not None,
        residual=residual,
        activation=activation or "",
    )
    return PreparedWinograd(workload, w, bias, results)


def pack_winograd(
    w: NDArray[np.float32], schedule: WinogradSchedule, target: Target
) -> NDArray[np.uint32]:
    """Returns filters at the points, packed: [points², panels, channels, filters of a panel].

    Args:
        w: float32 [filters, channels, 3, 3].
        schedule: How the convolution is cut up.
        target: The machine.
    """
    seen = transformed_filters(w, schedule.results)
    width = schedule.vectors * target.lanes
    panels = -(-w.shape[0] // width)
    packed = aligned_empty((len(seen), panels, w.shape[1], width), np.uint32)
    for point, matrix in enumerate(seen):
        packed[point] = pack_weights(matrix, width, "fp32")
    return packed


def scratch_bytes(workload: Conv2d, schedule: WinogradSchedule, target: Target) -> int:
    """Returns the bytes of scratch that a call needs for each of its chunks, at a cache line."""
    return scratch_of(workload, schedule, target).total


def winograd_kernel(workload: Conv2d, schedule: WinogradSchedule, target: Target) -> Loaded:
    """Returns a convolution's kernel, compiling it if no cache has it."""
    return load(
        "winograd",
        (workload, schedule),
        lambda: winograd_module(workload, schedule, target),
        target,
    )
