"""The constants of fused ends: what comes behind the sums of products and convolutions."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from adlik_kernels.operators.ends import Constants, Quantization, float_constants, int8_constants
from adlik_kernels.plans.graph import Operator
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
    constants: Constants
    if operator.w_scale is None:
        constants = float_constants(operator.bias, w.shape[1])
    else:
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
        )
        constants = int8_constants(quantization, w, operator.bias, residual=bool(residual))
    return dict(zip(places, constants, strict=True))
