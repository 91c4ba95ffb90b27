"""Readers of sums and products of two values: biases, residuals, scales."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from adlik_kernels.plans.graph import (
    PRODUCTS,
    Node,
    Operator,
    UnsupportedGraph,
    Value,
    as_float,
)
from adlik_kernels.plans.reader import Reader
from adlik_kernels.plans.readers import activations, attention, levels, normalization


def add(reader: Reader, node: Node) -> None:
    """Add: a bias, another branch, or a part of a larger operator."""
    for special in (
        normalization.shifted,
        normalization.stabilised,
        activations.gelu_sum,
        attention.masked,
        levels.add,
    ):
        if special(reader, node):
            return
    for place in (0, 1):
        if reader.constant(node.inputs[place]) is not None:
            _add_constant(reader, node, place)
            return
    left, right = (reader.real(name) for name in node.inputs)
    ranks = {reader.rank(name) for name in node.inputs}
    if reader.values[left] != reader.values[right] or left == right or len(ranks) != 1:
        raise UnsupportedGraph("A plan adds two values of one shape.")
    for base, other in ((right, left), (left, right)):
        before = reader.only_maker(base)
        if before is not None and before.takes_residual:
            fused = replace(before, inputs=(before.inputs[0], other))
            reader.remake(before, fused, node.outputs[0])
            return
    reader.emit(Operator("sum", (left, right), node.outputs[0]), reader.values[left])


def _add_constant(reader: Reader, node: Node, place: int) -> None:
    """A bias, wherever it comes: behind a product it joins, anywhere else it is refused."""
    value, source = reader.needed(node.inputs[place]), reader.real(node.inputs[1 - place])
    before = reader.only_maker(source)
    if before is None or before.kind not in {*PRODUCTS, "depthwise"} or before.activation:
        raise UnsupportedGraph("A plan adds a constant to a product, as its bias, only.")
    columns = reader.values[source].columns
    if value.ndim > max(reader.rank(node.inputs[1 - place]), 1) or value.dtype != np.float32:
        raise UnsupportedGraph("A bias has no more axes than what it is added to.")
    is_row = value.size == columns and value.shape[-1:] == (columns,)
    if reader.values[source].is_picture:
        is_row = value.size == columns and value.shape[-3:] == (columns, 1, 1)
    if len(before.inputs) > 1 or not (is_row or value.size == 1):
        raise UnsupportedGraph("A bias has a number for each column.")
    bias = np.broadcast_to(value.reshape(-1), (columns,))
    total = bias if before.bias is None else before.bias + bias
    reader.remake(before, replace(before, bias=as_float(total)), node.outputs[0])


def multiply(reader: Reader, node: Node) -> None:
    """Mul: a gate, a scale, or a part of a larger operator."""
    for special in (normalization.scaled, activations.gelu_product, attention.scaled):
        if special(reader, node):
            return
    for place in (0, 1):
        factor = reader.number(node.inputs[place])
        if factor is not None:
            x = reader.real(node.inputs[1 - place])
            reader.look(node, "scaled", (x,), factor=factor)
            return
    if activations.silu(reader, node):
        return
    _gate(reader, node)


def _gate(reader: Reader, node: Node) -> None:
    """A picture times a number for each of its channels (squeeze and excitation)."""
    left, right = (reader.real(name) for name in node.inputs)
    for x, gate in ((left, right), (right, left)):
        shape, channels = reader.values[x].shape, reader.values[x].columns
        if len(shape) == 3 and reader.values[gate].shape == (1, 1, channels) and x != gate:
            reader.emit(Operator("scale", (x, gate), node.outputs[0]), Value(shape))
            return
    raise UnsupportedGraph("A plan multiplies with a number a channel, or x with sigmoid(x).")


def divide(reader: Reader, node: Node) -> None:
    """Div by a number, or as a part of a larger operator."""
    if normalization.normalized(reader, node):
        return
    divisor = reader.number(node.inputs[1])
    if divisor is None or divisor == 0 or not math.isfinite(divisor):
        raise UnsupportedGraph("A plan divides by constant numbers only.")
    if attention.scale_by(reader, node, node.inputs[0], 1 / divisor):
        return
    x = reader.real(node.inputs[0])
    reader.look(node, "scaled", (x,), factor=1 / divisor)
