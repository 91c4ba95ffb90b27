"""An ONNX file as nodes, constants and the shapes of what is computed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adlik_kernels.plans.folding import folded
from adlik_kernels.plans.graph import BATCH, TOKENS, Array, Node, Size, UnsupportedGraph
from adlik_kernels.plans.probe import Dims, probed

FLOAT, INT8, INT64 = 1, 3, 7
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
        infos: What is declared or inferred of inputs and computed values, tensors or not.
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
    infos: dict[str, Any]
    batch: int
    opset: int


def read_source(path: Path) -> Source:
    """Reads an ONNX file.

    Args:
        path: The file; its weights are inside or beside it.

    Raises:
        UnsupportedGraph: It is no ONNX model, or has no outputs.
    """
    proto = _loaded(path)
    graph = proto.graph
    constants = _initializers(graph)
    inputs = tuple(value.name for value in graph.input if value.name not in constants)
    if not graph.output:
        raise UnsupportedGraph("The model has no output.")
    functions = {(function.domain, function.name) for function in proto.functions}
    nodes = tuple(_node(number, node, functions) for number, node in enumerate(graph.node))
    opset = next((i.version for i in proto.opset_import if i.domain in {"", "ai.onnx"}), 1)
    for node in nodes:
        constants.update(_constants_of(node, constants, opset))
    symbols = _symbols(graph, inputs)
    dims: dict[str, Dims] = {}
    infos: dict[str, Any] = {}
    for value in (*graph.input, *_inferred(proto)):
        infos[value.name] = value
        kind = value.type.tensor_type
        if kind.HasField("shape"):
            is_input = value.name in inputs
            sizes = [_size(dim, symbols) for dim in kind.shape.dim]
            dims[value.name] = (*(_first(sizes[:1]) if is_input else sizes[:1]), *sizes[1:])
    types = {n: v.type.tensor_type.elem_type for n, v in infos.items()}
    types = {name: kind for name, kind in types.items() if kind}
    made = [name for node in nodes for name in node.outputs if types.get(name) == FLOAT]
    if any(None in dims.get(name, (None,)) for name in made):
        dims = {**dims, **probed(proto, inputs, dims, types)}
    first = dims.get(inputs[0], ()) if inputs else ()
    batch = first[0] if first and isinstance(first[0], int) else 0
    outputs = tuple(value.name for value in graph.output)
    return Source(proto, nodes, constants, inputs, outputs, dims, types, infos, batch, opset)


def _initializers(graph: Any) -> dict[str, Array]:
    from onnx import numpy_helper

    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    sparse = {tensor.values.name: _dense(tensor) for tensor in graph.sparse_initializer}
    return {**found, **sparse}


def _dense(tensor: Any) -> Array:
    """A sparse tensor with its zeros written out; indices are linear, or one for each axis."""
    from onnx import numpy_helper

    values, indices = (numpy_helper.to_array(t) for t in (tensor.values, tensor.indices))
    dense = np.zeros(tuple(tensor.dims), values.dtype)
    if indices.ndim == 2:
        indices = np.ravel_multi_index(tuple(indices.T), dense.shape)
    dense.reshape(-1)[indices] = values
    return dense


def _constants_of(node: Node, constants: dict[str, Array], opset: int) -> dict[str, Array]:
    """What a node makes, if that never changes."""
    from onnx import numpy_helper

    facts = node.attributes
    if node.kind == "Identity" and node.inputs[0] in constants:
        return {node.outputs[0]: constants[node.inputs[0]]}
    if node.kind != "Constant":
        return folded(node, constants, opset)
    if "value" in facts:
        return {node.outputs[0]: numpy_helper.to_array(facts["value"])}
    if "sparse_value" in facts:
        return {node.outputs[0]: _dense(facts["sparse_value"])}
    for name, kind in _PLAIN.items():
        if name in facts:
            return {node.outputs[0]: np.array(facts[name], kind)}
    return {}


_PLAIN = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}
"""Attributes of a Constant that are numbers, not tensors, and their element types."""


def _loaded(path: Path) -> Any:
    import onnx

    try:
        return onnx.load(path)
    except Exception as error:  # protobuf's and onnx's own have no common class
        raise UnsupportedGraph(f"{path} can't be read as an ONNX model: {error}") from error


def _inferred(proto: Any) -> list[Any]:
    """What is declared or inferred of computed values and of outputs."""
    import onnx

    try:
        graph = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, ValueError):  # over 2 GB, or not consistent
        graph = proto.graph
    return [*graph.value_info, *graph.output]


def _node(number: int, node: Any, functions: set[tuple[str, str]]) -> Node:
    import onnx

    is_plain = node.domain in {"", "ai.onnx"} and (node.domain, node.op_type) not in functions
    kind = node.op_type if is_plain else f"{node.domain or 'function'}.{node.op_type}"
    found = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return Node(number, kind, tuple(node.input), tuple(node.output), found, tuple(_captured(node)))


def _captured(node: Any) -> dict[str, None]:
    """Names that the graphs inside a node read of the graph around it, in order."""
    graphs = [g for a in node.attribute for g in (*([a.g] if a.HasField("g") else []), *a.graphs)]
    found: dict[str, None] = {}
    for graph in graphs:
        own = {value.name for value in (*graph.input, *graph.initializer)}
        own.update(tensor.values.name for tensor in graph.sparse_initializer)
        read: dict[str, None] = {}
        for inner in graph.node:
            read.update(dict.fromkeys((*inner.input, *_captured(inner))))
            own.update(inner.output)
        read.update(dict.fromkeys(value.name for value in graph.output))
        found.update(dict.fromkeys(name for name in read if name and name not in own))
    return found


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
        return value if value >= 0 else None  # exporters write -1 for an open size
    return symbols.get(dim.dim_param) if dim.dim_param else None


def _first(sizes: list[Size | None]) -> list[Size | None]:
    """The first size of an input: one without a name is the batch, too."""
    return [BATCH if size is None else size for size in sizes]
