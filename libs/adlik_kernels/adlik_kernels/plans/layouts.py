"""Algorithms and layouts of a whole model, chosen together by dynamic programming.

What a convolution costs depends on where its channels lie, and turning a picture costs time as
well. Operators are taken in order; a state is which living values lie in which layouts. For each
state only the cheapest way there is kept, so the result is the best one for the measured costs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from adlik_kernels.machine.target import Target
from adlik_kernels.plans.costs import known_costs
from adlik_kernels.plans.graph import Graph, Operator, Value
from adlik_kernels.plans.steps import residual_of
from adlik_kernels.plans.ways import (
    DIRECT,
    WINOGRAD,
    Way,
    bare_workload,
    cost_key,
    reorder_key,
    ways_of,
)
from adlik_kernels.schedules.winograd import winograd_pays

LAST, BLOCKED = "last", "blocked"

Held = tuple[str, str]
"""A value and a layout in which it is there."""

State = frozenset[Held]


@dataclass(frozen=True, slots=True)
class _Path:
    """The cheapest way to a state: what was chosen last, and the path before."""

    cost: float
    choice: tuple[Operator, Way, tuple[Held, ...]] | None = None
    before: _Path | None = None

    def choices(self) -> list[tuple[Operator, Way, tuple[Held, ...]]]:
        """Returns all choices in order."""
        found, path = [], self
        while path.choice is not None and path.before is not None:
            found.append(path.choice)
            path = path.before
        return found[::-1]


def arranged(graph: Graph, target: Target, threads: int) -> Graph:
    """Returns a model whose convolutions have algorithms and layouts.

    Convolutions whose costs were never measured here keep their channels last.

    Args:
        graph: The model.
        target: The machine.
        threads: Threads that share a call.
    """
    costs = known_costs(target, threads)
    needed = _last_readers(graph)
    paths: dict[State, _Path] = {frozenset((n, LAST) for n in graph.inputs): _Path(0.0)}
    for number, operator in enumerate(graph.operators):
        ways = list(_priced_ways(graph, operator, costs, target, threads))
        following: dict[State, _Path] = {}
        for state, path in paths.items():
            for way, price in ways:
                after, turned, cost = _taken(graph, operator, way, state, costs)
                alive = frozenset(held for held in after if needed[held[0]] > number)
                total = path.cost + price + cost
                if alive not in following or total < following[alive].cost:
                    following[alive] = _Path(total, (operator, way, turned), path)
        paths = following
    ends = {state: path.cost + _to_last(graph, state, costs) for state, path in paths.items()}
    best = min(ends, key=lambda state: ends[state])
    return _rewritten(graph, paths[best].choices())


def _last_readers(graph: Graph) -> dict[str, int]:
    """The number of the last operator that reads each value; outputs are read at the end."""
    last = dict.fromkeys(graph.values, -1)
    for number, operator in enumerate(graph.operators):
        last[operator.output] = max(last[operator.output], number)
        last.update(dict.fromkeys(operator.inputs, number))
    last.update(dict.fromkeys(graph.outputs, len(graph.operators)))
    return last


def _priced_ways(
    graph: Graph, operator: Operator, costs: Mapping[str, float], target: Target, threads: int
) -> Iterator[tuple[Way, float]]:
    """The ways of an operator with their seconds; one way without a price for all others."""
    if operator.kind != "conv" or operator.w_scale is not None:
        yield Way(), 0.0
        return
    ways = ways_of(operator)
    works = [bare_workload(graph, operator, way) for way in ways]
    keys = [cost_key(work, way.algorithm) for work, way in zip(works, ways, strict=True)]
    if all(key in costs for key in keys):
        yield from ((way, costs[key]) for way, key in zip(ways, keys, strict=True))
        return
    results = 0
    if any(way.algorithm != DIRECT for way in ways):
        results = winograd_pays(works[0], target, threads)
    yield Way(f"{WINOGRAD}{results}" if results else DIRECT), 0.0


def _reads(operator: Operator, way: Way) -> list[Held]:
    """The layouts in which an operator wants what it reads."""
    residual = residual_of(operator)
    if operator.kind == "conv" and residual:
        return [(operator.inputs[0], way.in_layout), (residual, way.out_layout)]
    return [(name, way.in_layout) for name in operator.inputs]


def _taken(
    graph: Graph, operator: Operator, way: Way, state: State, costs: Mapping[str, float]
) -> tuple[State, tuple[Held, ...], float]:
    """The state behind an operator, what has to be turned before it, and what that costs."""
    turned = tuple(dict.fromkeys(held for held in _reads(operator, way) if held not in state))
    cost = sum(_turning(graph, name, costs) for name, _ in turned)
    return state | set(turned) | {(operator.output, way.out_layout)}, turned, cost


def _turning(graph: Graph, name: str, costs: Mapping[str, float]) -> float:
    value = graph.values[name]
    if not value.is_picture:
        return float("inf")
    return costs.get(reorder_key(tuple(int(size) for size in value.shape)), float("inf"))


def _to_last(graph: Graph, state: State, costs: Mapping[str, float]) -> float:
    missing = {name for name in graph.outputs if (name, LAST) not in state}
    return sum(_turning(graph, name, costs) for name in missing)


def _rewritten(graph: Graph, choices: list[tuple[Operator, Way, tuple[Held, ...]]]) -> Graph:
    """The model with reorderings where values are wanted in both layouts."""
    values = dict(graph.values)
    names: dict[Held, str] = {(name, LAST): name for name in graph.inputs}
    operators: list[Operator] = []

    def turn(name: str, layout: str) -> None:
        source = names[name, LAST if layout == BLOCKED else BLOCKED]
        names[name, layout] = made = f"{name}@{layout}"
        values[made] = replace(graph.values[name], layout=layout)
        operators.append(Operator("reorder", (source,), made))

    for operator, way, turned in choices:
        for name, layout in turned:
            turn(name, layout)
        inputs = tuple(names[held] for held in _reads(operator, way))
        operators.append(replace(operator, algorithm=way.algorithm, inputs=inputs))
        names[operator.output, way.out_layout] = operator.output
        values[operator.output] = _laid(graph.values[operator.output], way.out_layout)
    for name in dict.fromkeys(graph.outputs):
        if (name, LAST) not in names:
            turn(name, LAST)
    outputs = tuple(names[name, LAST] for name in graph.outputs)
    return replace(graph, values=values, operators=tuple(operators), outputs=outputs)


def _laid(value: Value, layout: str) -> Value:
    return value if value.layout == layout else replace(value, layout=layout)
