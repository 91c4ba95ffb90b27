"""Folds BatchNormalization into the weights of the Conv, ConvTranspose or Gemm before it."""

from __future__ import annotations

from onnxscript.rewriter.rules.common import (
    fuse_batchnorm_into_conv_rule,
    fuse_batchnorm_into_conv_transpose_rule,
    fuse_batchnorm_into_gemm_rule,
)

from adlik_optimizer.passes.graph_pass import RewritePass

# Must not fire where the convolution's result is used elsewhere too, or where its weights or the
# statistics are not constant. Source: Jacob et al. 2018 (arXiv:1712.05877), section 3.2.
PASS = RewritePass(
    name="fold-batch-norm",
    operators=frozenset({"BatchNormalization"}),
    rules=[
        fuse_batchnorm_into_conv_rule,
        fuse_batchnorm_into_conv_transpose_rule,
        fuse_batchnorm_into_gemm_rule,
    ],
)
