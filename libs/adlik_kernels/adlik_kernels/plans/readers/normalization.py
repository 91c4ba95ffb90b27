"""Readers of layer normalisation (Ba, Kiros and Hinton, 2016), in one node or written out.

Written out it is (x - mean(x)) / sqrt(mean((x - mean(x))²) + epsilon) * scale + bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from adlik_kernels.plans.graph import Node, Operator, UnsupportedGraph, as_float
from adlik_kernels.plans.reader import Reader, View


def layer_norm(reader: Reader, node: Node) -> None:
    """LayerNormalization over the last axis."""
    x = reader.real(node.inputs[0])
    value = reader.values[x]
    axis = node.attributes.get("axis", -1)
    if value.is_picture or axis not in {-1, len(value.shape)} or any(node.outputs[1:]):
        raise UnsupportedGraph("A plan normalises over the last axis only.")
    scale = reader.needed(node.inputs[1])
    bias = reader.needed(node.inputs[2]) if node.input(2) else np.zeros_like(scale)
    epsilon = node.attributes.get("epsilon", 1e-5)
    if scale.shape != (value.columns,) or bias.shape != (value.columns,):
        raise UnsupportedGraph("A layer normalisation needs numbers for each column.")
    operator = Operator(
        "norm", (x,), node.outputs[0], w=as_float(scale), bias=as_float(bias), epsilon=epsilon
    )
    reader.emit(operator, value)


def mean(reader: Reader, node: Node, axes: Sequence[int]) -> bool:
    """Reads both means of a layer normalisation; returns whether this is one."""
    squares = reader.view(node.inputs[0], "squares")
    keeps = bool(node.attributes.get("keepdims", 1))
    if squares is not None:
        rank = len(reader.values[squares.sources[0]].shape)
        if list(axes) not in ([-1], [rank]) or not keeps:
            raise UnsupportedGraph("A plan normalises over the last axis only.", squares.nodes)
        reader.look(node, "variance", squares.sources, squares)
        return True
    x = reader.name(node.inputs[0])
    value = reader.values.get(x)
    if value is None or value.is_picture or list(axes) not in ([-1], [len(value.shape)]):
        return False
    if not keeps:
        raise UnsupportedGraph("A plan knows a mean over columns in layer normalisation only.")
    reader.look(node, "mean", (x,))
    return True


def subtract(reader: Reader, node: Node) -> None:
    """Sub: x - mean(x)."""
    average, x = reader.view(node.inputs[1], "mean"), reader.name(node.inputs[0])
    if average is None or average.sources != (x,):
        raise UnsupportedGraph(
            "A plan subtracts in layer normalisation only.", _seen(average, node)
        )
    reader.look(node, "centred", (x,), average)


def power(reader: Reader, node: Node) -> None:
    """Pow: (x - mean(x))²."""
    centred = reader.view(node.inputs[0], "centred")
    if centred is None or reader.number(node.inputs[1]) != 2.0:
        raise UnsupportedGraph("A plan squares in layer normalisation only.", _seen(centred, node))
    reader.look(node, "squares", centred.sources, centred)


def stabilised(reader: Reader, node: Node) -> bool:
    """Reads variance + epsilon; returns whether this is it."""
    for place in (0, 1):
        variance = reader.view(node.inputs[place], "variance")
        epsilon = reader.number(node.inputs[1 - place])
        if variance is not None and epsilon is not None:
            reader.look(node, "stabilised", variance.sources, variance, epsilon=epsilon)
            return True
    return False


def root(reader: Reader, node: Node) -> None:
    """Sqrt of variance + epsilon."""
    below = reader.view(node.inputs[0], "stabilised")
    if below is None:
        raise UnsupportedGraph("A plan takes roots in layer normalisation only.")
    reader.look(node, "deviation", below.sources, below, epsilon=below.facts["epsilon"])


def normalized(reader: Reader, node: Node) -> bool:
    """Reads (x - mean(x)) / deviation; returns whether this is it."""
    above, below = (
        reader.view(name, kind)
        for name, kind in zip(node.inputs, ("centred", "deviation"), strict=True)
    )
    if above is None or below is None or above.sources != below.sources:
        return False
    (x,) = above.sources
    value = reader.values[x]
    operator = Operator(
        "norm",
        (x,),
        node.outputs[0],
        w=np.ones(value.columns, np.float32),
        bias=np.zeros(value.columns, np.float32),
        epsilon=below.facts["epsilon"],
    )
    # mean and both differences have read x; from here on it has one reader.
    reader.uses[x] = max(reader.uses[x] - 1, 1)
    reader.emit(operator, value)
    return True


def scaled(reader: Reader, node: Node) -> bool:
    """Reads the scale behind a normalisation; returns whether this is it."""
    found = _behind_norm(reader, node)
    if found is None:
        return False
    before, constant = found
    assert before.w is not None
    assert before.bias is not None
    after = replace(before, w=as_float(before.w * constant), bias=as_float(before.bias * constant))
    reader.remake(before, after, node.outputs[0])
    return True


def shifted(reader: Reader, node: Node) -> bool:
    """Reads the bias behind a normalisation; returns whether this is it."""
    found = _behind_norm(reader, node)
    if found is None:
        return False
    before, constant = found
    assert before.bias is not None
    reader.remake(before, replace(before, bias=as_float(before.bias + constant)), node.outputs[0])
    return True


def _behind_norm(reader: Reader, node: Node) -> tuple[Operator, np.ndarray] | None:
    for place in (0, 1):
        constant = reader.constant(node.inputs[place])
        source = reader.name(node.inputs[1 - place])
        before = reader.only_maker(source)
        if constant is None or before is None or before.kind != "norm":
            continue
        if constant.shape == (reader.values[source].columns,):
            return before, constant
    return None


def _seen(view: View | None, node: Node) -> tuple[int, ...]:
    return (*(view.nodes if view else ()), node.number)
