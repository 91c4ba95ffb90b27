"""The constants of a fused end: bias, scales and levels, as micro-kernels read them.

bias and scale are float32 [columns], padded to whole panels; quantization is float32 words:

    0   1 / scale of a uint8 result, 0 for a float32 result
    1   level of the result that stands for 0
    2   scale of a uint8 residual, 0 without one
    3   scale of the levels that sums are rounded to before a residual is added, 0 for none
    4   what is added to such a sum: its level 0 and the residual's, as real numbers

Levels of x and of the residual that stand for 0 are part of the bias: no kernel subtracts them.
Where sums are rounded, scale and bias make them levels, not real numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adlik_kernels.errors import InvalidOperand
from adlik_kernels.operators.operands import check
from adlik_kernels.operators.packing import pad_columns

WORDS = 5
"""Numbers of a quantization."""

Constants = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
"""Bias, scale and quantization; see the module."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """How int8 levels stand for real numbers: real = scale * (level - zero).

    Attributes:
        x_scale: Scale of x.
        x_zero: Level of x that stands for 0.
        w_scale: Scale of w, one value or one a column; its zero is 0.
        out_scale: Scale of a uint8 result; 0 for a float32 result.
        out_zero: Level of the result that stands for 0.
        residual_scale: Scale of a uint8 residual; 0 for a float32 residual, or none.
        residual_zero: Level of the residual that stands for 0.
        sum_scale: Scale of the uint8 levels that the product is rounded to before the residual is
            added; 0 to add to the product itself.
        sum_zero: The level of those that stands for 0.
    """

    x_scale: float
    x_zero: int
    w_scale: float | NDArray[np.float32]
    out_scale: float = 0.0
    out_zero: int = 0
    residual_scale: float = 0.0
    residual_zero: int = 0
    sum_scale: float = 0.0
    sum_zero: int = 0

    @property
    def output(self) -> str:
        """Element type of the result."""
        return "uint8" if self.out_scale else "float32"

    @property
    def residual_dtype(self) -> str:
        """Element type of a residual."""
        return "uint8" if self.residual_scale else "float32"

    @property
    def rounded(self) -> bool:
        """Whether the product is rounded before a residual is added."""
        return self.sum_scale > 0


def float_constants(bias: NDArray[np.float32] | None, columns: int) -> Constants:
    """Returns the constants of a float product: scales and levels are never read.

    Args:
        bias: float32 [columns], or None.
        columns: Columns of the result.
    """
    nothing = np.zeros(WORDS, np.float32)
    return pad_columns(0.0 if bias is None else bias, columns), nothing, nothing


def int8_constants(
    quantization: Quantization,
    w: NDArray[np.int8],
    bias: NDArray[np.float32] | None,
    *,
    residual: bool = False,
) -> Constants:
    """Returns the constants of an int8 product.

    Args:
        quantization: How levels stand for real numbers.
        w: int8 [depth, columns].
        bias: float32 [columns] in real numbers, or None.
        residual: Whether a residual is added.

    Raises:
        InvalidOperand: A scale or a zero does not fit.
    """
    columns = w.shape[1]
    scale = _column_scales(quantization, columns)
    # sum((x - zero) w) = sum(x w) - zero sum(w): the second part is known now and joins the bias.
    shift = -quantization.x_zero * w.sum(axis=0, dtype=np.int64) * scale.astype(np.float64)
    total = shift if bias is None else shift + bias
    after = 0.0
    if residual:
        after = -float(np.float32(quantization.residual_scale)) * quantization.residual_zero
    if quantization.rounded:
        step = float(np.float32(quantization.sum_scale))
        total, scale = total / step + quantization.sum_zero, scale / np.float32(step)
        after -= step * quantization.sum_zero
    else:
        total = total + after
    inverse = 1.0 / quantization.out_scale if quantization.out_scale else 0.0
    words = [inverse, quantization.out_zero, quantization.residual_scale]
    levels = np.array([*words, quantization.sum_scale, after], np.float32)
    return pad_columns(total.astype(np.float32), columns), pad_columns(scale, columns), levels


def _column_scales(quantization: Quantization, columns: int) -> NDArray[np.float32]:
    w_scale = quantization.w_scale
    if isinstance(w_scale, np.ndarray):
        w_scale = check("w_scale", w_scale, np.float32, (columns,))
    scale = np.full(columns, quantization.x_scale * np.asarray(w_scale), np.float32)
    q = quantization
    if not all(zero in range(256) for zero in (q.x_zero, q.out_zero, q.residual_zero, q.sum_zero)):
        raise InvalidOperand("The zero of a uint8 quantization is a level from 0 to 255.")
    others = np.array([q.out_scale, q.residual_scale, q.sum_scale])
    finite = np.all(np.isfinite(scale)) and np.all(np.isfinite(others))
    if not finite or np.any(scale <= 0) or np.any(others < 0):
        raise InvalidOperand("The scales of a quantization are finite numbers above 0.")
    return scale
