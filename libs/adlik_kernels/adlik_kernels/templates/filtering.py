"""Winograd's minimal filtering: transforms that make a 3x3 convolution multiply less.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016): m x m results of a 3x3
window come from (m + 2)² products instead of 9 m². The transforms evaluate polynomials at a few
points. F(4) takes 0, ±3/4, ±3/2 and infinity instead of the usual 0, ±1, ±2: every constant is
exact in binary and rounding errors are a fifth (Barabasz et al., "Error Analysis and Improving the
Accuracy of Winograd Convolution for Deep Neural Networks", 2020, on the choice of points).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from adlik_kernels.codegen.emit import Emitter, Value
from adlik_kernels.codegen.isa import multiply_add
from adlik_kernels.codegen.vectormath import constant

WINDOW = 3
"""Rows and columns of the window."""

RESULTS = (2, 4)
"""Values of m: rows and columns of the result that one tile makes."""

NEAR, FAR = 0.75, 1.5
"""The points of F(4) besides zero and infinity, each with its negative."""


def points(m: int) -> int:
    """Returns how many points a row of a tile has: as many as it reads of x."""
    return m + WINDOW - 1


def transformed_filters(w: NDArray[np.float32], m: int) -> NDArray[np.float32]:
    """Returns filters at the points: float32 [points², channels, filters].

    Args:
        w: float32 [filters, channels, 3, 3].
        m: One of `RESULTS`.
    """
    rows = _filter_matrix(m)
    seen = np.einsum("ia,kcab,jb->ijck", rows, w.astype(np.float64), rows, optimize=True)
    return np.ascontiguousarray(seen.reshape(-1, w.shape[1], w.shape[0]), np.float32)


def _filter_matrix(m: int) -> NDArray[np.float64]:
    """G of the paper: each row holds 1, p, p² over the product of p's distances to the others."""
    finite = [0.0, 1.0, -1.0] if m == 2 else [0.0, NEAR, -NEAR, FAR, -FAR]
    rows = []
    for point in finite:
        apart = np.prod([point - other for other in finite if other != point])
        rows.append(np.array([1.0, point, point * point]) / apart)
    return np.array([*rows, [0.0, 0.0, 1.0]])


class Transforms:
    """The transforms of one row or column of a tile, on vectors of channels.

    Args:
        e: Writes the instructions.
        m: One of `RESULTS`.
        fused: Whether the CPU has fused multiply-adds.
    """

    def __init__(self, e: Emitter, m: int, *, fused: bool) -> None:
        self._e, self._m, self._fused = e, m, fused

    def input(self, d: list[Value]) -> list[Value]:
        """Returns a row of x at the points: B of the paper."""
        b = self._e.builder
        if self._m == 2:
            middle = b.fsub(d[2], d[0])
            # The point 0 of x² - 1 is -1, so that the filter's 1 / (0 - 1)(0 + 1) meets it.
            return [middle, b.fadd(d[1], d[2]), b.fsub(d[2], d[1]), b.fsub(d[3], d[1])]
        near, far = NEAR * NEAR, FAR * FAR
        even_near, odd_near = self._plus(d[2], -far, d[4]), self._plus(d[1], -far, d[3])
        even_far, odd_far = self._plus(d[2], -near, d[4]), self._plus(d[1], -near, d[3])
        return [
            self._plus(d[0], near * far, self._plus(d[2], -near - far, d[4])),
            self._plus(odd_near, NEAR, even_near),
            self._plus(odd_near, -NEAR, even_near),
            self._plus(odd_far, FAR, even_far),
            self._plus(odd_far, -FAR, even_far),
            self._plus(d[1], near * far, self._plus(d[3], -near - far, d[5])),
        ]

    def output(self, y: list[Value]) -> list[Value]:
        """Returns a row of the result from its values at the points: A of the paper."""
        b = self._e.builder
        both, apart = b.fadd(y[1], y[2]), b.fsub(y[1], y[2])
        if self._m == 2:
            return [b.fadd(y[0], both), b.fadd(apart, y[3])]
        far_both, far_apart = b.fadd(y[3], y[4]), b.fsub(y[3], y[4])
        return [
            b.fadd(y[0], b.fadd(both, far_both)),
            self._plus(far_apart, FAR, self._times(apart, NEAR)),
            self._plus(far_both, FAR**2, self._times(both, NEAR**2)),
            self._plus(far_apart, FAR**3, self._plus(apart, NEAR**3, y[5])),
        ]

    def both_ways(self, kind: str, tile: list[list[Value]]) -> list[list[Value]]:
        """Returns a tile transformed along its columns, then along its rows.

        Args:
            kind: "input" or "output".
            tile: Rows of vectors.
        """
        line: Any = self.input if kind == "input" else self.output
        columns = [line(list(column)) for column in zip(*tile, strict=True)]
        return [line(list(row)) for row in zip(*columns, strict=True)]

    def _plus(self, x: Value, factor: float, total: Value) -> Value:
        return multiply_add(self._e, x, constant(x, factor), total, fused=self._fused)

    def _times(self, x: Value, factor: float) -> Value:
        return self._e.builder.fmul(x, constant(x, factor))
