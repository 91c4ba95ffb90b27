"""One kernel of a plan, and what makes kernels of operators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from adlik_kernels.codegen.build import Loaded
from adlik_kernels.machine.target import Target
from adlik_kernels.operators.operands import address
from adlik_kernels.plans.graph import BATCH, Graph, Operator, Size, Value
from adlik_kernels.templates.grids import Grid
from adlik_kernels.templates.phases import Transposed2d

IN, OUT = "@in:", "@out:"
"""Beginnings of the names of arrays that callers give: channels first, as models see them."""


@dataclass(frozen=True, slots=True)
class Step:
    """One kernel of a plan.

    Attributes:
        kernel: Its code.
        values: Names of the values whose addresses are arguments, by place; "" for none.
        fixed: Weights and constants, by place.
        counts: Sizes whose product is an argument, by place.
        rows: Sizes whose product says how much there is to do.
        work: Operations of one row, to decide whether threads share it.
        threshold: Operations above which they do.
        words: Numbers that are arguments, by place.
        few: Steps to take instead for at most so many rows.
        scratch: Bytes that only this kernel uses, by the place of their address.
    """

    kernel: Loaded
    values: dict[int, str]
    fixed: dict[int, NDArray[Any]]
    counts: dict[int, tuple[Size, ...]]
    rows: tuple[Size, ...]
    work: int
    threshold: int
    words: dict[int, int] = field(default_factory=dict)
    few: dict[int, Step] = field(default_factory=dict)
    scratch: dict[int, int] = field(default_factory=dict)

    def known(self, sizes: Mapping[str, int]) -> dict[int, int]:
        """Returns the arguments that do not depend on where values lie, by place."""
        weights = {place: address(array) for place, array in self.fixed.items()}
        counts = {place: product(parts, sizes) for place, parts in self.counts.items()}
        return {**weights, **counts, **self.words}

    def at(self, sizes: Mapping[str, int]) -> Step:
        """Returns the step to take for sizes."""
        rows = product(self.rows, sizes)
        return next((step for most, step in sorted(self.few.items()) if rows <= most), self)


def product(parts: tuple[Size, ...], sizes: Mapping[str, int]) -> int:
    """Returns the product of sizes, some of which a call says."""
    total = 1
    for part in parts:
        total *= part if isinstance(part, int) else sizes[part]
    return total


@dataclass(frozen=True, slots=True)
class Lowering:
    """What operators need to know of the whole plan when kernels are made of them.

    Attributes:
        graph: The model.
        target: The machine.
        threads: Threads that share a call.
        grids: Where pictures lie in memory, by the value's name; rows are pictures of one pixel.
    """

    graph: Graph
    target: Target
    threads: int
    grids: dict[str, Grid]

    def value(self, name: str) -> Value:
        """Returns what is known of a value."""
        return self.graph.values[name]

    def rows(self, name: str) -> tuple[Size, ...]:
        """Returns the sizes whose product is the number of pictures, or of rows, of a value."""
        value = self.value(name)
        return (BATCH,) if value.is_picture else (BATCH, *value.shape[:-1])


def grids_of(graph: Graph) -> dict[str, Grid]:
    """Returns every value's place in memory: its border is what windows that read it need."""
    borders = dict.fromkeys(graph.values, 0)
    for operator in graph.operators:
        source = operator.inputs[0]
        if operator.kind == "conv":
            borders[source] = max(borders[source], *operator.padding)
        if operator.kind == "transposed":
            borders[source] = max(borders[source], *transposed_of(graph, operator).needed)
    return {
        name: _grid(value, borders[name])
        for name, value in graph.values.items()
        if value.is_known or not value.is_picture
    }


def transposed_of(
    graph: Graph, operator: Operator, border: int | None = None, out_border: int = 0
) -> Transposed2d:
    """Returns what a transposed convolution computes.

    Args:
        graph: The model.
        operator: The convolution.
        border: Rows and columns around its input; as many as it needs if not given.
        out_border: The same around its result.
    """
    assert operator.w is not None
    height, width, channels = (int(size) for size in graph.values[operator.inputs[0]].shape)
    return Transposed2d(
        height=height,
        width=width,
        channels=channels,
        filters=operator.w.shape[1],
        kernel=operator.window,
        stride=operator.stride,
        padding=operator.padding[:2],
        output_padding=operator.output_padding,
        border=None if border is None else (border, border),
        out_border=out_border,
        bias=operator.bias is not None,
        activation=operator.activation,
    )


def _grid(value: Value, border: int) -> Grid:
    if not value.is_picture:
        return Grid(1, 1, value.columns)
    height, width, channels = (int(size) for size in value.shape)
    return Grid(height, width, channels, border)


def residual_of(operator: Operator) -> str:
    """Returns the name of what is added to a product, "" for nothing."""
    return operator.inputs[1] if len(operator.inputs) > 1 else ""
