"""What a pass is, and how a rewrite rule of the onnxscript library becomes one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass
from onnxscript.rewriter import RewriteRule, RewriteRuleSet


class Pass(Protocol):
    """Changes a graph without changing what it computes."""

    @property
    def name(self) -> str:
        """The pass, as reports and plans say it."""

    def requires(self, model: ir.Model) -> str:
        """Returns why the pass has nothing to do on this model, "" where it may have."""

    def run(self, model: ir.Model) -> str:
        """Changes the model in place; returns what was done in words, "" for nothing."""

    def ensures(self, model: ir.Model) -> str:
        """Returns what the pass promised and the model does not show, "" where all is well."""


@dataclass(frozen=True, slots=True)
class RewritePass:
    """A pass made of rewrite rules.

    Attributes:
        name: The pass.
        operators: Without one of these there is nothing to do.
        rules: Applied together until none of them matches.
        promise: Checks the model afterwards; see `Pass.ensures`.
    """

    name: str
    operators: frozenset[str]
    rules: Sequence[RewriteRule]
    promise: Callable[[ir.Model], str] = lambda _: ""

    def requires(self, model: ir.Model) -> str:
        """Returns why there is nothing to do, "" where there may be."""
        if self.operators & count_operators(model).keys():
            return ""
        return f"the model has no {' or '.join(sorted(self.operators))}"

    def run(self, model: ir.Model) -> str:
        """Applies the rules; returns how the numbers of operators changed."""
        before = count_operators(model)
        ShapeInferencePass()(model)  # many rules fire only where they see the ranks
        applied = RewriteRuleSet(self.rules).apply_to_model(model)
        return summarize(before, count_operators(model)) if applied else ""

    def ensures(self, model: ir.Model) -> str:
        """Returns the broken promise, "" where it was kept."""
        return self.promise(model)


def count_operators(model: ir.Model) -> Counter[str]:
    """Returns how often each operator stands in the graph and its subgraphs."""
    return Counter(node.op_type for node in model.graph.all_nodes())


def summarize(before: Counter[str], after: Counter[str]) -> str:
    """Says how the numbers of operators changed, e.g. "BatchNormalization 35 to 0"."""
    changes = [
        f"{operator} {before[operator]} to {after[operator]}"
        for operator in sorted(before | after)
        if before[operator] != after[operator]
    ]
    return ", ".join(changes) or "constants changed"
