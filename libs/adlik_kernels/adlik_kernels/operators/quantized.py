"""Numbers to quantized levels and back, and operators on levels alone."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from adlik_kernels.errors import InvalidOperand
from adlik_kernels.operators.calls import name_of, run
from adlik_kernels.operators.operands import address, check, check_output
from adlik_kernels.templates.levels import LOWEST
from adlik_kernels.templates.quantized import AddQuantized, Dequantize, LookUp, Quantize

_NOTHING = np.zeros(1, np.float32)
_ADD, _LOOK_UP = AddQuantized(None, None, None), LookUp(None, None)


@dataclass(frozen=True, slots=True)
class Levels:
    """How uint8 levels stand for real numbers: real = scale * (level - zero).

    Attributes:
        scale: The real number between two levels.
        zero: The level that stands for 0.
    """

    scale: float
    zero: int

    def __post_init__(self) -> None:
        check_scales(self.scale, self.zero, 1, "uint8")


def quantize(
    x: NDArray[np.float32],
    scale: ArrayLike,
    zero: ArrayLike,
    dtype: str = "uint8",
    axis: int | None = None,
    *,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Returns saturate(round(x / scale) + zero), as ONNX' QuantizeLinear.

    Halves are rounded to even. Infinities saturate, and NaN gives the lowest level.

    Args:
        x: float32 of any shape, contiguous.
        scale: One number, or one for each place along the axis; finite and above 0.
        zero: Levels that stand for 0, one or as many.
        dtype: "uint8" or "int8".
        axis: The axis whose places have scales of their own; None for one scale.
        out: Where to write, shaped like x; it must not share memory with x.

    Raises:
        InvalidOperand: An array or a scale does not fit; nothing was written.
    """
    _check_levels(dtype)
    x = _check_any("x", x, np.float32)
    lines = _Lines.of(x.shape, scale, zero, dtype, axis)
    out = _result(out, dtype, x.shape, (("x", x),))
    lines.run(_workload(Quantize, dtype, lines.each), x, out)
    return out


def dequantize(
    q: NDArray[Any],
    scale: ArrayLike,
    zero: ArrayLike,
    axis: int | None = None,
    *,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Returns scale * (q - zero), as ONNX' DequantizeLinear.

    Args:
        q: uint8 or int8 of any shape, contiguous.
        scale: One number, or one for each place along the axis; finite and above 0.
        zero: Levels that stand for 0, one or as many.
        axis: The axis whose places have scales of their own; None for one scale.
        out: Where to write, float32 shaped like q; it must not share memory with q.

    Raises:
        InvalidOperand: An array or a scale does not fit; nothing was written.
    """
    dtype = name_of(q)
    _check_levels(dtype)
    q = _check_any("q", q, dtype)
    lines = _Lines.of(q.shape, scale, zero, dtype, axis)
    out = _result(out, "float32", q.shape, (("q", q),))
    lines.run(_workload(Dequantize, dtype, lines.each), q, out)
    return out


def add_quantized(
    x: NDArray[np.uint8],
    y: NDArray[np.uint8],
    levels: tuple[Levels, Levels, Levels],
    *,
    relu: bool = False,
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Returns the sum of two quantized arrays, requantized.

    The sum is computed in float32, so a result that lies between two levels may be rounded to
    either.

    Args:
        x: uint8 of any shape, contiguous.
        y: uint8, shaped like x.
        levels: What the levels of x, of y and of the result stand for.
        relu: Whether sums below 0 become 0.
        out: Where to write, shaped like x; it must not share memory with x or y.

    Raises:
        InvalidOperand: An array does not fit; nothing was written.
    """
    x = _check_any("x", x, np.uint8)
    y = check("y", y, np.uint8, x.shape)
    scales, zeros = _sum_constants(*levels, relu=relu)
    out = _result(out, "uint8", x.shape, (("x", x), ("y", y)))
    _Lines("array", 1, x.size, scales, zeros).run(_ADD, x, out, y)
    return out


@functools.lru_cache(maxsize=4096)
def _sum_constants(
    x: Levels, y: Levels, made: Levels, *, relu: bool
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    scales = np.array([x.scale / made.scale, y.scale / made.scale], np.float32)
    lowest = made.zero if relu else 0
    return scales, np.array([x.zero, y.zero, made.zero, lowest], np.int32)


def look_up(
    x: NDArray[np.uint8], table: NDArray[np.uint8], *, out: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """Returns table[x]: any function of quantized numbers, such as an activation.

    Args:
        x: uint8 of any shape, contiguous.
        table: uint8 [256], contiguous.
        out: Where to write, shaped like x; it must not share memory with x or the table.

    Raises:
        InvalidOperand: An array does not fit; nothing was written.
    """
    x = _check_any("x", x, np.uint8)
    table = check("table", table, np.uint8, (256,))
    out = _result(out, "uint8", x.shape, (("x", x), ("table", table)))
    _Lines("array", 1, x.size, _NOTHING, _NOTHING).run(LookUp(None, None), x, out, table)
    return out


def check_scales(
    scale: ArrayLike, zero: ArrayLike, count: int, dtype: str
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Returns scales and zeros as kernels read them.

    Args:
        scale: One number, or `count`.
        zero: One level, or `count`.
        count: How many there are to be.
        dtype: "uint8" or "int8".

    Raises:
        InvalidOperand: Their number does not fit, a scale is no finite number above 0, or a zero is
            no level.
    """
    if count == 1 and isinstance(scale, float | int) and isinstance(zero, int):
        return _one_scale(float(scale), zero, dtype)
    return _some_scales(scale, zero, count, dtype)


@functools.cache
def _workload(kind: type[Quantize | Dequantize], dtype: str, each: str) -> Quantize | Dequantize:
    """What is computed; kept, so that its code is found at once."""
    return kind(None, None, dtype, each)


@functools.lru_cache(maxsize=4096)
def _one_scale(
    scale: float, zero: int, dtype: str
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Constants of arrays with one scale, kept: making them takes longer than a small array."""
    return _some_scales(scale, zero, 1, dtype)


def _some_scales(
    scale: ArrayLike, zero: ArrayLike, count: int, dtype: str
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    scales, zeros = np.asarray(scale, np.float64), np.asarray(zero)
    for name, values in (("scale", scales), ("zero", zeros)):
        if values.shape not in {(), (count,)}:
            raise InvalidOperand(
                f"{name} has the shape {values.shape}, expected one number or ({count},)."
            )
    with np.errstate(over="ignore", under="ignore"):
        kept = scales.astype(np.float32)
    if not np.isfinite(kept).all() or (kept <= 0).any():
        raise InvalidOperand("The scales of a quantization are finite numbers above 0.")
    low = LOWEST[dtype]
    if zeros.dtype.kind not in "iu" or (zeros < low).any() or (zeros > low + 255).any():
        raise InvalidOperand(f"The zero of a quantization is a level from {low} to {low + 255}.")
    # Copies: the address of an array that may not be written takes long to find.
    return np.array(np.broadcast_to(kept, (count,))), np.array(
        np.broadcast_to(zeros, (count,)), np.int32
    )


@dataclass(frozen=True, slots=True)
class _Lines:
    """An array as rows of numbers, with the scales that each has."""

    each: str
    rows: int
    run_length: int
    scales: NDArray[np.float32]
    zeros: NDArray[Any]

    @staticmethod
    def of(
        shape: tuple[int, ...], scale: ArrayLike, zero: ArrayLike, dtype: str, axis: int | None
    ) -> _Lines:
        size = math.prod(shape)
        if axis is None:
            return _Lines("array", 1, size, *check_scales(scale, zero, 1, dtype))
        if not -len(shape) <= axis < len(shape):
            raise InvalidOperand(f"There is no axis {axis} in the shape {shape}.")
        axis %= len(shape)
        count, inner = shape[axis], math.prod(shape[axis + 1 :])
        scales, zeros = check_scales(scale, zero, count, dtype)
        outer = size // (count * inner)
        if inner == 1:
            return _Lines("number", outer, count, scales, zeros)
        return _Lines("row", outer * count, inner, np.tile(scales, outer), np.tile(zeros, outer))

    def run(
        self,
        workload: Quantize | Dequantize | AddQuantized | LookUp,
        x: NDArray[Any],
        out: NDArray[Any],
        second: NDArray[Any] | None = None,
    ) -> None:
        """Runs a kernel."""
        words = (
            address(x),
            address(out),
            0 if second is None else address(second),
            self.rows,
            address(self.scales),
            address(self.zeros),
            self.run_length,
        )
        run(workload, words, x.size)


def _check_levels(dtype: str) -> None:
    if dtype not in LOWEST:
        raise InvalidOperand(
            f"Levels cannot have the dtype {dtype!r}.", cure=f"Use one of {tuple(LOWEST)}."
        )


def _check_any(name: str, array: Any, dtype: Any) -> NDArray[Any]:
    """An array of any shape that a kernel may read."""
    return check(name, array, dtype, (None,) * np.ndim(array))


def _result(
    out: NDArray[Any] | None,
    dtype: str,
    shape: tuple[int, ...],
    inputs: tuple[tuple[str, Any], ...],
) -> NDArray[Any]:
    return np.empty(shape, dtype) if out is None else check_output(out, dtype, shape, inputs)
