"""Merges or removes chains of operators that only move or rename data."""

from __future__ import annotations

from onnxscript.rewriter.rules.common import (
    cast_cast_rule,
    no_op_cast_rule,
    no_op_expand_rule,
    no_op_transpose_rule,
    reshape_reshape_rule,
    transpose_transpose_rule,
    unsqueeze_unsqueeze_rule,
)

from adlik_optimizer.passes.graph_pass import RewritePass

# Must not fire on a chain whose middle is used elsewhere, or on casts that lose precision between.
PASS = RewritePass(
    name="cancel-layout",
    operators=frozenset({"Transpose", "Reshape", "Unsqueeze", "Cast", "Expand"}),
    rules=[
        transpose_transpose_rule,
        no_op_transpose_rule,
        reshape_reshape_rule,
        unsqueeze_unsqueeze_rule,
        cast_cast_rule,
        no_op_cast_rule,
        no_op_expand_rule,
    ],
)
