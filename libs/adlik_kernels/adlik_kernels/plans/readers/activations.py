"""Readers of activations: named ones, and those that exporters write out."""

from __future__ import annotations

import math
from dataclasses import replace

from adlik_kernels.plans.graph import Node, Operator, UnsupportedGraph
from adlik_kernels.plans.reader import Reader
from adlik_kernels.plans.readers import levels

_NAMES = {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "HardSwish": "hardswish",
}
ACTIVE = ("conv", "depthwise", "transposed", "dense", "sum")
"""Operators that an activation behind them joins."""


def plain(reader: Reader, node: Node) -> None:
    """Relu, Sigmoid, Tanh, HardSwish."""
    activate(reader, node, _NAMES[node.kind])


def gelu(reader: Reader, node: Node) -> None:
    """Gelu with the error function."""
    if node.attributes.get("approximate", b"none") != b"none":
        raise UnsupportedGraph("A plan knows Gelu with the error function, not with tanh.")
    activate(reader, node, "gelu")


def clip(reader: Reader, node: Node) -> None:
    """Clip to 0..6 or from 0 on."""
    low, high = node.attributes.get("min"), node.attributes.get("max")
    if node.input(1):
        low = reader.needed(node.inputs[1]).reshape(-1)[0]
    if node.input(2):
        high = reader.needed(node.inputs[2]).reshape(-1)[0]
    if low != 0 or not (high is None or high == 6 or high > 1e30):
        raise UnsupportedGraph(f"A plan knows no clipping to {low}..{high}.")
    activate(reader, node, "relu6" if high == 6 else "relu")


def activate(reader: Reader, node: Node, activation: str) -> None:
    """Lets an activation join the operator before it, or stand alone."""
    if levels.activate(reader, node, activation):
        return
    apply(reader, reader.real(node.inputs[0]), node.outputs[0], activation)


def apply(reader: Reader, source: str, output: str, activation: str) -> None:
    """The same for a real value and a name of the result."""
    before = reader.only_maker(source)
    if before is not None and before.kind in ACTIVE and not before.activation:
        reader.remake(before, replace(before, activation=activation), output)
        return
    value = reader.values[source]
    reader.emit(Operator("map", (source,), output, activation=activation), value)


def erf(reader: Reader, node: Node) -> None:
    """Reads the error function in the middle of a GELU that is written out."""
    scaled = reader.view(node.inputs[0], "scaled")
    if scaled is None or not math.isclose(scaled.facts["factor"], 1 / math.sqrt(2), rel_tol=1e-4):
        raise UnsupportedGraph("A plan knows erf as a part of GELU only.", behind(reader, node))
    reader.look(node, "erf", scaled.sources, scaled)


def behind(reader: Reader, node: Node) -> tuple[int, ...]:
    """Returns the numbers of a node and of those that made the views it reads."""
    views = [reader.views.get(reader.name(name)) for name in node.inputs]
    return (*(n for view in views if view is not None for n in view.nodes), node.number)


def gelu_sum(reader: Reader, node: Node) -> bool:
    """Reads 1 + erf(x / sqrt(2)); returns whether this is it."""
    for place in (0, 1):
        view = reader.view(node.inputs[place], "erf")
        if view is not None and reader.number(node.inputs[1 - place]) == 1.0:
            reader.look(node, "gelu gate", view.sources, view)
            return True
    return False


def gelu_product(reader: Reader, node: Node) -> bool:
    """Reads the products of a GELU; returns whether this is one."""
    for place in (0, 1):
        this, other = node.inputs[place], node.inputs[1 - place]
        gate, factor = reader.view(this, "gelu gate"), reader.number(other)
        if gate is not None:
            half = reader.view(other, "scaled")
            x = gate.sources[0]
            if half is not None and half.sources == (x,) and half.facts["factor"] == 0.5:
                reader.uses[x] -= 1
                apply(reader, x, node.outputs[0], "gelu")
                return True
            if reader.name(other) == x:
                reader.look(node, "double gelu", (x,), gate)
                return True
        doubled = reader.view(this, "double gelu")
        if doubled is not None and factor == 0.5:
            reader.uses[doubled.sources[0]] -= 1
            apply(reader, doubled.sources[0], node.outputs[0], "gelu")
            return True
    return False


def silu(reader: Reader, node: Node) -> bool:
    """Reads x * sigmoid(x); returns whether this is it."""
    left, right = (reader.name(name) for name in node.inputs)
    for x, gate in ((left, right), (right, left)):
        made = reader.only_maker(gate)
        alone = made is not None and made.kind == "map" and made.inputs == (x,)
        if made is not None and alone and made.activation == "sigmoid":
            del reader.made[gate]
            del reader.values[gate]
            reader.uses[x] -= 1
            apply(reader, x, node.outputs[0], "silu")
            return True
    return False
