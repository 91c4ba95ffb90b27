"""An ONNX file as nodes, constants and the shapes of what is computed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adlik_kernels.plans.folding import folded
from adlik_kernels.plans.graph import BATCH, TOKENS, Array, Node, Size, UnsupportedGraph
from adlik_kernels.plans.probe import Dims, probed

FLOAT, INT64 = 1, 7
"""Element types as ONNX numbers them."""


@dataclass(frozen=True, slots=True)
class Source:
    """What an ONNX file says.

    Attributes:
        proto: The file itself.
        nodes: The nodes in order.
        constants: Initializers and what follows from them, by name.
        inputs: Names of the inputs.
        outputs: Names of the outputs.
        dims: Shapes of inputs and of computed values, as far as they can be inferred.
        types: Element types of inputs and of computed values, as ONNX numbers them.
        batch: The batch that it was exported for; 0 for any.
        opset: Version of ONNX' operators.
    """

    proto: Any
    nodes: tuple[Node, ...]
    constants: dict[str, Array]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    dims: dict[str, Dims]
    types: dict[str, int]
    batch: int
    opset: int


def read_source(path: Path) -> Source:
    """Reads an ONNX file.

    Args:
        path: The file; its weights are inside or beside it.

    Raises:
        UnsupportedGraph: It is no ONNX model, or has no inputs or outputs.
    """
    from onnx import numpy_helper

    proto = _loaded(path)
    graph = proto.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    inputs = tuple(value.name for value in graph.input if value.name not in constants)
    if not inputs or not graph.output:
        raise UnsupportedGraph("The model has no input or no output.")
    nodes = tuple(_node(number, node) for number, node in enumerate(graph.node))
    opset = next((i.version for i in proto.opset_import if i.domain in {"", "ai.onnx"}), 1)
    for node in nodes:
        if node.kind == "Constant" and "value" in node.attributes:
            constants[node.outputs[0]] = numpy_helper.to_array(node.attributes["value"])
        elif node.kind == "Identity" and node.inputs[0] in constants:
            constants[node.outputs[0]] = constants[node.inputs[0]]
        else:
            constants.update(folded(node, constants, opset))
    symbols = _symbols(graph, inputs)
    dims: dict[str, Dims] = {}
    types: dict[str, int] = {}
    for value in (*graph.input, *_inferred(proto), *graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape"):
            dims[value.name] = tuple(_size(dim, symbols) for dim in kind.shape.dim)
        if kind.elem_type:
            types[value.name] = kind.elem_type
    made = [name for node in nodes for name in node.outputs if types.get(name) == FLOAT]
    if any(None in dims.get(name, (None,)) for name in made):
        dims = {**dims, **probed(proto, inputs, dims, types)}
    first = dims.get(inputs[0], ())
    batch = first[0] if first and isinstance(first[0], int) else 0
    outputs = tuple(value.name for value in graph.output)
    return Source(proto, nodes, constants, inputs, outputs, dims, types, batch, opset)


def _loaded(path: Path) -> Any:
    import onnx

    try:
        return onnx.load(path)
    except Exception as error:  # protobuf's and onnx's own have no common class
        raise UnsupportedGraph(f"{path} can't be read as an ONNX model: {error}") from error


def _inferred(proto: Any) -> list[Any]:
    import onnx

    try:
        return list(onnx.shape_inference.infer_shapes(proto, data_prop=True).graph.value_info)
    except (onnx.shape_inference.InferenceError, ValueError):  # over 2 GB, or not consistent
        return list(proto.graph.value_info)


def _node(number: int, node: Any) -> Node:
    import onnx

    kind = node.op_type if node.domain in {"", "ai.onnx"} else f"{node.domain}.{node.op_type}"
    found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return Node(number, kind, tuple(node.input), tuple(node.output), found)


def _symbols(graph: Any, inputs: tuple[str, ...]) -> dict[str, Size]:
    """What the names of open sizes stand for: the first of a shape is the batch."""
    symbols: dict[str, Size] = {}
    shapes = [v.type.tensor_type.shape.dim for v in graph.input if v.name in inputs]
    for shape in shapes:
        if len(shape) and shape[0].dim_param:
            symbols.setdefault(shape[0].dim_param, BATCH)
    for shape in shapes:
        for dim in list(shape)[1:]:
            if dim.dim_param and TOKENS not in symbols.values():
                symbols.setdefault(dim.dim_param, TOKENS)
    return symbols


def _size(dim: Any, symbols: dict[str, Size]) -> Size | None:
    if dim.HasField("dim_value"):
        value: int = dim.dim_value
        return value
    return symbols.get(dim.dim_param) if dim.dim_param else None
