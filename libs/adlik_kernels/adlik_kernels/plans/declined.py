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
    return {
        node.number: f"a plan does not know {node.kind}"
        for node in source.nodes
        if node.kind not in READERS
    }
