"""Nodes of small constants, computed by ONNX' own reference."""

from __future__ import annotations

from collections.abc import Mapping

from adlik_kernels.plans.graph import Array, Node

MOST = 4096
"""Numbers of a constant that others are computed from."""

_LEVELS = frozenset({"QuantizeLinear", "DequantizeLinear"})
"""Nodes that say how levels stand for numbers: plans want them as they are."""


def folded(node: Node, constants: Mapping[str, Array], opset: int) -> dict[str, Array]:
    """Returns what a node of small constants makes, by name; nothing for any other node.

    Args:
        node: The node.
        constants: Constants by name.
        opset: Version of ONNX' operators.
    """
    found = [constants.get(name) for name in node.inputs]
    arrays = [array for array in found if array is not None and array.size <= MOST]
    if not found or len(arrays) < len(found) or node.kind in _LEVELS or "." in node.kind:
        return {}
    from onnx import TensorProto, helper
    from onnx.reference import ReferenceEvaluator

    infos = [helper.make_tensor_value_info(n, TensorProto.UNDEFINED, None) for n in node.outputs]
    proto = helper.make_node(node.kind, node.inputs, node.outputs, **node.attributes)
    given = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), None)
        for name, array in zip(node.inputs, arrays, strict=True)
    ]
    graph = helper.make_graph([proto], "node", given, infos)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        made = ReferenceEvaluator(model).run(None, dict(zip(node.inputs, arrays, strict=True)))
    except Exception:  # noqa: BLE001 # what the reference can't compute is computed where it was
        return {}
    return dict(zip(node.outputs, made, strict=True))
