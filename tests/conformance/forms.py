"""The forms in which an ONNX node test is run: alone, and as a part of larger graphs."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FORMS = ("alone", "constant", "behind", "branch", "twice")
"""As published · with all but the data constant · behind a Conv or a product, of an open batch ·
in both branches of an If behind that · two of it behind that."""

DATA, MADE, CONDITION = "the_data", "the_made", "the_condition"


@dataclass(frozen=True, slots=True)
class Form:
    """One graph made of a node test.

    Attributes:
        model: The graph.
        feeds: Inputs to run it with.
        wants: The published outputs of each feed, by name; nothing where ONNX Runtime is asked.
    """

    model: onnx.ModelProto
    feeds: tuple[dict[str, Any], ...]
    wants: tuple[dict[str, Any], ...] = ()


def formed(case: Any, form: str) -> Form | None:
    """Returns a node test in a form, None where there is none of it.

    Args:
        case: The test, as `onnx.backend.test.case.node` collects it.
        form: One of `FORMS`.
    """
    model = _of_known_version(copy.deepcopy(case.model))
    names = [value.name for value in model.graph.input]
    feeds = [dict(zip(names, inputs, strict=False)) for inputs, _ in case.data_sets]
    if form == "alone":
        outputs = [value.name for value in model.graph.output]
        wants = [dict(zip(outputs, made, strict=False)) for _, made in case.data_sets]
        return Form(model, tuple(feeds), tuple(wants))
    place = _data(model.graph.input, feeds[0])
    if place is None:
        return None
    data = names[place]
    _freeze(model, feeds[0], data)
    if form == "constant":
        return Form(model, ({data: feeds[0][data]},))
    if feeds[0][data].ndim < 2 or feeds[0][data].size == 0:
        return None
    return _composed(model, data, feeds[0][data], form)


KNOWN_OPSET, KNOWN_IR = 26, 13
"""The newest versions that the installed ONNX Runtime reads."""


def _of_known_version(model: onnx.ModelProto) -> onnx.ModelProto:
    """A model told in versions that ONNX Runtime reads, if all operators mean the same in them."""
    model.ir_version = min(model.ir_version, KNOWN_IR)
    for opset in model.opset_import:
        if opset.domain in {"", "ai.onnx"} and opset.version > KNOWN_OPSET:
            nodes = (node for node in model.graph.node if node.domain in {"", "ai.onnx"})
            schemas = [onnx.defs.get_schema(node.op_type, opset.version) for node in nodes]
            if all(schema.since_version <= KNOWN_OPSET for schema in schemas):
                opset.version = KNOWN_OPSET
    return model


def _data(inputs: Any, feed: dict[str, Any]) -> int | None:
    """The place of what a test computes with: its first tensor of float32."""
    for place, value in enumerate(inputs):
        array = feed.get(value.name)
        if isinstance(array, np.ndarray) and array.dtype == np.float32 and array.ndim:
            return place
    return None


def _freeze(model: onnx.ModelProto, feed: dict[str, Any], data: str) -> None:
    """Makes all inputs but the data constant."""
    graph = model.graph
    for value in list(graph.input):
        array = feed.get(value.name)
        if value.name == data or not isinstance(array, np.ndarray):
            continue
        tensor = numpy_helper.from_array(array, value.name)
        tensor.data_type = value.type.tensor_type.elem_type
        graph.initializer.append(tensor)
        graph.input.remove(value)


def _composed(model: onnx.ModelProto, data: str, x: np.ndarray, form: str) -> Form:
    """The test behind a heavy operator: once, in both branches of an If, or twice."""
    graph = model.graph
    heavy, weight = _heavy(x)
    inputs = [helper.make_tensor_value_info(DATA, TensorProto.FLOAT, ["n", *x.shape[1:]])]
    inputs += [value for value in graph.input if value.name != data]
    first, second = (_copied(graph, data, suffix) for suffix in ("_a", "_b"))
    feeds = [{DATA: x}, {DATA: np.concatenate([x, 0.5 * x[:1]])}]
    nodes, outputs = first
    if form == "twice":
        nodes, outputs = [*nodes, *second[0]], [*outputs, *second[1]]
    if form == "branch":
        inputs.append(helper.make_tensor_value_info(CONDITION, TensorProto.BOOL, []))
        feeds = [{**f, CONDITION: np.array(c)} for c, f in zip((True, False), feeds, strict=True)]
        yes, no = (helper.make_graph(n, "branch", [], o) for n, o in (first, second))
        outputs = [helper.make_value_info(value.name, value.type) for value in graph.output]
        names = [value.name for value in outputs]
        nodes = [helper.make_node("If", [CONDITION], names, then_branch=yes, else_branch=no)]
    for value in outputs:
        value.type.tensor_type.ClearField("shape")
    made = helper.make_graph([heavy, *nodes], "g", inputs, outputs, [*graph.initializer, weight])
    opsets = list(model.opset_import)
    if not any(opset.domain in {"", "ai.onnx"} for opset in opsets):
        opsets.append(helper.make_opsetid("", 17))
    made = helper.make_model(made, opset_imports=opsets, ir_version=model.ir_version)
    made.functions.extend(model.functions)
    return Form(made, tuple(feeds))


def _heavy(x: np.ndarray) -> tuple[onnx.NodeProto, onnx.TensorProto]:
    """What is worth a plan and keeps the shape and the sign: a Conv of 1 x 1, or a product."""
    size = x.shape[1] if x.ndim == 4 else x.shape[-1]
    rng = np.random.default_rng(size)
    w = (0.5 * np.eye(size) + 0.5 * rng.random((size, size)) / size).astype(np.float32)
    kind = "Conv" if x.ndim == 4 else "MatMul"
    weight = numpy_helper.from_array(w[:, :, None, None] if x.ndim == 4 else w, "the_weight")
    return helper.make_node(kind, [DATA, "the_weight"], [MADE]), weight


def _copied(
    graph: onnx.GraphProto, data: str, suffix: str
) -> tuple[list[onnx.NodeProto], list[onnx.ValueInfoProto]]:
    """A graph's nodes and outputs under names of their own, reading what the heavy one makes."""
    names = {name: name + suffix for node in graph.node for name in node.output if name}
    names[data] = MADE
    nodes = [copy.deepcopy(node) for node in graph.node]
    for node in nodes:
        _rename(node, names)
    outputs = [
        helper.make_value_info(names.get(value.name, value.name), copy.deepcopy(value.type))
        for value in graph.output
    ]
    return nodes, outputs


def _rename(node: onnx.NodeProto, names: dict[str, str]) -> None:
    """Renames what a node reads and makes, and what graphs inside it capture."""
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    for graph in (a.g for a in node.attribute if a.HasField("g")):
        own = {value.name for value in (*graph.input, *graph.initializer)}
        own.update(name for inner in graph.node for name in inner.output)
        seen = {old: new for old, new in names.items() if old not in own}
        for inner in graph.node:
            _rename(inner, seen)
        for value in graph.output:
            value.name = seen.get(value.name, value.name)
