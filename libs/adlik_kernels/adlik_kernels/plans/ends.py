"""The constants of fused ends: what comes behind the sums of products and convolutions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adlik_kernels.operators.ends import Quantization, float_constants, int8_constants
from adlik_kernels.plans.graph import Levels, Operator
from adlik_kernels.plans.steps import Lowering, residual_of


def residual_dtype(plan: Lowering, operator: Operator) -> str:
    """Returns the element type of what is added to a product."""
    residual = residual_of(operator)
    return "uint8" if residual and plan.value(residual).levels else "float32"


def end_of(
    plan: Lowering, operator: Operator, w: NDArray[Any], places: tuple[int, int, int] = (3, 5, 6)
) -> dict[int, NDArray[Any]]:
    """Returns bias, scale and levels of a product's fused end, by their places.

    Args:
        plan: The plan.
        operator: The product.
        w: Its weights, [depth, columns].
        places: Places of the three.
    """
    if operator.w_scale is None:
        return dict(zip(places, float_constants(operator.bias, w.shape[1]), strict=True))
    given, made = (plan.value(n).levels for n in (operator.inputs[0], operator.output))
    residual = residual_of(operator)
    added = plan.value(residual).levels if residual else None
    assert given is not None
    quantization = Quantization(
        x_scale=given.scale,
        x_zero=given.zero,
        w_scale=operator.w_scale,
        out_scale=made.scale if made else 0.0,
        out_zero=made.zero if made else 0,
        residual_scale=added.scale if added else 0.0,
        residual_zero=added.zero if added else 0,
        sum_scale=operator.rounded.scale if operator.rounded else 0.0,
        sum_zero=operator.rounded.zero if operator.rounded else 0,
    )
    bias = operator.bias
    if given.apart:
        quantization, bias = _from_channels(given, quantization, w, bias)
    if made is not None and made.apart:
        quantization, bias = _to_channels(made, quantization, bias)
    elif made is not None and not residual and operator.activation in {"", "relu"}:
        quantization, bias = _to_levels(made, quantization, bias)
    constants = int8_constants(quantization, w, bias, residual=bool(residual))
    return dict(zip(places, constants, strict=True))


Ends = tuple[Quantization, NDArray[np.float32] | None]


def _from_channels(
    given: Levels, quantization: Quantization, w: NDArray[Any], bias: NDArray[Any] | None
) -> Ends:
    """Ends of a depthwise convolution whose input has a scale and a zero for each channel."""
    scale = quantization.w_scale * np.array(given.scales, np.float32)
    shift = -np.array(given.zeros) * w.sum(axis=0, dtype=np.int64) * scale.astype(np.float64)
    total = (shift if bias is None else shift + bias).astype(np.float32)
    return replace(quantization, x_scale=1.0, x_zero=0, w_scale=scale.astype(np.float32)), total


def _to_levels(made: Levels, quantization: Quantization, bias: NDArray[Any] | None) -> Ends:
    """Ends that make levels: sums are counted in their steps, so that they are rounded once."""
    step = np.float32(made.scale)
    scale = np.asarray(np.float32(quantization.x_scale) * quantization.w_scale, np.float32) / step
    total = None if bias is None else (bias / float(step)).astype(np.float32)
    return replace(quantization, x_scale=1.0, w_scale=scale, out_scale=1.0), total


def _to_channels(made: Levels, quantization: Quantization, bias: NDArray[Any] | None) -> Ends:
    """Ends that make levels with a scale and a zero for each channel: counted in their steps."""
    steps = np.array(made.scales, np.float32)
    zeros = np.array(made.zeros, np.float32)
    scale = (quantization.w_scale / steps).astype(np.float32)
    total = zeros if bias is None else (bias / steps + zeros).astype(np.float32)
    return replace(quantization, w_scale=scale, out_scale=1.0, out_zero=0), total
