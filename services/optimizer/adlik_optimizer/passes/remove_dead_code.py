"""Removes what no output needs."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import Sequential, common
from onnxscript.rewriter import RewriteRuleSet
from onnxscript.rewriter.rules.common import dropout_inference_rule, dropout_zero_rule

from adlik_optimizer.passes.graph_pass import count_operators, summarize

DRAWING = frozenset({"Bernoulli", "Dropout", "Multinomial"})
"""Operators of which two may give two results from one input: they draw at random."""


class RemoveDeadCode:
    """Removes Identity, inference Dropout, repeated subexpressions, unused nodes and weights.

    Must not fire on a Dropout in training mode, nor on an Identity between an input and an output
    of the graph, whose names users know.
    """

    name = "remove-dead-code"

    def requires(self, model: ir.Model) -> str:  # noqa: ARG002 - the protocol's
        """Always has something to look at."""
        return ""

    def run(self, model: ir.Model) -> str:
        """Returns how the numbers of operators and weights changed."""
        before, weights = count_operators(model), len(model.graph.initializers)
        RewriteRuleSet([dropout_zero_rule, dropout_inference_rule]).apply_to_model(model)
        draws = DRAWING & count_operators(model).keys()
        Sequential(
            common.IdentityEliminationPass(),
            *([] if draws else [common.CommonSubexpressionEliminationPass()]),
            common.DeduplicateInitializersPass(),
            common.RemoveUnusedNodesPass(),
        )(model)
        after, left = count_operators(model), len(model.graph.initializers)
        if before != after:
            return summarize(before, after)
        return f"{weights} weights to {left}" if weights != left else ""

    def ensures(self, model: ir.Model) -> str:
        """Every node's result is used."""
        unused = [
            node.name
            for node in model.graph
            if not any(out.uses() or out.is_graph_output() for out in node.outputs)
        ]
        return f"unused nodes are left: {unused[:3]}" if unused else ""


PASS = RemoveDeadCode()
