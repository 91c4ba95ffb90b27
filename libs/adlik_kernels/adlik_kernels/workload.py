"""What is computed: workloads, their checks of fitness, and their plain float64 references."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adlik_kernels.errors import InvalidOperand

ACTIVATION_NAMES = ("relu", "relu6", "sigmoid", "tanh", "silu", "hardswish", "gelu")
"""Activations that operators fuse."""

OUTPUTS = {"fp32": ("float32",), "bf16": ("float32",), "int8": ("float32", "uint8")}
"""Output types of a matrix product, by its element type."""


@dataclass(frozen=True, slots=True)
class Dense:
    """activation(x @ w + bias + residual), the matrix product with its fused end.

    Attributes:
        rows: Rows of x, or 0 for a kernel that takes any number of them.
        columns: Columns of w and of the result.
        depth: Columns of x and rows of w.
        dtype: "fp32", "bf16" or "int8" (unsigned x, signed w, 32-bit sums).
        output: "float32", or "uint8" for an int8 product that is requantized.
        bias: Whether a bias of shape [columns] is added.
        residual: Whether an array shaped like the result is added before the activation.
        activation: One of `ACTIVATION_NAMES`, or "".
    """

    rows: int
    columns: int
    depth: int
    dtype: str = "fp32"
    output: str = "float32"
    bias: bool = False
    residual: bool = False
    activation: str = ""

    def __post_init__(self) -> None:
        if self.rows < 0 or self.columns < 1 or self.depth < 1:
            raise InvalidOperand(
                f"A product of {self.rows}x{self.depth} and {self.depth}x{self.columns} is empty.",
                cure="Give at least one row, column and element along the depth.",
            )
        if self.dtype not in OUTPUTS or self.output not in OUTPUTS[self.dtype]:
            raise InvalidOperand(
                f"There is no {self.dtype} product with {self.output} results.",
                cure=f"Use one of {OUTPUTS}.",
            )
        if self.activation and self.activation not in ACTIVATION_NAMES:
            raise InvalidOperand(
                f"There is no activation {self.activation!r}.",
                cure=f"Use one of {ACTIVATION_NAMES}, or none.",
            )

    @property
    def operations(self) -> int:
        """Multiplications and additions of one call."""
        return 2 * max(self.rows, 1) * self.columns * self.depth

    def for_rows(self, rows: int) -> Dense:
        """Returns the same product for a number of rows; 0 for any."""
        return Dense(**{**asdict(self), "rows": rows})

    @property
    def key(self) -> str:
        """The name under which its schedules are recorded; fused ends do not matter."""
        return f"dense-{self.dtype}-{self.rows}x{self.columns}x{self.depth}"


def activate(name: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Applies an activation in float64, as the plain reference of the fused ones.

    Args:
        name: One of `ACTIVATION_NAMES`, or "".
        x: Any shape.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        sigmoid = 1.0 / (1.0 + np.exp(-x))
        choices: dict[str, Any] = {
            "": lambda: x,
            "relu": lambda: np.maximum(x, 0.0),
            "relu6": lambda: np.minimum(np.maximum(x, 0.0), 6.0),
            "sigmoid": lambda: sigmoid,
            "tanh": lambda: np.tanh(x),
            "silu": lambda: x * sigmoid,
            "hardswish": lambda: x * np.minimum(np.maximum(x + 3.0, 0.0), 6.0) / 6.0,
            "gelu": lambda: 0.5 * x * (1.0 + _erf(x / math.sqrt(2.0))),
        }
        result: NDArray[np.float64] = choices[name]()
    return result


def dense_reference(
    x: NDArray[Any],
    w: NDArray[Any],
    bias: NDArray[Any] | None = None,
    residual: NDArray[Any] | None = None,
    activation: str = "",
) -> NDArray[np.float64]:
    """Returns activation(x @ w + bias + residual) in float64.

    Args:
        x: [rows, depth].
        w: [depth, columns].
        bias: [columns].
        residual: [rows, columns].
        activation: One of `ACTIVATION_NAMES`, or "".
    """
    with np.errstate(invalid="ignore", over="ignore"):
        total = x.astype(np.float64) @ w.astype(np.float64)
        if bias is not None:
            total = total + bias
        if residual is not None:
            total = total + residual
    return activate(activation, total)


def _erf(x: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = np.vectorize(math.erf, otypes=[np.float64])(x)
    return result
