"""Folds BatchNormalization into the weights of the Conv, ConvTranspose or Gemm before it."""

from __future__ import annotations

import onnx_ir as ir
from onnxscript.rewriter import MatchResult
from onnxscript.rewriter.rules.common import _fuse_batchnorm as rules

from adlik_optimizer.passes.graph_pass import RewritePass


class _WithConstantStatistics:
    """Keeps a rule from a BatchNormalization that trains: it uses the mean of the batch."""

    def check(
        self, context: object, x: ir.Value, inbound_out: ir.Value, batchnorm_out: ir.Value
    ) -> MatchResult:
        """Whether the rule may fire."""
        node = batchnorm_out.producer()
        assert node is not None  # the pattern has found it
        trains = node.attributes.get_int("training_mode", 0) or len(node.outputs) > 1
        if trains or not node.attributes.get_int("spatial", 1):
            return MatchResult().fail("its statistics are not constants of a channel")
        found: MatchResult = super().check(context, x, inbound_out, batchnorm_out)  # type: ignore[misc]
        return found


class _IntoConv(_WithConstantStatistics, rules.FuseBatchNormIntoConv):  # type: ignore[misc]
    """BatchNormalization(Conv(x))."""


class _IntoConvTranspose(
    _WithConstantStatistics,
    rules.FuseBatchNormIntoConvTranspose,  # type: ignore[misc]
):
    """BatchNormalization(ConvTranspose(x))."""


class _IntoGemm(_WithConstantStatistics, rules.FuseBatchNormIntoGemm):  # type: ignore[misc]
    """BatchNormalization(Gemm(x))."""


# Must not fire where the convolution's result is used elsewhere too, where its weights or the
# statistics are not constant, nor in training mode, of whatever version: `training_mode`, or a
# second output. Source: Jacob et al. 2018 (arXiv:1712.05877), section 3.2.
PASS = RewritePass(
    name="fold-batch-norm",
    operators=frozenset({"BatchNormalization"}),
    rules=[_IntoConv.rule(), _IntoConvTranspose.rule(), _IntoGemm.rule()],
)
