"""Computes once, at push time, what does not depend on the inputs."""

from __future__ import annotations

import math

import onnx_ir as ir
from onnxscript import optimizer

from adlik_optimizer.passes.graph_pass import count_operators, summarize

MAX_INPUT_ELEMENTS = 64 * 1024 * 1024
MAX_OUTPUT_ELEMENTS = 1024 * 1024
GROWING = frozenset({"Expand", "Tile"})
"""Operators whose result may be of any size however small their inputs are."""
RANDOM = frozenset({"Bernoulli", "Multinomial"})
"""Operators that draw anew at every run, whatever they are given."""


class FoldConstants:
    """Replaces nodes whose inputs are constant by their value.

    Must not fire where the value would make the file much larger (an Expand or ConstantOfShape of
    a small constant), on random operators, nor on operators it can't evaluate: these stay.
    """

    name = "fold-constants"

    def requires(self, model: ir.Model) -> str:
        """Needs a constant to start from."""
        return "" if model.graph.initializers else "the model has no constants"

    def run(self, model: ir.Model) -> str:
        """Returns how the numbers of operators changed."""
        before = count_operators(model)
        result = optimizer.fold_constants(
            model,
            onnx_shape_inference=True,
            input_size_limit=MAX_INPUT_ELEMENTS,
            output_size_limit=MAX_OUTPUT_ELEMENTS,
            should_fold=_may_fold,
        )
        after = count_operators(model)
        return summarize(before, after) if result.modified and before != after else ""

    def ensures(self, model: ir.Model) -> str:  # noqa: ARG002 - the protocol's
        """Nothing beyond the numeric check."""
        return ""


def _may_fold(node: ir.Node) -> bool | None:
    """Returns False for a value that is not to be computed at all, None: by the library's rules.

    The library computes a value before it finds it too large to keep: an Expand of a few bytes may
    be terabytes. It knows most random operators, but not all.
    """
    if node.op_type in RANDOM:
        return False
    taken = sum(v.const_value.size for v in node.inputs if v and v.const_value is not None)
    for output in node.outputs:
        if output.shape is not None and output.shape.is_static():
            if math.prod(output.shape.numpy()) > max(MAX_OUTPUT_ELEMENTS, taken):
                return False
        elif node.op_type in GROWING:
            return False
    return None


PASS = FoldConstants()
