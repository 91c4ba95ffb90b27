"""Readers of quantized models: QuantizeLinear and DequantizeLinear around operators.

A dequantized value is a view of its levels: convolutions and products with quantized weights read
the levels themselves, and a QuantizeLinear behind such an operator becomes its requantization.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from adlik_kernels.plans.graph import (
    Array,
    Levels,
    Node,
    Operator,
    UnsupportedGraph,
    Value,
    as_float,
)
from adlik_kernels.plans.reader import LEVEL_TYPES, Reader, View

WORD = 4
"""Levels along k that kernels read at once."""

SIGNED = np.uint8(128)
"""What is added to signed levels of activations, which kernels read unsigned."""


def dequantize(reader: Reader, node: Node) -> None:
    """DequantizeLinear of weights, or of levels that this plan has made."""
    constant = reader.constant(node.inputs[0])
    if constant is not None:
        scale, zero = reader.needed(node.inputs[1]), _zeros(reader, node)
        if scale.dtype != np.float32:
            raise UnsupportedGraph(f"A plan knows no scales of {scale.dtype}.")
        is_shifted = constant.dtype == np.int8 and np.any(zero != 0)
        if node.attributes.get("block_size", 0) or is_shifted:
            raise UnsupportedGraph("A plan knows weights whose level 0 is 0.")
        axis = node.attributes.get("axis", 1)
        reader.look(node, "weights", (), array=constant, scale=scale, axis=axis, zero=zero)
        return
    levels = _levels(reader, node)
    source = reader.name(node.inputs[0])
    if source not in reader.values or reader.values[source].levels != levels:
        raise UnsupportedGraph("A plan dequantizes what it has quantized only.")
    reader.look(node, "levels apart" if levels.apart else "levels", (source,))


def quantize(reader: Reader, node: Node) -> None:
    """QuantizeLinear of what a plan has computed."""
    levels, output = _levels(reader, node), node.outputs[0]
    again = reader.view(node.inputs[0], "levels", "levels apart")
    if again is not None and reader.values[again.sources[0]].levels == levels:
        reader.rename(output, again.sources[0])
        return
    mean = reader.view(node.inputs[0], "level mean")
    if mean is not None and not levels.apart:
        operator = replace(mean.facts["operator"], output=output)
        reader.emit(operator, Value(mean.facts["shape"], levels))
        return
    joined = reader.view(node.inputs[0], "level sum")
    if joined is not None and not levels.apart:
        value = reader.values[joined.sources[0]]
        operator = Operator("sum", joined.sources, output, activation=joined.facts["activation"])
        reader.emit(operator, Value(value.shape, levels))
        return
    source = reader.real(node.inputs[0])
    value, before = reader.values[source], reader.only_maker(source)
    if levels.apart and (not value.is_picture or len(levels.apart) != value.columns):
        raise UnsupportedGraph("A plan knows scales of channels of pictures only.")
    if levels.apart and before is not None:
        before = _with_limits(before, levels)
    if before is not None and before.w_scale is not None:
        before = _with_counted_bias(reader, before)
        reader.remake(before, before, output, Value(value.shape, levels))
        return
    reader.emit(Operator("quantize", (source,), output), Value(value.shape, levels))


def _with_limits(before: Operator, levels: Levels) -> Operator | None:
    """An operator whose requantization to a scale a channel is one multiplication; None otherwise.

    Level 0 stands for the ReLU and level 255 for its other limit, if no channel reaches further.
    """
    if before.kind not in {"conv", "depthwise"} or len(before.inputs) > 1:
        return None
    starts = not any(levels.zeros)
    ends = max(levels.scales) * 255 <= 6 * (1 + 1e-4)
    if before.activation == "relu6" and starts and ends:
        return replace(before, activation="relu")
    return before if not before.activation or (before.activation == "relu" and starts) else None


def _with_counted_bias(reader: Reader, before: Operator) -> Operator:
    """A quantized convolution whose bias is a whole number of its sums' steps.

    ONNX Runtime and others count a bias in 32 bits. Only so are levels the same as theirs, each.
    """
    given = reader.values[before.inputs[0]].levels
    fits = before.kind in {"conv", "depthwise"} and given is not None and not given.apart
    if before.bias is None or before.w_scale is None or given is None or not fits:
        return before
    steps = np.float32(given.scale) * before.w_scale
    return replace(before, bias=as_float(np.rint(as_float(before.bias / steps)) * steps))


def operand_apart(reader: Reader, name: str) -> str | None:
    """Returns the name of levels with a scale a channel, None for anything else."""
    view = reader.view(name, "levels apart")
    return view.sources[0] if view is not None else None


def operand(reader: Reader, name: str, *, quantized: bool) -> str:
    """Returns the name of what an operator reads: levels where it can, else floats.

    Args:
        reader: Where from.
        name: The input of the node.
        quantized: Whether the operator can read levels.
    """
    view = reader.view(name, "levels")
    return view.sources[0] if view is not None and quantized else reader.real(name)


def emit_like(reader: Reader, node: Node, operator: Operator, value: Value) -> None:
    """Adds a pooling: the largest levels are levels of the same kind, means may become others."""
    levels = reader.values[operator.inputs[0]].levels
    if levels is None:
        reader.emit(operator, value)
        return
    if operator.kind == "mean":
        reader.look(node, "level mean", operator.inputs, operator=operator, shape=value.shape)
        return
    made = f"{node.outputs[0]}@levels"
    reader.emit(replace(operator, output=made), Value(value.shape, levels))
    reader.views[node.outputs[0]] = View("levels", (made,), (node.number,))


def weights(reader: Reader, name: str, axis: int) -> tuple[Array, Array | None]:
    """Returns weights: int8 and their scale for each filter, or float32 and None.

    Args:
        reader: Where from.
        name: The input of the node.
        axis: Axis of the filters.

    Raises:
        UnsupportedGraph: They are computed.
    """
    view = reader.view(name, "weights")
    if view is None:
        found = reader.needed(name)
        if found.dtype != np.float32:
            raise UnsupportedGraph(f"A plan knows no weights of {found.dtype}.")
        return found, None
    array, scale = view.facts["array"], view.facts["scale"]
    per_filter = scale.size == 1 or view.facts["axis"] % array.ndim == axis
    if array.dtype != np.int8 or not per_filter or scale.size not in {1, array.shape[axis]}:
        raise UnsupportedGraph("A plan knows int8 weights with a scale a filter.", view.nodes)
    wide = np.broadcast_to(as_float(scale).reshape(-1), (array.shape[axis],))
    return array, np.ascontiguousarray(wide)


def bias(reader: Reader, name: str, filters: int, *, is_broadcast: bool = False) -> Array | None:
    """Returns a float32 bias of [filters], None where there is none.

    Args:
        reader: Where from.
        name: The input of the node.
        filters: Numbers that are wanted.
        is_broadcast: Whether one number, or one row, stands for all rows, as in Gemm. A column, one
            number for each row of the result, does not.

    Raises:
        UnsupportedGraph: It is computed, or of another shape.
    """
    if not name:
        return None
    view = reader.view(name, "weights")
    if view is not None:
        scale, zero = view.facts["scale"], view.facts["zero"]
        found = (view.facts["array"].astype(np.float64) - zero) * scale
    else:
        found = reader.needed(name)
    shapes = {(), (1,), (1, 1), (filters,), (1, filters)} if is_broadcast else {(filters,)}
    if found.shape not in shapes or found.dtype not in {np.dtype("f4"), np.dtype("f8")}:
        raise UnsupportedGraph(f"A bias of {found.shape} does not fit {filters} filters.")
    return as_float(np.broadcast_to(found.reshape(-1), (filters,)))


def as_floats(w: Array, w_scale: Array, axis: int) -> Array:
    """Returns int8 weights as the numbers that they stand for."""
    shape = [1] * w.ndim
    shape[axis] = -1
    return as_float(w * w_scale.reshape(shape))


def add(reader: Reader, node: Node) -> bool:
    """Reads a sum whose sides are levels; returns whether this is one.

    A product that nothing else reads takes the other side as its residual. If it is quantized
    itself, as NNCF does with both sides of a sum, it rounds what it has before it adds.
    """
    views = [reader.view(name, "levels") for name in node.inputs]
    for place in (1, 0):
        other, before = views[1 - place], _product_of(reader, node.inputs[place])
        if other is None or before is None:
            continue
        value = reader.values[before.output]
        if value.shape != reader.values[other.sources[0]].shape:
            raise UnsupportedGraph("A plan adds two values of one shape.")
        sides = (before.inputs[0], other.sources[0])
        fused = replace(before, inputs=sides, rounded=value.levels)
        reader.remake(before, fused, node.outputs[0], Value(value.shape))
        return True
    left, right = views
    if left is None or right is None:
        return False
    shapes = [reader.values[view.sources[0]].shape for view in (left, right)]
    if shapes[0] != shapes[1] or left.sources == right.sources:
        raise UnsupportedGraph("A plan adds two values of one shape.")
    reader.look(node, "level sum", (*left.sources, *right.sources), left, right, activation="")
    return True


def _product_of(reader: Reader, name: str) -> Operator | None:
    """Returns the int8 product behind one side of a sum, if only the sum reads it."""
    view = reader.view(name, "levels")
    if view is not None and reader.uses[reader.name(name)] > 1:
        return None
    before = reader.only_maker(view.sources[0] if view is not None else reader.name(name))
    if before is None or before.w_scale is None or not before.takes_residual:
        return None
    return before


def activate(reader: Reader, node: Node, activation: str) -> bool:
    """Lets a ReLU join a sum of levels; returns whether this is one."""
    view = reader.view(node.inputs[0], "level sum")
    if view is None or activation != "relu" or view.facts["activation"]:
        return False
    reader.look(node, "level sum", view.sources, view, activation=activation)
    return True


def floats_of(reader: Reader, source: str) -> str:
    """Returns the name of the numbers that levels stand for, for operators that know no levels."""
    made = f"{source}@floats"
    if made not in reader.values:
        shape = reader.values[source].shape
        reader.emit(Operator("dequantize", (source,), made), Value(shape))
    return made


def _floats(reader: Reader, _name: str, view: View) -> str:
    return floats_of(reader, view.sources[0])


def _summed(reader: Reader, name: str, view: View) -> str:
    """A sum of levels that nobody quantizes: the sum of the numbers."""
    made = f"{name}@floats"
    if made not in reader.values:
        left, right = (floats_of(reader, source) for source in view.sources)
        operator = Operator("sum", (left, right), made, activation=view.facts["activation"])
        reader.emit(operator, reader.values[left])
    return made


def _averaged(reader: Reader, name: str, view: View) -> str:
    """A mean of levels that nobody quantizes: the mean of the numbers."""
    made = f"{name}@floats"
    if made not in reader.values:
        source = floats_of(reader, view.sources[0])
        operator = replace(view.facts["operator"], inputs=(source,), output=made)
        reader.emit(operator, Value(view.facts["shape"]))
    return made


def _scaled(reader: Reader, name: str, view: View) -> str:
    """A value times a number: the number joins the weights of the product that makes it."""
    (x,) = view.sources
    before = reader.only_maker(x)
    if before is None or before.kind not in {"conv", "dense", "norm"} or before.activation:
        raise UnsupportedGraph("A plan multiplies products with numbers only.", view.nodes)
    if before.w is None or before.w_scale is not None or len(before.inputs) > 1:
        raise UnsupportedGraph("A plan multiplies products with numbers only.", view.nodes)
    factor = view.facts["factor"]
    bias = None if before.bias is None else as_float(before.bias * factor)
    del reader.views[name]
    reader.remake(before, replace(before, w=as_float(before.w * factor), bias=bias), name)
    return name


def _levels(reader: Reader, node: Node) -> Levels:
    """The scale and zero of a node, or those of each channel, the zeros as of unsigned levels."""
    scale, zero = reader.needed(node.inputs[1]).reshape(-1), _zeros(reader, node).reshape(-1)
    if scale.dtype != np.float32:
        raise UnsupportedGraph(f"A plan knows no scales of {scale.dtype}.")
    if zero.dtype not in {np.dtype("u1"), np.dtype("i1")} or zero.size not in {1, scale.size}:
        raise UnsupportedGraph("A plan knows 8-bit values only.")
    if not np.all(np.isfinite(scale)) or np.any(scale <= 0):
        raise UnsupportedGraph("A scale is a number above 0.")
    signed = int(SIGNED) if zero.dtype == np.int8 else 0
    zeros = np.broadcast_to(zero.astype(int) + signed, scale.shape)
    pairs = tuple((float(s), int(z)) for s, z in zip(scale, zeros, strict=True))
    if len(pairs) == 1:
        return Levels(*pairs[0])
    if node.attributes.get("axis", 1) != 1 or node.attributes.get("block_size", 0):
        raise UnsupportedGraph("A plan knows scales of channels only.")
    return Levels(1.0, 0, pairs)


def _zeros(reader: Reader, node: Node) -> Array:
    """The level that stands for 0, or that of each channel; of the type of the levels.

    Without one it is 0, and what the levels are says their own type: `output_dtype`, or what a
    DequantizeLinear reads.
    """
    if node.input(2):
        return reader.needed(node.inputs[2])
    levels = node.outputs[0] if node.kind == "QuantizeLinear" else node.inputs[0]
    constant = reader.constant(levels)
    if constant is not None:
        return np.zeros(1, constant.dtype)
    kind = reader.types.get(levels)
    if kind not in LEVEL_TYPES:
        raise UnsupportedGraph("A plan knows 8-bit values only.")
    return np.zeros(1, LEVEL_TYPES[kind])


REALIZERS: dict[str, Callable[[Reader, str, View], str]] = {
    "levels": _floats,
    "levels apart": _floats,
    "level mean": _averaged,
    "level sum": _summed,
    "scaled": _scaled,
}
"""How views become real values after all."""
