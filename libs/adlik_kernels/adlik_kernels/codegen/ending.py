"""What ends a sum in templates that have many vectors in hand: activation, requantization."""

from __future__ import annotations

from llvmlite import ir

from adlik_kernels.codegen.emit import I8, I32, Emitter, Value, vector
from adlik_kernels.codegen.isa import multiply_add
from adlik_kernels.codegen.vectormath import ACTIVATIONS, constant

ROUNDER = 3.0 * 2**22
"""A number whose neighbours are 1 apart, on both sides."""

INLINE = ("relu", "relu6", "hardswish")
"""Activations of a few instructions."""


def activated(e: Emitter, name: str, value: Value) -> Value:
    """Returns activation(value); a long one becomes a function that is called for each vector.

    Args:
        e: Writes the instructions.
        name: One of `workload.ACTIVATION_NAMES`, or "".
        value: A vector of floats.
    """
    if not name:
        return value
    if name in INLINE:
        return ACTIVATIONS[name](e, value)
    function = e.module.globals.get(name)
    if function is None:
        function = ir.Function(e.module, ir.FunctionType(value.type, [value.type]), name)
        function.linkage = "internal"
        function.attributes.add("noinline")
        inner = Emitter(function)
        inner.builder.ret(ACTIVATIONS[name](inner, function.args[0]))
    return e.builder.call(function, [value])


def requantized(e: Emitter, value: Value, levels: tuple[Value, Value], *, fused: bool) -> Value:
    """Returns a vector of floats as uint8 levels, rounded to nearest even; NaN becomes 0.

    Args:
        e: Writes the instructions.
        value: A vector of floats.
        levels: Vectors of the inverse of the scale, and of the level that stands for 0.
        fused: Whether the CPU has fused multiply-adds.
    """
    b, (inverse, zero) = e.builder, levels
    # Added to this number, a level is rounded in the same step, and its byte comes to lie last.
    even = b.fadd(zero, constant(zero, ROUNDER))
    level = multiply_add(e, value, inverse, even, fused=fused)
    for comparison, bound in ((">", 0.0), ("<", 255.0)):
        limit = constant(level, ROUNDER + bound)
        level = b.select(b.fcmp_ordered(comparison, level, limit), level, limit)
    kind = vector(I32, value.type.count)
    return b.trunc(b.bitcast(level, kind), vector(I8, value.type.count))
