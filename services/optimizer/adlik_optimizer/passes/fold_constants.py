"""Computes once, at push time, what does not depend on the inputs."""

from __future__ import annotations

import onnx_ir as ir
from onnxscript import optimizer

from adlik_optimizer.passes.graph_pass import count_operators, summarize

MAX_INPUT_BYTES = 64 * 1024 * 1024
MAX_OUTPUT_BYTES = 1024 * 1024


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
            input_size_limit=MAX_INPUT_BYTES,
            output_size_limit=MAX_OUTPUT_BYTES,
        )
        after = count_operators(model)
        return summarize(before, after) if result.modified and before != after else ""

    def ensures(self, model: ir.Model) -> str:  # noqa: ARG002 - the protocol's
        """Nothing beyond the numeric check."""
        return ""


PASS = FoldConstants()
