"""Activations on float vectors, written with LLVM's vectors alone, without a vendor's library.

exp follows Cephes (S. Moshier); erf is formula 7.1.26 of Abramowitz and Stegun, absolute error
below 2e-7.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from adlik_kernels.codegen.emit import F32, I32, Emitter, Value, splat_constant, vector
from adlik_kernels.codegen.isa import multiply_add

_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5)
_POWER = (
    *(1.3264724059187441e-3, 9.671512865200618e-3, 5.550733753675434e-2),
    *(2.4022242080458e-1, 6.931469775919243e-1, 1.0),
)
"""2 ** r for -0.5 <= r <= 0.5, relative error below 1e-7; fitted for this library."""

_ROUNDER = 1.5 * 2.0**23 + 127
"""Added to a float of moderate size, it leaves the nearest integer, plus 127, in the low bits."""

_ERF = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)


def constant(like: Value, value: float) -> Value:
    """Returns a constant vector of the same type as another."""
    return splat_constant(F32, like.type.count, value)


def maximum(e: Emitter, x: Value, floor: float) -> Value:
    """Returns max(x, floor); NaN stays NaN, as in numpy."""
    limit = constant(x, floor)
    return e.builder.select(e.builder.fcmp_ordered("<", x, limit), limit, x)


def minimum(e: Emitter, x: Value, ceiling: float) -> Value:
    """Returns min(x, ceiling); NaN stays NaN, as in numpy."""
    limit = constant(x, ceiling)
    return e.builder.select(e.builder.fcmp_ordered(">", x, limit), limit, x)


def exponential(e: Emitter, x: Value) -> Value:
    """Returns exp(x), relative error below 2e-7; exp(-87) below -87, infinity above 88."""
    b = e.builder
    overflow = b.fcmp_ordered(">", x, constant(x, 88.0))
    x = minimum(e, maximum(e, x, -87.0), 88.0)
    rounded = b.fadd(b.fmul(x, constant(x, 1.44269504088896341)), constant(x, _ROUNDER))
    power = b.fsub(rounded, constant(x, _ROUNDER))
    rest = multiply_add(e, power, constant(x, -0.693359375), x)
    rest = multiply_add(e, power, constant(x, 2.12194440e-4), rest)
    series = constant(x, _EXP[0])
    for coefficient in _EXP[1:]:
        series = multiply_add(e, series, rest, constant(x, coefficient))
    square = b.fmul(rest, rest)
    near = multiply_add(e, series, square, b.fadd(rest, constant(x, 1.0)))
    # The scale of a NaN means nothing, but `near` is NaN too and carries it to the result.
    value = b.fmul(near, _power_of_two(e, rounded))
    return b.select(overflow, constant(x, float("inf")), value)


def decay(e: Emitter, x: Value, *, fused: bool = True) -> Value:
    """Returns exp(x) for x <= 0, relative error below 4e-7; 0 below -87. NaN stays NaN.

    It takes half the instructions of `exponential`: a softmax never asks for more.

    Args:
        e: Where to write.
        x: A float vector, no lane above 0.
        fused: Whether the CPU multiplies and adds in one instruction.
    """
    b = e.builder
    vanished = b.fcmp_ordered("<", x, constant(x, -87.0))
    scaled = b.fmul(x, constant(x, 1.44269504088896341))
    rounded = b.fadd(scaled, constant(x, _ROUNDER))
    rest = b.fsub(scaled, b.fsub(rounded, constant(x, _ROUNDER)))
    series = constant(x, _POWER[0])
    for coefficient in _POWER[1:]:
        series = multiply_add(e, series, rest, constant(x, coefficient), fused=fused)
    value = b.fmul(series, _power_of_two(e, rounded))
    return b.select(vanished, constant(x, 0.0), value)


def sigmoid(e: Emitter, x: Value) -> Value:
    """Returns 1 / (1 + exp(-x))."""
    one = constant(x, 1.0)
    return e.builder.fdiv(one, e.builder.fadd(one, exponential(e, _negated(e, x))))


def tanh(e: Emitter, x: Value) -> Value:
    """Returns the hyperbolic tangent as 2 sigmoid(2 x) - 1; absolute error below 3e-7."""
    doubled = sigmoid(e, e.builder.fadd(x, x))
    return e.builder.fsub(e.builder.fadd(doubled, doubled), constant(x, 1.0))


def erf(e: Emitter, x: Value) -> Value:
    """Returns the error function."""
    integers, floats = vector(I32, x.type.count), x.type
    bits = e.builder.bitcast(x, integers)
    sign = e.builder.and_(bits, splat_constant(I32, x.type.count, 0x80000000))
    positive = e.builder.bitcast(
        e.builder.and_(bits, splat_constant(I32, x.type.count, 0x7FFFFFFF)), floats
    )
    one = constant(x, 1.0)
    t = e.builder.fdiv(one, multiply_add(e, positive, constant(x, 0.3275911), one))
    series = constant(x, _ERF[0])
    for coefficient in _ERF[1:]:
        series = multiply_add(e, series, t, constant(x, coefficient))
    rest = decay(e, _negated(e, e.builder.fmul(positive, positive)))
    value = e.builder.fsub(one, e.builder.fmul(e.builder.fmul(series, t), rest))
    return e.builder.bitcast(e.builder.or_(e.builder.bitcast(value, integers), sign), floats)


def gelu(e: Emitter, x: Value) -> Value:
    """Returns x Φ(x), with the error function (not the tanh approximation)."""
    half = e.builder.fmul(x, constant(x, 0.5))
    scaled = e.builder.fmul(x, constant(x, 0.70710678118654752))
    return e.builder.fmul(half, e.builder.fadd(erf(e, scaled), constant(x, 1.0)))


def _power_of_two(e: Emitter, rounded: Value) -> Value:
    """2 to the integer that `_ROUNDER` left: shifted to where a float has its exponent."""
    lanes = rounded.type.count
    bits = e.builder.bitcast(rounded, vector(I32, lanes))
    return e.builder.bitcast(e.builder.shl(bits, splat_constant(I32, lanes, 23)), rounded.type)


def _negated(e: Emitter, x: Value) -> Value:
    return e.builder.fsub(ir.Constant(x.type, [-0.0] * x.type.count), x)


def _silu(e: Emitter, x: Value) -> Value:
    return e.builder.fmul(x, sigmoid(e, x))


def _hardswish(e: Emitter, x: Value) -> Value:
    gate = minimum(e, maximum(e, e.builder.fadd(x, constant(x, 3.0)), 0.0), 6.0)
    return e.builder.fmul(e.builder.fmul(x, gate), constant(x, 1.0 / 6.0))


ACTIVATIONS: dict[str, Callable[[Emitter, Value], Value]] = {
    "relu": lambda e, x: maximum(e, x, 0.0),
    "relu6": lambda e, x: minimum(e, maximum(e, x, 0.0), 6.0),
    "sigmoid": sigmoid,
    "tanh": tanh,
    "silu": _silu,
    "hardswish": _hardswish,
    "gelu": gelu,
}
"""Activations that an operator can fuse, by name."""
