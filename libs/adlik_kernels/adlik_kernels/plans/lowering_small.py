"""From small operators to kernels: pooling, sums, activations, levels, layouts."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from adlik_kernels.operators.calls import Workload, kernel_of
from adlik_kernels.plans.graph import BATCH, Operator, Size, UnsupportedGraph
from adlik_kernels.plans.steps import IN, OUT, Lowering, Step
from adlik_kernels.templates import grids as places
from adlik_kernels.templates.grids import Grid
from adlik_kernels.templates.layouts import Blocked, Layout
from adlik_kernels.templates.pooling import Pool
from adlik_kernels.templates.quantized import AddQuantized, Dequantize, Quantize
from adlik_kernels.templates.small import Map, Softmax

WORTH_SHARING = 100_000
"""Numbers above which a small operator is shared among threads."""

Levelled = tuple[list[float], list[int]]
"""Scales and zeros as a kernel reads them."""


def lower_input(plan: Lowering, name: str) -> Step:
    """Returns what turns a caller's picture into channels last, and into levels if that is all."""
    made = _only_levels(plan, name) or name
    levels = plan.value(made).levels
    grid, channels = plan.grids[made], plan.value(name).columns
    planes = channels if channels != grid.channels else 0
    last = "uint8" if levels else "float32"
    layout = Layout(grid, to_last=True, last=last, planes=planes)
    levelled = ([levels.scale], [levels.zero]) if levels else None
    return _step(plan, layout, {0: IN + name, 1: made}, (BATCH,), levelled)


def is_input_levels(plan: Lowering, operator: Operator) -> bool:
    """Whether an operator only quantizes an input, which `lower_input` does on the way."""
    return any(_only_levels(plan, name) == operator.output for name in operator.inputs)


def _only_levels(plan: Lowering, name: str) -> str | None:
    """The levels of an input that nobody reads but as levels."""
    graph = plan.graph
    readers = [operator for operator in graph.operators if name in operator.inputs]
    alone = len(readers) == 1 and name in graph.inputs and name not in graph.outputs
    is_picture = graph.values[name].is_picture
    if not alone or not is_picture or readers[0].kind != "quantize":
        return None
    levels = graph.values[readers[0].output].levels
    return readers[0].output if levels is not None and not levels.apart else None


def lower_output(plan: Lowering, name: str) -> Step:
    """Returns what turns a picture into channels first, for a caller."""
    kind = "uint8" if plan.value(name).levels else "float32"
    layout = Layout(plan.grids[name], to_last=False, first=kind, last=kind)
    return _step(plan, layout, {0: name, 1: OUT + name}, (BATCH,), None)


def lower_small(plan: Lowering, operator: Operator) -> Step:
    """Returns the kernel of a small operator.

    Raises:
        UnsupportedGraph: There is none for levels.
    """
    makers: dict[str, Callable[[Lowering, Operator], tuple[Workload, Levelled | None]]] = {
        "dequantize": _dequantize,
        "map": _map,
        "max": _pool,
        "mean": _pool,
        "quantize": _quantize,
        "reorder": _reorder,
        "scale": _map,
        "softmax": _softmax,
        "sum": _sum,
    }
    workload, levelled = makers[operator.kind](plan, operator)
    values = {places.IN: operator.inputs[0], places.OUT: operator.output}
    if len(operator.inputs) > 1:
        values[places.SECOND] = operator.inputs[1]
    return _step(plan, workload, values, plan.rows(operator.inputs[0]), levelled)


def _step(
    plan: Lowering,
    workload: Workload,
    values: dict[int, str],
    rows: tuple[Size, ...],
    levelled: Levelled | None,
) -> Step:
    fixed = {}
    if levelled is not None:
        fixed[places.SCALES] = np.array(levelled[0], np.float32)
        fixed[places.ZEROS] = np.array(levelled[1], np.int32)
    grids = [plan.grids[name] for name in values.values() if name in plan.grids]
    return Step(
        kernel=kernel_of(workload, plan.target),
        values=values,
        fixed=fixed,
        counts={places.BATCH: rows},
        rows=rows,
        work=max(grid.numbers for grid in grids),
        threshold=WORTH_SHARING,
    )


def _ends(plan: Lowering, operator: Operator) -> tuple[Grid, Grid]:
    return plan.grids[operator.inputs[0]], plan.grids[operator.output]


def _quantize(plan: Lowering, operator: Operator) -> tuple[Workload, Levelled | None]:
    levels = plan.value(operator.output).levels
    assert levels is not None
    each = "number" if levels.apart else "array"
    return Quantize(*_ends(plan, operator), each=each), (levels.scales, levels.zeros)


def _dequantize(plan: Lowering, operator: Operator) -> tuple[Workload, Levelled | None]:
    levels = plan.value(operator.inputs[0]).levels
    assert levels is not None
    each = "number" if levels.apart else "array"
    return Dequantize(*_ends(plan, operator), each=each), (levels.scales, levels.zeros)


def _reorder(plan: Lowering, operator: Operator) -> tuple[Workload, Levelled | None]:
    """From channels last to blocks, or back."""
    given, made = _ends(plan, operator)
    to_blocked = plan.value(operator.output).layout == "blocked"
    last, blocked = (given, made) if to_blocked else (made, given)
    return Blocked(last, blocked.border, to_blocked), None


def _sum(plan: Lowering, operator: Operator) -> tuple[Workload, Levelled | None]:
    made = plan.value(operator.output).levels
    if made is None:
        return _map(plan, operator)
    left, right = (plan.value(name).levels for name in operator.inputs)
    if left is None or right is None or operator.activation not in {"", "relu"}:
        raise UnsupportedGraph("There is no such sum of levels.")
    source, result = _ends(plan, operator)
    lowest = made.zero if operator.activation else 0
    scales = [left.scale / made.scale, right.scale / made.scale]
    zeros = [left.zero, right.zero, made.zero, lowest]
    return AddQuantized(source, plan.grids[operator.inputs[1]], result), (scales, zeros)


def _map(plan: Lowering, operator: Operator) -> tuple[Workload, Levelled | None]:
    _need_floats(plan, operator)
    second = plan.grids[operator.inputs[1]] if len(operator.inputs) > 1 else None
    join = "multiply" if operator.kind == "scale" else "add"
    return Map(*_ends(plan, operator), second, operator.activation, join), None


def _softmax(plan: Lowering, operator: Operator) -> tuple[Workload, Levelled | None]:
    _need_floats(plan, operator)
    return Softmax(*_ends(plan, operator)), None


def _pool(plan: Lowering, operator: Operator) -> tuple[Workload, Levelled | None]:
    given, made = (plan.value(n).levels for n in (operator.inputs[0], operator.output))
    if (given is None) != (made is None):
        raise UnsupportedGraph("There is no pooling from levels to numbers.")
    source, result = _ends(plan, operator)
    shape = (operator.window, operator.stride, operator.padding[:2])
    workload = Pool(source, result, operator.kind, *shape, "uint8" if given else "float32")
    if given is None or made is None or operator.kind == "max":
        return workload, None
    return workload, ([given.scale / made.scale], [given.zero, made.zero])


def _need_floats(plan: Lowering, operator: Operator) -> None:
    if any(plan.value(name).levels for name in (*operator.inputs, operator.output)):
        raise UnsupportedGraph(f"There is no {operator.kind} of levels.")
