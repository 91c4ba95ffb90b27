"""Nodes that no plan takes, whatever is around them."""

from __future__ import annotations

from adlik_kernels.plans.readers import READERS
from adlik_kernels.plans.source import Source

OLDEST = 7
"""The first version of ONNX' operators whose meaning plans know: sums broadcast as in numpy."""


def declined(source: Source) -> dict[int, str]:
    """Returns why nodes can't be in plans whatever is around them, by their numbers.

    Args:
        source: The model.
    """
    if source.opset < OLDEST:
        reason = f"a plan does not know operators of version {source.opset}"
        return {node.number: reason for node in source.nodes}
    rounded = "levels leave the model, and ONNX Runtime says how they are rounded"
    return {
        **dict.fromkeys(_behind_levels(source), rounded),
        **{
            node.number: f"a plan does not know {node.kind}"
            for node in source.nodes
            if node.kind not in READERS
        },
    }


MOVES = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""Nodes behind which levels are the same."""


def _behind_levels(source: Source) -> list[int]:
    """Numbers of all nodes behind an output that is levels.

    Whole numbers are compared as such. A plan's sums are exact, but ONNX Runtime rounds biases to
    steps of a sum: one level in a thousand would be its neighbour.
    """
    makers = {name: node for node in source.nodes for name in node.outputs}
    found: dict[int, None] = {}
    for output in source.outputs:
        node = makers.get(output)
        while node is not None and node.kind in MOVES:
            node = makers.get(node.inputs[0])
        waiting = [node] if node is not None and node.kind == "QuantizeLinear" else []
        while waiting:
            node = waiting.pop()
            if node.number not in found:
                found[node.number] = None
                waiting += [makers[name] for name in node.reads if name in makers]
    return list(found)
