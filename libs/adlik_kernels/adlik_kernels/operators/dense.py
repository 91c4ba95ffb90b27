"""Matrix products with fused bias, residual and activation: fp32, bf16 and int8."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adlik_kernels import configuration
from adlik_kernels.codegen.build import Loaded, load
from adlik_kernels.errors import InvalidOperand
from adlik_kernels.machine.pool import shared
from adlik_kernels.machine.target import Target
from adlik_kernels.operators.ends import Constants, Quantization, float_constants, int8_constants
from adlik_kernels.operators.operands import address, aligned_empty, check, check_output
from adlik_kernels.operators.packing import pack_weights, to_bf16
from adlik_kernels.operators.rounding import round_to_bf16
from adlik_kernels.schedules.registry import choose
from adlik_kernels.schedules.schedule import Schedule
from adlik_kernels.templates.dense import dense_module
from adlik_kernels.workload import Dense

WORTH_SHARING = 400_000
"""Operations above which a call is shared among threads: some microseconds on one core."""

ROW_WORTH_SHARING = WORTH_SHARING // 4
"""The same for a single row: it waits for its weights, which two cores read faster than one."""

FEW_ROWS = 8
"""Below this many rows, a kernel with fewer rows and more columns in a tile is used."""

_pack_words = struct.Struct("8q").pack


@dataclass(frozen=True, slots=True)
class _Kernel:
    address: int
    weights: int


class PreparedDense:
    """activation(x @ w + bias + residual) for weights that stay; callable from any thread.

    Made by `prepare_dense` and `prepare_dense_int8`. Kernels for the given numbers of rows, and one
    for any number, are compiled when it is made: a call never compiles.

    Attributes:
        workload: What is computed, with rows 0.
    """

    def __init__(
        self,
        workload: Dense,
        w: NDArray[Any],
        constants: Constants,
        rows: Iterable[int],
        *,
        at_once: bool = True,
    ) -> None:
        self.workload = workload
        self._w = w
        self._constants = constants
        self._places = tuple(address(array) for array in constants)
        self._target = configuration.target()
        self._threads = configuration.threads()
        self._packed: dict[int, NDArray[np.uint32]] = {}
        self._x_dtype = np.dtype("uint8" if workload.dtype == "int8" else "float32")
        self._out_dtype = np.dtype(workload.output)
        self._residual_dtype = np.dtype(workload.residual_dtype)
        self._work_per_row = workload.for_rows(1).operations
        self._general: dict[bool, _Kernel] = {}
        if at_once:
            for few in (True, False):
                self._for_any_rows(few=few)
        self._exact: dict[int, _Kernel] = {}
        for count in rows:
            exact = workload.for_rows(count)
            chosen = choose(exact, self._target, self._threads).schedule
            self._exact[count] = self._bind(exact, chosen)

    def __call__(
        self,
        x: NDArray[Any],
        *,
        residual: NDArray[Any] | None = None,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Computes the product.

        Args:
            x: [rows, depth], contiguous; float32, or uint8 for int8 weights.
            residual: [rows, columns], float32 or, if its scale was given, uint8; given if and only
                if it was prepared for.
            out: Where to write, [rows, columns]; it must not share memory with x or residual.

        Returns:
            [rows, columns], float32 or, for requantized products, uint8.

        Raises:
            InvalidOperand: An array does not fit; nothing was written.
        """
        workload = self.workload
        x = check("x", x, self._x_dtype, (None, workload.depth))
        shape = (x.shape[0], workload.columns)
        if workload.residual != (residual is not None):
            wanted = "needs a" if workload.residual else "was prepared without a"
            raise InvalidOperand(f"This product {wanted} residual.")
        if residual is not None:
            residual = check("residual", residual, self._residual_dtype, shape)
        if out is None:
            out = aligned_empty(shape, self._out_dtype)
        else:
            out = check_output(out, self._out_dtype, shape, (("x", x), ("residual", residual)))
        self._run(self._words_of(x), out, residual)
        return out

    def _run(self, x: NDArray[Any], out: NDArray[Any], residual: NDArray[Any] | None) -> None:
        rows = out.shape[0]
        kernel = self._exact.get(rows) or self._for_any_rows(few=rows < FEW_ROWS)
        bias, scale, quantization = self._places
        arguments = _pack_words(
            address(x),
            kernel.weights,
            address(out),
            bias,
            0 if residual is None else address(residual),
            scale,
            quantization,
            rows,
        )
        least = ROW_WORTH_SHARING if rows == 1 else WORTH_SHARING
        share = rows * self._work_per_row >= least
        pool = shared(self._threads)
        pool.run(kernel.address, arguments, pool.chunks if share else 1)

    def _words_of(self, x: NDArray[Any]) -> NDArray[Any]:
        """X as the kernel reads it: bfloat16 bits where asked for, rows of whole 32-bit words."""
        if self.workload.dtype == "bf16":
            x = round_to_bf16(x)
        group = 4 // x.dtype.itemsize
        spare = -self.workload.depth % group
        return np.pad(x, ((0, 0), (0, spare))) if spare else x

    def _for_any_rows(self, *, few: bool) -> _Kernel:
        """The kernel for row counts that have none of their own."""
        found = self._general.get(few)
        if found is None:
            like = self.workload.for_rows(4) if few else self.workload
            schedule = choose(like, self._target, self._threads).schedule
            found = self._general[few] = self._bind(self.workload, schedule)
        return found

    def _bind(self, workload: Dense, schedule: Schedule) -> _Kernel:
        width = schedule.vectors * self._target.lanes
        if width not in self._packed:
            self._packed[width] = pack_weights(self._w, width, workload.dtype)
        code = dense_kernel(workload, schedule, self._target).address
        return _Kernel(code, address(self._packed[width]))


def dense_kernel(workload: Dense, schedule: Schedule, target: Target) -> Loaded:
    """Returns a dense kernel, compiling it if no cache has it."""
    return load(
        workload.key,
        (workload, schedule),
        lambda: dense_module(workload, schedule, target),
        target,
    )


def dense(
    x: NDArray[np.float32],
    w: NDArray[np.float32],
    bias: NDArray[np.float32] | None = None,
    activation: str | None = None,
    out: NDArray[np.float32] | None = None,
    *,
    residual: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Returns activation(x @ w + bias + residual).

    Weights that stay are better prepared once, with `prepare_dense`: here they are packed at every
    call, and the first call with weights of a new shape compiles.

    Args:
        x: float32 [rows, depth], contiguous.
        w: float32 [depth, columns], contiguous.
        bias: float32 [columns].
        activation: One of `workload.ACTIVATION_NAMES`, or None.
        out: Where to write, float32 [rows, columns]; it must not share memory with an input.
        residual: float32 [rows, columns], added before the activation.

    Raises:
        InvalidOperand: An array does not fit; nothing was written.
    """
    x = check("x", x, np.float32, (None, None))
    w = check("w", w, np.float32, (x.shape[1], None))
    if out is not None:
        inputs = (("w", w), ("bias", bias))
        check_output(out, np.float32, (x.shape[0], w.shape[1]), inputs)
    workload = Dense(
        rows=0,
        columns=w.shape[1],
        depth=w.shape[0],
        bias=bias is not None,
        residual=residual is not None,
        activation=activation or "",
    )
    if bias is not None:
        bias = check("bias", bias, np.float32, (w.shape[1],))
    prepared = PreparedDense(workload, w, float_constants(bias, w.shape[1]), (), at_once=False)
    return prepared(x, residual=residual, out=out)


def prepare_dense(
    w: NDArray[np.float32],
    bias: NDArray[np.float32] | None = None,
    activation: str | None = None,
    *,
    residual: bool = False,
    dtype: str = "fp32",
    rows: Iterable[int] = (),
) -> PreparedDense:
    """Packs weights and compiles kernels, so that `prepare_dense(w)(x)` only computes.

    Args:
        w: float32 [depth, columns], contiguous. It is copied.
        bias: float32 [columns].
        activation: One of `workload.ACTIVATION_NAMES`, or None.
        residual: Whether calls will give a residual.
        dtype: "fp32", or "bf16" to round x and w to bfloat16 and add in fp32.
        rows: Numbers of rows to make kernels of their own for.

    Raises:
        InvalidOperand: An array does not fit, or there is no such activation or dtype.
    """
    w = check("w", w, np.float32, (None, None))
    depth, columns = w.shape
    if bias is not None:
        bias = check("bias", bias, np.float32, (columns,))
    if dtype not in {"fp32", "bf16"}:
        raise InvalidOperand(
            f"Float weights cannot be prepared as {dtype!r}.",
            cure="Use fp32 or bf16, or prepare_dense_int8 for quantized weights.",
        )
    workload = Dense(
        rows=0,
        columns=columns,
        depth=depth,
        dtype=dtype,
        bias=bias is not None,
        residual=residual,
        activation=activation or "",
    )
    kept = to_bf16(w) if dtype == "bf16" else w.copy()
    return PreparedDense(workload, kept, float_constants(bias, columns), rows)


def prepare_dense_int8(
    w: NDArray[np.int8],
    quantization: Quantization,
    bias: NDArray[np.float32] | None = None,
    activation: str | None = None,
    *,
    residual: bool = False,
    rows: Iterable[int] = (),
) -> PreparedDense:
    """Packs quantized weights: uint8 x, int8 w, exact 32-bit sums, the scales fused into the end.

    Args:
        w: int8 [depth, columns], contiguous. It is copied.
        quantization: How levels stand for real numbers, and whether result and residual are
            quantized.
        bias: float32 [columns], in real numbers.
        activation: One of `workload.ACTIVATION_NAMES`, or None.
        residual: Whether calls will give a residual.
        rows: Numbers of rows to make kernels of their own for.

    Raises:
        InvalidOperand: An array or a scale does not fit.
    """
    w = check("w", w, np.int8, (None, None))
    depth, columns = w.shape
    if bias is not None:
        bias = check("bias", bias, np.float32, (columns,))
    workload = Dense(
        rows=0,
        columns=columns,
        depth=depth,
        dtype="int8",
        output=quantization.output,
        bias=True,
        residual=residual,
        residual_dtype=quantization.residual_dtype,
        rounded=quantization.rounded,
        activation=activation or "",
    )
    constants = int8_constants(quantization, w, bias, residual=residual)
    return PreparedDense(workload, w.copy(), constants, rows)
