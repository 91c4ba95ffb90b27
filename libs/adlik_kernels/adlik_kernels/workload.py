"""What is computed: workloads, their checks of fitness, and their plain float64 references."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from adlik_kernels.errors import InvalidOperand

ACTIVATION_NAMES = ("relu", "relu6", "sigmoid", "tanh", "silu", "hardswish", "gelu")
"""Activations that operators fuse."""

OUTPUTS = {"fp32": ("float32",), "bf16": ("float32",), "int8": ("float32", "uint8")}
"""Output types of a matrix product, by its element type."""


class Fused(Protocol):
    """What the end of a micro-kernel needs to know of its workload."""

    @property
    def dtype(self) -> str:
        """Element type of the operands."""

    @property
    def output(self) -> str:
        """Element type of the result."""

    @property
    def bias(self) -> bool:
        """Whether a bias is added."""

    @property
    def residual(self) -> bool:
        """Whether an array like the result is added."""

    @property
    def activation(self) -> str:
        """Name of the activation, or ""."""


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

    @property
    def run(self) -> int:
        """Numbers along k that lie one behind the other in x: all of them."""
        return self.depth

    def for_rows(self, rows: int) -> Dense:
        """Returns the same product for a number of rows; 0 for any."""
        return Dense(**{**asdict(self), "rows": rows})

    @property
    def key(self) -> str:
        """The name under which its schedules are recorded; fused ends do not matter."""
        return f"dense-{self.dtype}-{self.rows}x{self.columns}x{self.depth}"


LONG_ROW = 28
"""Pixels in a row that tiles of any size fill well."""


@dataclass(frozen=True, slots=True)
class Conv2d:
    """activation(conv(x, w) + bias + residual) on channels-last arrays with room for padding.

    x has a border of at least the padding, which is zero already; the result and the residual may
    have borders of their own, which are left alone.

    Attributes:
        height: Rows of the input without padding.
        width: Columns of the input without padding.
        channels: Channels of the input.
        filters: Channels of the result.
        kernel: Rows and columns of the window.
        stride: Steps of the window.
        padding: Zero rows and columns on each side of the input.
        border: Rows and columns on each side of x in memory; the padding itself if not given.
        out_border: Rows and columns on each side of the result that are not written.
        residual_border: The same of the residual.
        dtype: "fp32", "bf16" or "int8"; channels fill whole 32-bit words.
        output: "float32", or "uint8" for int8.
        bias: Whether a bias of shape [filters] is added.
        residual: Whether an array like the result is added.
        activation: One of `ACTIVATION_NAMES`, or "".
    """

    height: int
    width: int
    channels: int
    filters: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    border: tuple[int, int] | None = None
    out_border: int = 0
    residual_border: int = 0
    dtype: str = "fp32"
    output: str = "float32"
    bias: bool = False
    residual: bool = False
    activation: str = ""

    def __post_init__(self) -> None:
        sizes = (self.height, self.width, self.channels, self.filters, *self.kernel, *self.stride)
        if min(sizes) < 1 or min(self.padding) < 0 or min(self.out_height, self.out_width) < 1:
            raise InvalidOperand(f"{self} has no result.", cure="Is the window too large?")
        if self.around[0] < self.padding[0] or self.around[1] < self.padding[1]:
            raise InvalidOperand(f"The border {self.border} is smaller than the padding.")
        group = {"fp32": 1, "bf16": 2, "int8": 4}.get(self.dtype, 0)
        if not group or self.channels % group:
            raise InvalidOperand(
                f"A {self.dtype} convolution cannot have {self.channels} channels.",
                cure=f"Pad the channels to a multiple of {group or 4}.",
            )

    @property
    def around(self) -> tuple[int, int]:
        """Rows and columns on each side of x in memory."""
        return self.padding if self.border is None else self.border

    @property
    def out_height(self) -> int:
        """Rows of the result."""
        return (self.height + 2 * self.padding[0] - self.kernel[0]) // self.stride[0] + 1

    @property
    def out_width(self) -> int:
        """Columns of the result."""
        return (self.width + 2 * self.padding[1] - self.kernel[1]) // self.stride[1] + 1

    @property
    def rows(self) -> int:
        """Pixels that lie one behind the other: the rows of the product that this is."""
        return self.flattened().out_width

    @property
    def columns(self) -> int:
        """Filters: the columns of that product."""
        return self.filters

    @property
    def depth(self) -> int:
        """Numbers of a window: the depth of that product."""
        return self.kernel[0] * self.kernel[1] * self.channels

    @property
    def run(self) -> int:
        """Numbers along k that lie one behind the other in x: a row of a window."""
        return self.kernel[1] * self.channels

    @property
    def operations(self) -> int:
        """Multiplications and additions for one picture."""
        return 2 * self.out_height * self.out_width * self.filters * self.depth

    @property
    def key(self) -> str:
        """The name under which its schedules are recorded; fused ends and borders do not matter."""
        size = f"{self.height}x{self.width}x{self.channels}"
        window = f"{self.filters}x{self.kernel[0]}x{self.kernel[1]}"
        steps = f"{self.stride[0]}x{self.stride[1]}x{self.padding[0]}x{self.padding[1]}"
        return f"conv-{self.dtype}-{size}-{window}-{steps}"

    def flattened(self) -> Conv2d:
        """Returns the same computation with short rows joined, if it is a plain product.

        Rows stay as many as they can: they are what threads share.
        """
        plain = (self.kernel, self.stride, self.padding) == ((1, 1), (1, 1), (0, 0))
        if not plain or any(self.around) or self.out_border or self.residual_border:
            return self
        joined = next(n for n in range(1, self.height + 1) if self._joins(n))
        return replace(self, height=self.height // joined, width=self.width * joined)

    def _joins(self, rows: int) -> bool:
        """Whether so many rows make one that whole tiles fill well."""
        whole = self.height % rows == 0
        return whole and (rows * self.width >= LONG_ROW or rows == self.height)


Workload = Dense | Conv2d
"""What schedules are searched for."""


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


def conv2d_reference(
    x: NDArray[Any],
    w: NDArray[Any],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    groups: int = 1,
) -> NDArray[np.float64]:
    """Returns the plain convolution in float64.

    Args:
        x: [batch, height, width, channels].
        w: [filters, channels / groups, rows, columns].
        stride: Steps of the window.
        padding: Zero rows and columns on each side.
        groups: Groups of channels.
    """
    (down, across), (rows, columns) = stride, w.shape[2:]
    x = np.pad(x.astype(np.float64), ((0, 0), *((p, p) for p in padding), (0, 0)))
    height, width = (x.shape[1] - rows) // down + 1, (x.shape[2] - columns) // across + 1
    parts = []
    for part, weights in zip(
        np.split(x, groups, axis=3), np.split(w.astype(np.float64), groups), strict=True
    ):
        total = np.zeros((x.shape[0], height, width, weights.shape[0]))
        for row in range(rows):
            for column in range(columns):
                below, right = row + down * (height - 1) + 1, column + across * (width - 1) + 1
                seen = part[:, row:below:down, column:right:across]
                total += seen @ weights[:, :, row, column].T
        parts.append(total)
    return np.concatenate(parts, axis=3)
