"""Activations at the end of templates that have many vectors in hand."""

from __future__ import annotations

from llvmlite import ir

from adlik_kernels.codegen.emit import Emitter, Value
from adlik_kernels.codegen.ukernel import INLINE
from adlik_kernels.codegen.vectormath import ACTIVATIONS


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
