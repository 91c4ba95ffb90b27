"""Reads from a graph what a model's inputs mean to it: indices, sizes, numbers, texts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
from onnx import numpy_helper

from adlik_proof.role import Role

# Operators whose result holds the numbers of an input, at other places or as another type.
_CARRIERS = {
    "Cast", "CastLike", "Compress", "Concat", "Expand", "Flatten", "Gather", "GatherElements",
    "GatherND", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Tile", "Transpose",
    "Unsqueeze", "Where",
}  # fmt: skip
# Operator to the positions of its inputs that are indices into its first one.
_INDEXING = {
    "Gather": (1,), "GatherElements": (1,), "GatherND": (1,), "ScatterElements": (1,),
    "ScatterND": (1,), "Scatter": (1,), "RoiAlign": (2,), "TensorScatter": (2,),
    "EmbedLayerNormalization": (0, 1),
}  # fmt: skip
# Operator to the positions of its inputs that are sizes, counts or places along an axis.
_SIZING = {
    "ConstantOfShape": (0,), "Expand": (1,), "Loop": (0,), "NonMaxSuppression": (2,),
    "OneHot": (1,), "Pad": (1, 3), "Range": (0, 1, 2), "Reshape": (1,), "Resize": (2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,), "SplitToSequence": (1,), "Tile": (1,), "TopK": (1,), "Upsample": (1,),
    "CenterCropPad": (1,), "Unsqueeze": (1,), "Squeeze": (1,), "Trilu": (1,), "CumSum": (1,),
    "BlackmanWindow": (0,), "HannWindow": (0,), "HammingWindow": (0,), "STFT": (1, 3),
    "DFT": (1, 2),
}  # fmt: skip
# Operators whose other operand tells what numbers matter: limits, units of time, periods.
_COMPARING = {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Div", "Mod"}
_FILLING = {"IsNaN", "IsInf", "Imputer"}
_STEPPING = {
    "ArgMax", "ArgMin", "Cast", "Ceil", "DynamicQuantizeLinear", "Equal", "Floor", "Greater",
    "GreaterOrEqual", "Less", "LessOrEqual", "QLinearConv", "QLinearMatMul", "QuantizeLinear",
    "Round", "Sign", "TopK",
}  # fmt: skip
MAX_INFERRED_BYTES = 256 * 2**20
_VOCABULARIES = {"keys_strings", "cats_strings", "string_vocabulary", "pool_strings"}
MAX_CONSTANTS = 64


def roles_of(model: onnx.ModelProto) -> dict[str, Role]:
    """Returns the role of each input of a model; its weights need not be loaded."""
    graph = model.graph
    reader = _Reader(model)
    weights = {weight.name for weight in graph.initializer}
    return {
        value.name: reader.role(value.name) for value in graph.input if value.name not in weights
    }


def fills_gaps(model: onnx.ModelProto) -> bool:
    """Whether a model has operators for numbers that are missing: NaN is ordinary to it."""
    return any(
        node.op_type in _FILLING
        or any(a.name == "nodes_missing_value_tracks_true" and any(a.ints) for a in node.attribute)
        for graph in _graphs(model.graph)
        for node in graph.node
    )


def has_steps(model: onnx.ModelProto) -> bool:
    """Whether a small change can move a model's outputs by a step: it rounds or chooses."""
    return any(node.op_type in _STEPPING for graph in _graphs(model.graph) for node in graph.node)


class _Reader:
    """Follows values through a graph and the graphs inside it, whose names are taken as one."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._nodes = [node for graph in _graphs(model.graph) for node in graph.node]
        self._readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
        for node in self._nodes:
            for at, name in enumerate(node.input):
                self._readers.setdefault(name, []).append((node, at))
        self._weights = {
            weight.name: weight for graph in _graphs(model.graph) for weight in graph.initializer
        }
        self._shapes = _shapes(model)
        self._texts = _texts(self._nodes, self._weights)

    def role(self, name: str) -> Role:
        """Returns what a value is used as, also by what only carries it."""
        role = Role(texts=self._texts)
        seen, todo = {name}, [name]
        while todo:
            for node, at in self._readers.get(todo.pop(), ()):
                self._use(role, node, at)
                if node.op_type in _CARRIERS and not _is_position(node, at):
                    fresh = [out for out in node.output if out and out not in seen]
                    seen.update(fresh)
                    todo += fresh
        del role.constants[MAX_CONSTANTS:]
        return role

    def _use(self, role: Role, node: onnx.NodeProto, at: int) -> None:
        operator = node.op_type
        if at in _INDEXING.get(operator, ()):
            role.bounds.append(self._indexed(node))
        elif operator == "OneHot" and at == 0:
            depth = self._constant(node.input[1])
            role.bounds.append(int(depth[0]) if depth else 0)
        elif at in _SIZING.get(operator, ()):
            role.is_size = True
            role.is_shape = role.is_shape or operator == "Reshape"
        elif operator in _COMPARING:
            role.constants += self._constant(node.input[1 - at])

    def _indexed(self, node: onnx.NodeProto) -> int | str:
        """Returns the smallest size that an index of this node may reach, 0 where not known."""
        shape = self._shapes.get(node.input[0])
        if shape is None or node.op_type == "EmbedLayerNormalization":
            return 0
        if node.op_type in ("GatherND", "ScatterND"):
            known = [size for size in shape if isinstance(size, int)]
            return min(known) if len(known) == len(shape) else 0
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        return shape[axis] if -len(shape) <= axis < len(shape) else 0

    def _constant(self, name: str) -> list[float]:
        weight = self._weights.get(name)
        if weight is None:
            made = next((n for n in self._nodes if name in n.output), None)
            if made is None or made.op_type != "Constant":
                return []
            weight = next((a.t for a in made.attribute if a.name == "value"), None)
        if weight is None or weight.data_location == onnx.TensorProto.EXTERNAL:
            return []
        array = numpy_helper.to_array(weight)
        if array.dtype.kind not in "fiu" or array.size > MAX_CONSTANTS:
            return []
        return [float(number) for number in array.ravel()]


def _is_position(node: onnx.NodeProto, at: int) -> bool:
    """Whether an input of a carrier says where, and is not what is carried."""
    return at in _INDEXING.get(node.op_type, ()) or at in _SIZING.get(node.op_type, ())


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    todo = [graph]
    while todo:
        found = todo.pop()
        yield found
        for node in found.node:
            for attribute in node.attribute:
                todo += [attribute.g] if attribute.HasField("g") else []
                todo += attribute.graphs


def _shapes(model: onnx.ModelProto) -> dict[str, tuple[int | str, ...]]:
    """Returns the shapes that are known: numbers, or names of open axes; 0 is not known."""
    shapes: dict[str, tuple[int | str, ...]] = {
        weight.name: tuple(weight.dims)
        for graph in _graphs(model.graph)
        for weight in graph.initializer
    }
    graph = _inferred(model).graph
    for value in [*graph.input, *graph.value_info]:
        tensor = value.type.tensor_type
        if value.name not in shapes and tensor.HasField("shape"):
            shapes[value.name] = tuple(
                dim.dim_value if dim.dim_value > 0 else dim.dim_param or 0
                for dim in tensor.shape.dim
            )
    return shapes


def _inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model with the shapes of its inner values, as far as onnx can tell them."""
    if model.ByteSize() > MAX_INFERRED_BYTES:
        return model
    try:
        return onnx.shape_inference.infer_shapes(model)
    except Exception:  # noqa: BLE001 - onnx raises what it likes; less is known then
        return model


def _texts(nodes: Sequence[onnx.NodeProto], weights: Mapping[str, Any]) -> list[str]:
    found: list[bytes] = []
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name in _VOCABULARIES:
                found += attribute.strings
            elif attribute.HasField("t") and attribute.t.data_type == onnx.TensorProto.STRING:
                found += attribute.t.string_data
    for weight in weights.values():
        if weight.data_type == onnx.TensorProto.STRING:
            found += weight.string_data
    texts = [text.decode(errors="replace") for text in found[:MAX_CONSTANTS]]
    return list(np.unique(texts)) if texts else []
