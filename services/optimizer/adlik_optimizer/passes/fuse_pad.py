"""Moves a Pad of zeros into the Conv behind it."""

from __future__ import annotations

import onnx_ir as ir
from onnxscript.rewriter import MatchResult
from onnxscript.rewriter.rules.common import _fuse_pad_into_conv as rules
from onnxscript.rewriter.rules.common import fuse_pad_into_conv_rule

from adlik_optimizer.passes.graph_pass import RewritePass


class _WithoutDilation:
    """Keeps a rule from dilated windows, whose reach it does not count."""

    def check(self, context: object, conv: ir.Value, **others: ir.Value) -> MatchResult:
        """Whether the rule may fire."""
        node = conv.producer()
        assert node is not None  # the pattern has found it
        if any(step != 1 for step in node.attributes.get_ints("dilations", ())):
            return MatchResult().fail("its window is dilated")
        found: MatchResult = super().check(context, conv, **others)  # type: ignore[misc]
        return found


class _NormalizeConv(_WithoutDilation, rules.NormalizePadFormatConv):  # type: ignore[misc]
    """Conv with an `auto_pad`."""


class _NormalizeConvInteger(
    _WithoutDilation,
    rules.NormalizePadFormatConvInteger,  # type: ignore[misc]
):
    """ConvInteger with an `auto_pad`."""


class _FuseConvIntegerPad(rules.FuseConvIntegerPad):  # type: ignore[misc]
    """ConvInteger(Pad(x)), where level 0 stands for 0: a ConvInteger pads with what does."""

    def check(self, context: object, x: ir.Value, pad: ir.Value, conv: ir.Value) -> MatchResult:
        """Whether the rule may fire."""
        node = conv.producer()
        assert node is not None  # the pattern has found it
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            return MatchResult().fail("another level than 0 may stand for 0")
        found: MatchResult = super().check(context, x, pad, conv)
        return found


# Must not fire on padding with other values or modes, or of batch and channel axes.
PASS = RewritePass(
    name="fuse-pad",
    operators=frozenset({"Pad"}),
    rules=[
        _NormalizeConv.rule(),
        _NormalizeConvInteger.rule(),
        fuse_pad_into_conv_rule,
        _FuseConvIntegerPad.rule(),
    ],
)
