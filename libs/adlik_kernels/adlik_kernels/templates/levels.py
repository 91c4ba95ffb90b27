"""Real numbers to quantized levels and back, on vectors of any width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from adlik_kernels.codegen.emit import F32, I8, I32, Emitter, Value, splat, splat_constant, vector

LOWEST = {"uint8": 0, "int8": -128}
"""The lowest level of each quantized type; there are 256."""

_ROUNDING = 12582912.0
"""1.5 · 2²³: a float that has no bits for fractions, so that adding it rounds half to even.

The sum's lowest bits are then the rounded integer: no conversion, and no instruction that a bare
x86-64 lacks.
"""


@dataclass(frozen=True, slots=True)
class Span:
    """The levels of a result, counted from the level that stands for 0.

    Attributes:
        low: Lowest level, a float.
        high: Highest level, a float.
        zero: The level that stands for 0, an i32.
    """

    low: Value
    high: Value
    zero: Value


def span_of(e: Emitter, zero: Value, dtype: str) -> Span:
    """Returns the levels of a type around a zero.

    Args:
        e: Where to write.
        zero: i32, or a vector of them.
        dtype: "uint8" or "int8".
    """
    kind = _like(zero, F32)
    low, high = (
        e.builder.sitofp(e.builder.sub(_number(zero.type, LOWEST[dtype] + more), zero), kind)
        for more in (0, 255)
    )
    return Span(low, high, zero)


def to_levels(e: Emitter, counted: Value, span: Span) -> Value:
    """Returns levels, i8 lanes: rounded half to even and kept in range; NaN gives the lowest.

    Args:
        e: Where to write.
        counted: Floats in steps of one level, 0 for the level zero.
        span: The levels there are.
    """
    b, lanes = e.builder, counted.type.count
    low, high, zero = (fill(e, value, lanes) for value in (span.low, span.high, span.zero))
    kept = b.select(b.fcmp_ordered(">", counted, low), counted, low)
    kept = b.select(b.fcmp_ordered("<", kept, high), kept, high)
    rounded = b.fadd(kept, splat_constant(F32, lanes, _ROUNDING))
    bits = b.bitcast(rounded, vector(I32, lanes))
    return b.trunc(b.add(bits, zero), vector(I8, lanes))


def wide_levels(e: Emitter, levels: Value, dtype: str, element: Any = I32) -> Value:
    """Returns levels as wider integers.

    Args:
        e: Where to write.
        levels: i8 lanes.
        dtype: "uint8" or "int8".
        element: The wider type.
    """
    kind = vector(element, levels.type.count)
    return e.builder.zext(levels, kind) if dtype == "uint8" else e.builder.sext(levels, kind)


def from_levels(e: Emitter, levels: Value, dtype: str, zero: Value, scale: Value) -> Value:
    """Returns scale * (levels - zero) as floats.

    Args:
        e: Where to write.
        levels: i8 lanes.
        dtype: "uint8" or "int8".
        zero: i32, or a vector of them.
        scale: A float, or a vector of them.
    """
    lanes = levels.type.count
    counted = e.builder.sub(wide_levels(e, levels, dtype), fill(e, zero, lanes))
    return e.builder.fmul(e.builder.sitofp(counted, vector(F32, lanes)), fill(e, scale, lanes))


def fill(e: Emitter, value: Value, lanes: int) -> Value:
    """Returns a value on all lanes; vectors pass through."""
    return value if isinstance(value.type, ir.VectorType) else splat(e, value, lanes)


def _like(value: Value, element: Any) -> Any:
    kind = value.type
    return vector(element, kind.count) if isinstance(kind, ir.VectorType) else element


def _number(kind: Any, value: int) -> Any:
    return ir.Constant(kind, [value] * kind.count if isinstance(kind, ir.VectorType) else value)
