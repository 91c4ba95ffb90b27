"""Transposed convolutions with fused bias and activation on channels-last arrays."""

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
from adlik_kernels.templates.phases import Transposed2d, phase_filters, phase_pairs
from adlik_kernels.templates.transposed import transposed_block, transposed_module
from adlik_kernels.workload import ACTIVATION_NAMES

_pack_words = struct.Struct("8q").pack


class PreparedTransposed:
    """activation(transposed conv(x, w) + bias) for weights that stay and pictures of one size.

    Made by `prepare_conv2d_transposed`; callable from any thread. A call never compiles.

    Attributes:
        workload: What is computed.
    """

    def __init__(
        self, workload: Transposed2d, w: NDArray[np.float32], bias: NDArray[np.float32] | None
    ) -> None:
        self.workload = workload
        target, self._threads = configuration.target(), configuration.threads()
        block = transposed_block(workload, target, self._threads)
        self._code = transposed_kernel(workload, block, target).address
        self._w = pack_transposed(w, workload, block[1] * target.lanes)
        self._bias = pad_columns(0.0 if bias is None else bias, workload.filters)

    def __call__(
        self, x: NDArray[np.float32], *, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Computes the convolution.

        Args:
            x: float32 [batch, height, width, channels], contiguous.
            out: Where to write; it must not share memory with x.

        Returns:
            float32 [batch, rows, columns, filters].

        Raises:
            InvalidOperand: An array does not fit; nothing was written.
        """
        workload = self.workload
        x = check("x", x, np.float32, (None, workload.height, workload.width, workload.channels))
        shape = (x.shape[0], *workload.result, workload.filters)
        if out is None:
            out = aligned_empty(shape, np.float32)
        else:
            out = check_output(out, np.float32, shape, (("x", x),))
        memory = workspace(padded_bytes(x.shape, workload.around, 4))
        padded = padded_in(memory, x, workload.around)
        arrays = (address(array) for array in (padded, self._w, out, self._bias))
        pool = shared(self._threads)
        pool.run(self._code, _pack_words(*arrays, 0, 0, 0, x.shape[0]), pool.chunks)
        return out


def prepare_conv2d_transposed(
    w: NDArray[np.float32],
    size: tuple[int, int],
    bias: NDArray[np.float32] | None = None,
    activation: str | None = None,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    output_padding: tuple[int, int] = (0, 0),
) -> PreparedTransposed:
    """Packs filters and compiles a transposed convolution, which makes pictures larger.

    Args:
        w: float32 [channels, filters, rows, columns], contiguous, as ONNX and torch keep it.
        Copied.
        size: Height and width of the pictures.
        bias: float32 [filters].
        activation: One of `workload.ACTIVATION_NAMES`, or None.
        stride: How far apart the windows of two neighbours lie in the result: 1 to 4.
        padding: Rows and columns cut off on each side of the result.
        output_padding: Rows and columns more at the result's end; less than the stride.

    Raises:
        InvalidOperand: An array, a step or a padding does not fit.
    """
    w = check("w", w, np.float32, (None, None, None, None))
    channels, filters, rows, columns = w.shape
    if bias is not None:
        bias = check("bias", bias, np.float32, (filters,))
    if activation and activation not in ACTIVATION_NAMES:
        raise InvalidOperand(
            f"There is no activation {activation!r}.", cure=f"Use one of {ACTIVATION_NAMES}."
        )
    workload = Transposed2d(
        height=size[0],
        width=size[1],
        channels=channels,
        filters=filters,
        kernel=(rows, columns),
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        bias=bias is not None,
        activation=activation or "",
    )
    return PreparedTransposed(workload, w, bias)


def pack_transposed(
    w: NDArray[np.float32], workload: Transposed2d, width: int
) -> NDArray[np.uint32]:
    """Returns filters packed phase by phase, each as the product it is.

    Args:
        w: float32 [channels, filters, rows, columns].
        workload: What is computed.
        width: Filters of one panel.
    """
    parts = [
        pack_weights(phase_filters(w, workload, pair), width, "fp32").reshape(-1)
        for pair in phase_pairs(workload)
    ]
    packed = aligned_empty(sum(len(part) for part in parts), np.uint32)
    return np.concatenate(parts, out=packed)


def transposed_kernel(workload: Transposed2d, block: tuple[int, int], target: Target) -> Loaded:
    """Returns a transposed convolution's kernel, compiling it if no cache has it."""
    return load(
        "transposed",
        (workload, block),
        lambda: transposed_module(workload, block, target),
        target,
    )
