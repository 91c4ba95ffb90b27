"""Squares of vectors turned on their diagonal, in registers."""

from __future__ import annotations

from llvmlite import ir

from adlik_kernels.codegen.emit import I32, Emitter, Value, vector


def transposed(e: Emitter, rows: list[Value]) -> list[Value]:
    """Returns as many vectors as they have lanes, with rows and lanes exchanged.

    Halves of growing size are exchanged between pairs of rows: n log n shuffles for n lanes.

    Args:
        e: Where to write.
        rows: n vectors of n lanes, n a power of two.
    """
    lanes, step = len(rows), 1
    while step < lanes:
        kept = [lane if not lane & step else lanes + lane - step for lane in range(lanes)]
        taken = [lane + step if not lane & step else lanes + lane for lane in range(lanes)]
        masks = [ir.Constant(vector(I32, lanes), places) for places in (kept, taken)]
        turned = list(rows)
        for first in (lane for lane in range(lanes) if not lane & step):
            pair = rows[first], rows[first + step]
            turned[first], turned[first + step] = (
                e.builder.shuffle_vector(*pair, mask) for mask in masks
            )
        rows, step = turned, 2 * step
    return rows
