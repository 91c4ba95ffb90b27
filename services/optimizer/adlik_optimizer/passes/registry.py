"""All passes by name: those of this package, and those that others add by entry point."""

from __future__ import annotations

from importlib.metadata import entry_points

from adlik_optimizer.passes import (
    cancel_layout,
    fold_batch_norm,
    fold_constants,
    fuse_gemm,
    fuse_pad,
    normalize,
    remove_dead_code,
)
from adlik_optimizer.passes.graph_pass import Pass

# In the order in which they run: each leaves work for those behind it.
_OWN: tuple[Pass, ...] = (
    normalize.PASS,
    fold_constants.PASS,
    remove_dead_code.PASS,
    fold_batch_norm.PASS,
    fuse_pad.PASS,
    cancel_layout.PASS,
    fuse_gemm.PASS,
)


def passes() -> list[Pass]:
    """Returns the passes in order; those of other packages (group "adlik.passes") come last."""
    outside = [point.load() for point in sorted(entry_points(group="adlik.passes"))]
    return [*_OWN, *outside, remove_dead_code.PASS]
