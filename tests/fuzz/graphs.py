"""Random graphs: what they are built of. One seed is one graph, with its inputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT
BATCH, TOKENS = "n", "t"

Shape = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Value:
    """A float value of the graph: its name and its shape, in which the batch is `BATCH`."""

    name: str
    shape: Shape

    @property
    def rank(self) -> int:
        return len(self.shape)


@dataclass(slots=True)
class Graph:
    """A graph under construction.

    Attributes:
        rng: Whence all comes.
        opset: The version of ONNX' operators.
        nodes, weights: As they go into the model.
        values: What may be read, the newest last.
        inputs: Names and shapes of the inputs.
        shared: Names of weights by their shapes.
        tame: Whether it is built of what plans are likely to take.
    """

    rng: np.random.Generator
    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    inputs: dict[str, Shape] = field(default_factory=dict)
    shared: dict[Any, str] = field(default_factory=dict)
    tame: bool = False

    def draw(self, *choices: Any) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def chance(self, part: float) -> bool:
        return bool(self.rng.random() < part)

    def tamely(self, part: float) -> bool:
        """As `chance`, but never in a tame graph."""
        return not self.tame and self.chance(part)

    def number(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def take(self, shape: Shape) -> Value:
        """A new input."""
        name = f"x{len(self.inputs)}"
        self.inputs[name] = shape
        self.values.append(Value(name, shape))
        return self.values[-1]

    def constant(self, array: Any) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weight(self, *shape: int, scale: float = 0.0) -> str:
        """Random numbers that keep sizes as they are; sometimes a weight that another has, too."""
        if shape in self.shared and self.chance(0.3):
            return self.shared[shape]
        scale = scale or 1.0 / np.sqrt(max(np.prod(shape[1:]), 1))
        made = self.constant((self.rng.standard_normal(shape) * scale).astype(np.float32))
        self.shared[shape] = made
        return made

    def node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node of one output; returns its name."""
        made = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [made], **attributes))
        return made

    def put(self, kind: str, shape: Shape, *inputs: str, **attributes: Any) -> Value:
        """A node whose result may be read."""
        return self.keep(self.node(kind, *inputs, **attributes), shape)

    def keep(self, name: str, shape: Shape) -> Value:
        self.values.append(Value(name, shape))
        return self.values[-1]

    def pick(self, rank: int) -> Value | None:
        """A value of a rank, a new one more likely than an old one."""
        found = [value for value in self.values if value.rank == rank]
        if not found:
            return None
        return found[-1] if self.chance(0.7) else self.draw(*found)

    def image(self) -> Value | None:
        """A value of known channels, rows and columns."""
        value = self.pick(4)
        return None if value is None or TOKENS in value.shape else value

    def like(self, value: Value) -> Value | None:
        """Another value of the same shape."""
        found = [v for v in self.values if v.shape == value.shape and v.name != value.name]
        return self.draw(*found) if found else None

    def axes(self, values: list[int], since: int) -> tuple[list[str], dict[str, Any]]:
        """Axes as an input, from a version on, or as the attribute that they were before."""
        if self.opset >= since:
            return [self.constant(np.array(values, np.int64))], {}
        return [], {"axes": values}

    def sizes(self, value: Value, kept: list[int], rest: list[int]) -> str:
        """A shape as exporters compute it: some sizes of a value, and numbers behind them."""
        shape, parts = self.node("Shape", value.name), []
        if kept == list(range(len(kept))) and self.chance(0.3):
            if self.opset < 10:
                parts.append(self.node("Slice", shape, axes=[0], starts=[0], ends=[len(kept)]))
            else:
                ends = (self.constant(np.array([n], np.int64)) for n in (0, len(kept)))
                parts.append(self.node("Slice", shape, *ends))
        else:
            for axis in kept:
                size = self.node("Gather", shape, self.constant(np.array(axis, np.int64)), axis=0)
                names, facts = self.axes([0], 13)
                parts.append(self.node("Unsqueeze", size, *names, **facts))
        parts.append(self.constant(np.array(rest, np.int64)))
        return self.node("Concat", *parts, axis=0)


def model_of(graph: Graph, outputs: list[Value], batch: int | str | None) -> onnx.ModelProto:
    """The graph as a model.

    Args:
        graph: What was built.
        outputs: What it gives.
        batch: How its inputs say the batch: a name, a number, None or -1.
    """
    infos = []
    for name, shape in graph.inputs.items():
        dims = [batch if size == BATCH else size for size in shape]
        infos.append(helper.make_tensor_value_info(name, FLOAT, dims))
    made = [helper.make_tensor_value_info(value.name, FLOAT, None) for value in outputs]
    for value, info in zip(outputs, made, strict=True):
        if graph.chance(0.5):
            dims = [batch if size == BATCH else size for size in value.shape]
            info.CopyFrom(helper.make_tensor_value_info(value.name, FLOAT, dims))
    proto = helper.make_graph(graph.nodes, "fuzz", infos, made, graph.weights)
    opsets = [helper.make_opsetid("", graph.opset)]
    return helper.make_model(proto, opset_imports=opsets, ir_version=8)
