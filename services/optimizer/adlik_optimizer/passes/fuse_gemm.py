"""Fuses MatMul and Add of matrices to Gemm."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from onnxscript.rewriter import MatchResult, RewriteRuleClassBase

from adlik_optimizer.passes.graph_pass import RewritePass

_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16})


class _FuseGemm(RewriteRuleClassBase):  # type: ignore[misc] # untyped
    """Replaces `Add(MatMul(a, b), c)` with `Gemm(a, b, c)`, a and b transposed or not.

    Args:
        transposes_a: Whether a is behind a Transpose.
        transposes_b: Whether b is.
    """

    def __init__(self, *, transposes_a: bool, transposes_b: bool) -> None:
        super().__init__()
        self._transposes = transposes_a, transposes_b

    def pattern(self, op: Any, a: Any, b: Any, c: Any) -> Any:
        """What is looked for."""
        sides = (
            op.Transpose(side, perm=[1, 0]) if turned else side
            for side, turned in zip((a, b), self._transposes, strict=True)
        )
        return op.Add(op.MatMul(*sides), c)

    def check(self, context: object, a: ir.Value, b: ir.Value, c: ir.Value) -> MatchResult:  # noqa: ARG002 - the rewriter's
        """Whether c means the same in a Gemm, where it can't make the product larger."""
        result = MatchResult()
        if a.dtype not in _FLOATS or any(v.shape is None or len(v.shape) != 2 for v in (a, b)):
            return result.fail("no product of two matrices of floats")
        columns = b.shape[0 if self._transposes[1] else 1]
        sizes = None if c.shape is None else tuple(c.shape)
        if not isinstance(columns, int) or sizes not in {(columns,), (1, columns)}:
            return result.fail("what is added is not one row of the product")
        return result

    def rewrite(self, op: Any, a: Any, b: Any, c: Any) -> Any:
        """What takes its place."""
        names = ("transA", "transB")
        turned = {n: 1 for n, t in zip(names, self._transposes, strict=True) if t}
        return op.Gemm(a, b, c, **turned)


# Must not fire on operands of other ranks than two, as Gemm does not broadcast over a batch, nor on
# anything added but one row of known size: a column, a scalar of several axes or an addend larger
# than the product may broadcast the product itself, and a row whose size is another open one too.
PASS = RewritePass(
    name="fuse-gemm",
    operators=frozenset({"MatMul"}),
    rules=[
        _FuseGemm.rule(transposes_a=True, transposes_b=True),
        _FuseGemm.rule(transposes_a=True, transposes_b=False),
        _FuseGemm.rule(transposes_a=False, transposes_b=True),
        _FuseGemm.rule(transposes_a=False, transposes_b=False),
    ],
)
