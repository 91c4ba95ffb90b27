"""Moves a Pad of zeros into the Conv behind it."""

from __future__ import annotations

from onnxscript.rewriter.rules.common import (
    fuse_pad_into_conv_integer_rule,
    fuse_pad_into_conv_rule,
    normalize_pad_format_conv_integer_rule,
    normalize_pad_format_conv_rule,
)

from adlik_optimizer.passes.graph_pass import RewritePass

# Must not fire on padding with other values or modes, or of batch and channel axes.
PASS = RewritePass(
    name="fuse-pad",
    operators=frozenset({"Pad"}),
    rules=[
        normalize_pad_format_conv_rule,
        normalize_pad_format_conv_integer_rule,
        fuse_pad_into_conv_rule,
        fuse_pad_into_conv_integer_rule,
    ],
)
