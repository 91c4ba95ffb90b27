"""Nodes of small constants, computed once by ONNX Runtime: sizes, mostly, and scales."""

from __future__ import annotations

from collections.abc import Mapping

from adlik_kernels.plans.graph import Array, Node

MOST = 4096
"""Numbers of a constant that others are computed from."""

KINDS = frozenset(
    {
        *("Add", "Cast", "Concat", "ConstantOfShape", "Div", "Equal", "Expand", "Flatten"),
        *("Gather", "Max", "Min", "Mul", "Neg", "Pow", "Range", "Reciprocal", "ReduceProd"),
        *("Reshape", "Shape", "Size", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Tile"),
        *("Transpose", "Unsqueeze", "Where"),
    }
)
"""What exporters compute of constants. Levels are left as they are, random numbers are no
constants, and whatever is rare is computed where it was."""

_RESULT = 16 * MOST
"""Numbers of a constant that is kept."""


def folded(node: Node, constants: Mapping[str, Array], opset: int) -> dict[str, Array]:
    """Returns what a node of small constants makes, by name; nothing for any other node.

    Args:
        node: The node.
        constants: Constants by name.
        opset: Version of ONNX' operators.
    """
    named = dict.fromkeys(name for name in node.inputs if name)
    found = {name: constants[name] for name in named if name in constants}
    if node.kind not in KINDS or not found or len(found) < len(named):
        return {}
    if any(array.size > MOST for array in found.values()) or _grows(node, found):
        return {}
    import onnxruntime
    from onnx import ValueInfoProto, helper

    given = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in found.items()
    ]
    made = [ValueInfoProto(name=name) for name in node.outputs if name]
    proto = helper.make_node(node.kind, node.inputs, node.outputs, **node.attributes)
    graph = helper.make_graph([proto], "node", given, made)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        arrays = session.run(None, found)
    except Exception:  # noqa: BLE001 # what it can't compute is left to whoever runs the model
        return {}
    return dict(zip([info.name for info in made], arrays, strict=True))


def _grows(node: Node, found: Mapping[str, Array]) -> bool:
    """Whether a few numbers could become very many."""
    if node.kind == "Range":
        start, limit, step = (float(found[name].reshape(-1)[0]) for name in node.inputs)
        return step == 0 or abs(limit - start) / abs(step) > _RESULT
    if node.kind not in {"ConstantOfShape", "Expand", "Tile"}:
        return False
    sizes = found[node.inputs[-1]].astype(float)
    taken = 1 if node.kind == "ConstantOfShape" else found[node.inputs[0]].size
    return taken * float(abs(sizes).prod()) > _RESULT
