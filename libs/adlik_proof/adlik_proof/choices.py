"""Which outputs of a model are whole numbers made of floats: indices, and levels of eight bits."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

_CHOOSING = {"ArgMax": 0, "ArgMin": 0, "TopK": 1}
"""Operator to the position of its output that holds indices."""
_CARRIERS = {"Identity", "Cast"}
_MOVERS = {
    "Flatten",
    "Identity",
    "MaxPool",
    "Reshape",
    "Slice",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """An output of indices.

    Attributes:
        output: Its name.
        scores: Name of the value that was chosen among.
        axis: The scores' axis along which was chosen.
    """

    output: str
    scores: str
    axis: int


def choices_of(model: onnx.ModelProto) -> list[Choice]:
    """Returns the outputs that are the places of the largest or smallest scores."""
    made = {name: node for node in model.graph.node for name in node.output if name}
    found = []
    for output in model.graph.output:
        name, node = output.name, made.get(output.name)
        while node is not None and node.op_type in _CARRIERS:
            name = node.input[0]
            node = made.get(name)
        if node is None or node.op_type not in _CHOOSING:
            continue
        position = _CHOOSING[node.op_type]
        if len(node.output) > position and node.output[position] == name:
            default = -1 if node.op_type == "TopK" else 0
            axis = next((a.i for a in node.attribute if a.name == "axis"), default)
            found.append(Choice(output.name, node.input[0], axis))
    return found


def levels_of(model: onnx.ModelProto) -> list[str]:
    """Returns the outputs that are levels which floats were rounded to, whatever moved them."""
    made = {name: node for node in model.graph.node for name in node.output if name}
    found = []
    for output in model.graph.output:
        node = made.get(output.name)
        while node is not None and node.op_type in _MOVERS:
            node = made.get(node.input[0])
        if node is not None and node.op_type == "QuantizeLinear":
            found.append(output.name)
    return found


def expose(model: onnx.ModelProto, choices: list[Choice]) -> onnx.ModelProto:
    """Returns a copy of a model whose scores are outputs as well."""
    wider = onnx.ModelProto()
    wider.CopyFrom(model)
    known = {output.name for output in wider.graph.output}
    outside = {value.name for value in wider.graph.input} | {
        w.name for w in wider.graph.initializer
    }
    for name in dict.fromkeys(choice.scores for choice in choices):
        if name not in known and name not in outside:
            wider.graph.output.append(onnx.ValueInfoProto(name=name))
    return wider
