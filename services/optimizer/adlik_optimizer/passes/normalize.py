"""Brings exporters' habits into one form: functions inlined, constants as initializers."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import Sequential, common


class Normalize:
    """Inlines functions, lifts constants to initializers and takes these off the inputs.

    Must not fire on initializers that are also inputs and that a caller may want to override: old
    exporters list every weight so, and the signature that was pushed has none of them.
    """

    name = "normalize"

    def requires(self, model: ir.Model) -> str:  # noqa: ARG002 - the protocol's
        """Always has something to look at."""
        return ""

    def run(self, model: ir.Model) -> str:
        """Returns what changed."""
        before = sum(1 for _ in model.graph.all_nodes())
        changed = Sequential(
            common.InlinePass(),
            common.RemoveInitializersFromInputsPass(),
            common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
            common.RemoveUnusedFunctionsPass(),
            common.RemoveUnusedOpsetsPass(),
        )(model).modified
        after = sum(1 for _ in model.graph.all_nodes())
        return f"{before} nodes to {after}" if changed else ""

    def ensures(self, model: ir.Model) -> str:
        """No function is left."""
        return "functions are left" if model.functions else ""


PASS = Normalize()
