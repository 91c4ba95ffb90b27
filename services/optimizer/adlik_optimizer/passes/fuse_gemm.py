"""Fuses MatMul and Add of matrices to Gemm."""

from __future__ import annotations

from onnxscript.rewriter.rules.common import (
    matmul_add_to_gemm_rule,
    transpose_a_matmul_add_to_gemm_rule,
    transpose_ab_matmul_add_to_gemm_rule,
    transpose_b_matmul_add_to_gemm_rule,
)

from adlik_optimizer.passes.graph_pass import RewritePass

# Must not fire on operands of other ranks than two: Gemm does not broadcast over a batch.
PASS = RewritePass(
    name="fuse-gemm",
    operators=frozenset({"MatMul"}),
    rules=[
        transpose_ab_matmul_add_to_gemm_rule,
        transpose_a_matmul_add_to_gemm_rule,
        transpose_b_matmul_add_to_gemm_rule,
        matmul_add_to_gemm_rule,
    ],
)
