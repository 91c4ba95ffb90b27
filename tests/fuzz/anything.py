"""Random nodes on values of any rank: activations, sums of every broadcast, branches."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper

from tests.fuzz.graphs import Graph, Value

RANKS = (4, 4, 3, 2)


def _any(graph: Graph) -> Value | None:
    return graph.pick(graph.draw(*RANKS))


def activation(graph: Graph) -> Value | None:
    value = _any(graph)
    if value is None:
        return None
    kinds = ["Relu", "Relu", "Sigmoid", "Tanh", "Clip", "Clip", "silu", "gelu"]
    kinds += [] if graph.tame else ["Elu", "LeakyRelu"]
    kinds += ["HardSwish"] * (graph.opset >= 14) + ["Gelu"] * (graph.opset >= 20)
    kind = graph.draw(*kinds)
    if kind == "Clip":
        return _clip(graph, value)
    if kind == "silu":
        gate = graph.node("Sigmoid", value.name)
        sides = (value.name, gate) if graph.chance(0.5) else (gate, value.name)
        return graph.put("Mul", value.shape, *sides)
    if kind == "gelu":
        return _gelu(graph, value)
    return graph.put(kind, value.shape, value.name)


def _clip(graph: Graph, value: Value) -> Value:
    low, high = graph.draw((0.0, 6.0), (0.0, None), (-0.5, 0.5), (None, 0.3), (0.0, 1.0))
    if graph.opset < 11:
        facts = {name: bound for name, bound in (("min", low), ("max", high)) if bound is not None}
        return graph.put("Clip", value.shape, value.name, **facts)
    names = ["" if bound is None else graph.constant(np.float32(bound)) for bound in (low, high)]
    while names and not names[-1]:
        names.pop()
    return graph.put("Clip", value.shape, value.name, *names)


def _gelu(graph: Graph, value: Value) -> Value | None:
    """GELU as it is written out, its factors on either side."""
    if graph.opset < 9:
        return None
    one, half = graph.constant(np.float32(1)), graph.constant(np.float32(0.5))
    root = graph.constant(np.float32(np.sqrt(2)))
    error = graph.node("Erf", graph.node("Div", value.name, root))
    gate = graph.node("Add", error, one)
    if graph.chance(0.5):
        product = graph.node("Mul", value.name, gate)
        return graph.put("Mul", value.shape, product, half)
    return graph.put("Mul", value.shape, graph.node("Mul", value.name, half), gate)


def with_constant(graph: Graph) -> Value | None:
    """A sum or product with a constant, broadcast in one of the many ways."""
    value = _any(graph)
    if value is None:
        return None
    form = graph.draw("any", "any", "scalar", "row", "channels", "longer")
    form = graph.draw("scalar", "channels", "row") if graph.tame else form
    shape = _broadcast(graph, value, form)
    array = graph.rng.uniform(0.5, 1.5, shape).astype(np.float32)
    kind = graph.draw("Add", "Add", "Mul", *([] if graph.tame else ["Sub", "Div"]))
    sides = [value.name, graph.constant(array)]
    if graph.chance(0.3):
        sides.reverse()
    if form == "longer":
        names, facts = graph.axes([0], 13)
        return graph.put("Squeeze", value.shape, graph.node(kind, *sides), *names, **facts)
    if kind == "Div" and sides[0] != value.name:
        return None
    return graph.put(kind, value.shape, *sides)


def _broadcast(graph: Graph, value: Value, form: str) -> list[int]:
    """The shape of a constant that meets a value."""
    sizes = [size if isinstance(size, int) else 1 for size in value.shape]
    if form == "scalar":
        return graph.draw([], [1], [1] * len(sizes))
    if form == "row":
        return [sizes[-1]]
    if form == "channels" and value.rank == 4:
        return graph.draw([sizes[1], 1, 1], [1, sizes[1], 1, 1])
    if form == "longer":
        return [1, *[1] * (len(sizes) - 1), sizes[-1]]
    shape = [size if graph.chance(0.5) else 1 for size in sizes]
    while len(shape) > 1 and shape[0] == 1 and graph.chance(0.5):
        shape = shape[1:]
    return shape


def with_other(graph: Graph) -> Value | None:
    """A sum, product or concatenation of two values of one shape, or of a value with itself."""
    value = _any(graph)
    if value is None:
        return None
    other = graph.like(value) or (value if graph.chance(0.3) else None)
    if other is None:
        return None
    kind = "Add" if graph.tame else graph.draw("Add", "Add", "Add", "Mul", "Sub", "Max")
    return graph.put(kind, value.shape, value.name, other.name)


def softmax(graph: Graph) -> Value | None:
    value = _any(graph)
    if value is None:
        return None
    if graph.tame and value.rank == 4:
        return None
    kind = "Softmax" if graph.tame else graph.draw("Softmax", "Softmax", "LogSoftmax")
    facts: dict[str, Any] = {}
    if graph.chance(0.7):
        axis = graph.number(1, value.rank - 1)
        facts = {"axis": axis if graph.opset < 11 or graph.chance(0.5) else axis - value.rank}
    return graph.put(kind, value.shape, value.name, **facts)


def same(graph: Graph) -> Value | None:
    """Identity, a Dropout of its time, or a Cast there and back."""
    value = _any(graph)
    if value is None:
        return None
    kind = graph.draw("Identity", "Dropout", "Dropout", "Cast")
    kind = kind if kind != "Cast" or not graph.tame else "Identity"
    if kind == "Cast":
        wide = graph.node("Cast", value.name, to=TensorProto.DOUBLE)
        return graph.put("Cast", value.shape, wide, to=TensorProto.FLOAT)
    if kind == "Dropout" and graph.opset >= 12 and graph.chance(0.5):
        ratio, trains = graph.constant(np.float32(0.5)), graph.constant(np.array(False))
        return graph.put("Dropout", value.shape, value.name, ratio, trains)
    return graph.put(kind, value.shape, value.name)


def branch(graph: Graph) -> Value | None:
    """An If on what was computed, whose branches capture what was computed."""
    value = _any(graph)
    if value is None or graph.opset < 11 or graph.tame:
        return None
    total = graph.node("ReduceSum", value.name, keepdims=0)
    condition = graph.node("Greater", total, graph.constant(np.float32(0)))
    factor = graph.constant(np.float32(graph.rng.uniform(0.5, 2)))
    place = len(graph.nodes)
    bodies = []
    for number, kind in enumerate(("Mul", "Relu")):
        made = f"b{place}_{number}"
        inputs = [value.name, factor] if kind == "Mul" else [value.name]
        info = helper.make_tensor_value_info(made, TensorProto.FLOAT, None)
        bodies.append(helper.make_graph([helper.make_node(kind, inputs, [made])], made, [], [info]))
    yes, no = bodies if graph.chance(0.5) else bodies[::-1]
    return graph.put("If", value.shape, condition, then_branch=yes, else_branch=no)


STEPS = (activation, activation, activation, with_constant, with_other, with_other, softmax, same)
RARE = (branch,)
