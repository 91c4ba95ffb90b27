"""The ways to compute a convolution: algorithms and layouts."""

from __future__ import annotations

from dataclasses import dataclass

from adlik_kernels.plans.graph import Graph, Operator
from adlik_kernels.workload import BLOCK, Conv2d

DIRECT, WINOGRAD = "direct", "winograd"
"""Algorithms; the second is followed by the results of a tile's side."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to compute a convolution.

    Attributes:
        algorithm: `DIRECT`, or `WINOGRAD` followed by the results of a tile's side.
        in_layout: Where the channels of the input lie, one of `workload.LAYOUTS`.
        out_layout: The same of the output and of the residual.
    """

    algorithm: str = DIRECT
    in_layout: str = "last"
    out_layout: str = "last"


def bare_workload(graph: Graph, operator: Operator, way: Way) -> Conv2d:
    """Returns a convolution without its fused end and with no more border than it needs."""
    assert operator.w is not None
    height, width, channels = (int(size) for size in graph.values[operator.inputs[0]].shape)
    return Conv2d(
        height=height,
        width=width,
        channels=channels,
        filters=operator.w.shape[0],
        kernel=operator.window,
        stride=operator.stride,
        padding=operator.padding,
        dilation=operator.dilation,
        groups=operator.groups,
        in_layout=way.in_layout,
        out_layout=way.out_layout,
    )


def ways_of(operator: Operator) -> list[Way]:
    """Returns the ways in which a float convolution can be computed."""
    assert operator.w is not None
    filters, channels = operator.w.shape[0] // operator.groups, operator.w.shape[1]
    ins = ("last", "blocked") if channels % BLOCK == 0 else ("last",)
    outs = ("last", "blocked") if filters % BLOCK == 0 else ("last",)
    found = [Way(DIRECT, given, made) for given in ins for made in outs]
    is_plain = operator.groups == 1 and operator.dilation == (1, 1)
    if is_plain and (operator.window, operator.stride) == ((3, 3), (1, 1)):
        found += [Way(f"{WINOGRAD}{results}") for results in (2, 4)]
    return found


def cost_key(workload: Conv2d, algorithm: str) -> str:
    """Returns the name under which a way's cost is kept."""
    return f"{algorithm}:{workload.key}"


def reorder_key(shape: tuple[int, ...]) -> str:
    """Returns the name under which the cost of another layout is kept."""
    return "reorder:{}x{}x{}".format(*shape)
