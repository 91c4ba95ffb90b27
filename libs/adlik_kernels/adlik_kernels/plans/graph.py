"""What a plan computes: fused operators on values of known shapes, but for batch and tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adlik_kernels.errors import KernelError

Array = NDArray[Any]

BATCH, TOKENS = "batch", "tokens"
"""Sizes that a call says: rows or pictures, and the length of sequences where it is open."""

Size = int | str
"""A number, `BATCH` or `TOKENS`."""


class UnsupportedGraph(KernelError):
    """A model with something that plans do not know.

    Args:
        message: What it is.
        nodes: Numbers of the nodes that a plan can't take.
    """

    def __init__(self, message: str, nodes: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.nodes = nodes


@dataclass(frozen=True, slots=True)
class Levels:
    """How uint8 levels stand for real numbers: real = scale * (level - zero).

    Attributes:
        scale: Above 0.
        zero: The level that stands for 0.
        apart: Scale and zero of each channel, where every channel has its own; the other two are
            of no account then.
    """

    scale: float
    zero: int
    apart: tuple[tuple[float, int], ...] = ()

    @property
    def scales(self) -> list[float]:
        """The one scale, or that of each channel."""
        return [scale for scale, _ in self.apart] or [self.scale]

    @property
    def zeros(self) -> list[int]:
        """The one zero, or that of each channel."""
        return [zero for _, zero in self.apart] or [self.zero]


@dataclass(frozen=True, slots=True)
class Value:
    """A value between operators.

    Attributes:
        shape: Without the batch: (height, width, channels) of a picture, (tokens, columns) of a
            sequence, (columns,) of a row.
        levels: How its uint8 elements stand for numbers; None for float32.
        layout: Where the channels of a picture lie, one of `workload.LAYOUTS`.
    """

    shape: tuple[Size, ...]
    levels: Levels | None = None
    layout: str = "last"

    @property
    def is_picture(self) -> bool:
        """Whether it has rows, columns and channels."""
        return len(self.shape) == 3

    @property
    def is_known(self) -> bool:
        """Whether all sizes but the batch are numbers."""
        return all(isinstance(size, int) for size in self.shape)

    @property
    def columns(self) -> int:
        """Numbers that lie side by side: the channels of a picture."""
        last = self.shape[-1]
        return last if isinstance(last, int) else 0

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return 1 if self.levels else 4

    def numbers(self, sizes: Mapping[str, int]) -> int:
        """Returns the elements of one batch entry.

        Args:
            sizes: What `TOKENS` stands for.
        """
        return math.prod(size if isinstance(size, int) else sizes[size] for size in self.shape)


PRODUCTS = ("conv", "dense")
"""Operators that multiply with weights and sum over all channels."""


@dataclass(frozen=True, slots=True, eq=False)
class Operator:
    """One fused operator.

    Attributes:
        kind: "conv", "depthwise", "transposed", "dense", "max", "mean", "sum", "scale", "map",
            "softmax", "norm", "attention", "quantize", "dequantize" or "reorder".
        inputs: Names of the values it reads. The second of "conv" and "dense" is the residual;
            those of "attention" are queries, keys, values and, if there is one, the mask.
        output: Name of the value it makes.
        w: Weights, [filters, channels, rows, columns] or [depth, columns]; float32 or int8; the
            scale of a "norm".
        bias: [filters] or [columns].
        w_scale: Scale of int8 weights, [filters] or [columns]; None for float weights.
        window: Rows and columns of a window.
        stride: Steps of the window.
        padding: Rows and columns around the picture: above, left, below, right.
        dilation: Pixels from one place of the window to the next.
        groups: Groups of channels of a "conv".
        output_padding: Rows and columns more at the end of a "transposed".
        activation: One of `workload.ACTIVATION_NAMES`, or "".
        epsilon: What "norm" adds to the variance.
        heads: Heads of an "attention".
        scale: What "attention" multiplies scores with.
        rounded: Levels that an int8 product is rounded to before its residual is added.
        algorithm: How a "conv" is computed; see `ways.Way`.
    """

    kind: str
    inputs: tuple[str, ...]
    output: str
    w: Array | None = None
    bias: Array | None = None
    w_scale: Array | None = None
    window: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    output_padding: tuple[int, int] = (0, 0)
    activation: str = ""
    epsilon: float = 0.0
    heads: int = 0
    scale: float = 1.0
    rounded: Levels | None = None
    algorithm: str = "direct"

    @property
    def takes_residual(self) -> bool:
        """Whether another branch can still join it."""
        is_plain = len(self.inputs) == 1 and not self.activation
        return self.kind in PRODUCTS and is_plain


@dataclass(frozen=True, slots=True)
class Graph:
    """A model, or a part of one, as fused operators.

    Attributes:
        inputs: Names of its inputs.
        outputs: Names of its outputs, as operators make them.
        names: What the model calls its outputs.
        values: Every value by name.
        operators: What to compute, in order.
        batch: The batch that the model was exported for; 0 for any.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    names: tuple[str, ...]
    values: dict[str, Value]
    operators: tuple[Operator, ...]
    batch: int = 0

    def __post_init__(self) -> None:
        known = set(self.inputs)
        for operator in self.operators:
            missing = [name for name in operator.inputs if name not in known]
            if missing:
                raise UnsupportedGraph(f"{missing} are read before they are made.")
            known.add(operator.output)


@dataclass(frozen=True, slots=True)
class Node:
    """A node of an ONNX graph.

    Attributes:
        number: Its place among the nodes.
        kind: Its operator, with the domain where it is not ONNX's own.
        inputs: Names of what it reads; "" for what is left out.
        outputs: Names of what it makes.
        attributes: Values by name.
        captures: Names that graphs inside it (the branches of an If, the body of a Loop) read of
            the graph around it.
    """

    number: int
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    captures: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of all that it needs: its inputs and what graphs inside it capture."""
        return (*(name for name in self.inputs if name), *self.captures)

    def input(self, place: int) -> str:
        """Returns the name at a place, "" where it is left out."""
        return self.inputs[place] if place < len(self.inputs) else ""


def as_float(array: Array) -> NDArray[np.float32]:
    """Returns a contiguous float32 form of a constant."""
    return np.ascontiguousarray(array, np.float32)
