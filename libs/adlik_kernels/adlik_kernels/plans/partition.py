"""Which parts of a model run as plans, and which fall back to ONNX Runtime.

Nodes are levelled so that parts alternate between the two: a part reads only from parts before it.
What a plan can't take is learnt by reading: each refusal sends some nodes back, until all that is
left can be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from adlik_kernels.plans.declined import declined
from adlik_kernels.plans.graph import BATCH, Graph, Node, UnsupportedGraph
from adlik_kernels.plans.onnx_graph import given_values, read_nodes
from adlik_kernels.plans.source import INT64, Source

HEAVY = frozenset({"conv", "depthwise", "dense", "attention"})
"""Operators that make a part worth a call of its own."""


@dataclass(frozen=True, slots=True)
class Part:
    """Nodes that run in one call.

    Attributes:
        nodes: The nodes, in order.
        inputs: Names of what it reads from outside.
        outputs: Names of what others want of it.
        graph: What a plan computes; None for a part that ONNX Runtime runs.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    graph: Graph | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """A model in parts.

    Attributes:
        parts: The parts, in order.
        refused: Why nodes run on ONNX Runtime, by their numbers.
    """

    parts: tuple[Part, ...]
    refused: dict[int, str]


def split(source: Source, known: Mapping[int, str] | None = None) -> Split:
    """Returns a model in parts, as many nodes as possible in plans.

    Args:
        source: The model.
        known: Why some nodes can't be in plans, by their numbers.
    """
    refused = {**declined(source), **(known or {})}
    while True:
        parts = []
        for part in _parts(source, refused):
            if any(node.number in refused for node in part.nodes):
                parts.append(part)
                continue
            try:
                given = given_values(source, part.inputs)
                graph = read_nodes(source, part.nodes, given, part.outputs)
                _check_shapes(source, part, graph)
            except UnsupportedGraph as error:
                numbers = [number for number in error.nodes if number not in refused]
                numbers = numbers or [node.number for node in part.nodes]
                refused.update(dict.fromkeys(numbers, error.message))
                break
            if not any(operator.kind in HEAVY for operator in graph.operators):
                refused.update({node.number: "too little for a call" for node in part.nodes})
                break
            inputs = tuple(name for name in part.inputs if name in graph.inputs)
            parts.append(Part(part.nodes, inputs, part.outputs, graph))
        else:
            if all(part.graph is None for part in parts):
                return Split((_whole(source),), refused)
            if not (odd := _unnamed(source, parts)):
                return Split(tuple(parts), refused)
            reason = f"a part can't be given {odd}, whose type is not known"
            refused.update({node.number: reason for node in source.nodes})


def _whole(source: Source) -> Part:
    """All of a model that no plan takes a part of."""
    return Part(tuple(_wanted(source)), source.inputs, source.outputs)


def _unnamed(source: Source, parts: Iterable[Part]) -> str:
    """The name of a value between parts whose type nobody knows, "" if there is none."""
    given = (name for part in parts for name in part.inputs)
    return next((name for name in given if name not in source.infos), "")


def _check_shapes(source: Source, part: Part, graph: Graph) -> None:
    """Checks that what a plan gives is what the model says: its results are shaped by that.

    Raises:
        UnsupportedGraph: A result's shape is not known, or is another.
    """
    makers = {name: node.number for node in part.nodes for name in node.outputs}
    for name, real in zip(graph.names, graph.outputs, strict=True):
        value, dims = graph.values[real], source.dims.get(name, (None,))
        height_first = (value.shape[2], *value.shape[:2]) if value.is_picture else value.shape
        wanted = [size for size in (source.batch or BATCH, *height_first) if size != 1]
        if wanted != [size for size in dims if size != 1]:
            raise UnsupportedGraph(f"The shape of {name} is not known.", (makers[name],))


def _parts(source: Source, refused: Mapping[int, str]) -> list[Part]:
    """Parts by level: even ones are ONNX Runtime's, odd ones are plans'."""
    made_at: dict[str, int] = {}
    levels: dict[int, list[Node]] = {}
    free: dict[str, Node] = {}
    for node in _wanted(source):
        level = max((made_at.get(name, 0) for name in node.reads), default=0)
        is_plans = node.number not in refused
        if is_plans and _is_free(source, node):
            free.update(dict.fromkeys(node.outputs, node))
        else:
            level += level % 2 != is_plans
            levels.setdefault(level, []).append(node)
        made_at.update(dict.fromkeys(node.outputs, level))
    groups = [_with_free(levels[level], free) for level in sorted(levels)]
    return [_part(source, nodes, groups) for nodes in groups]


def _wanted(source: Source) -> list[Node]:
    """The nodes that an output needs and that are not computed already, in order."""
    needed, found = set(source.outputs), []
    for node in reversed(source.nodes):
        makes = [name for name in node.outputs if name in needed and name not in source.constants]
        if makes:
            found.append(node)
            needed.update(node.reads)
    return found[::-1]


def _is_free(source: Source, node: Node) -> bool:
    """Whether a node costs nothing: it computes sizes, or says what levels of weights mean."""
    if any(name in source.outputs for name in node.outputs):
        return False
    is_size = all(source.types.get(name) == INT64 for name in node.outputs)
    return is_size or all(name in source.constants for name in node.inputs)


def _with_free(nodes: list[Node], free: Mapping[str, Node]) -> list[Node]:
    """Nodes with those that cost nothing and that they need, in every part anew."""
    found = {node.number: node for node in nodes}
    waiting = list(nodes)
    while waiting:
        for name in waiting.pop().reads:
            node = free.get(name)
            if node is not None and node.number not in found:
                found[node.number] = node
                waiting.append(node)
    return [found[number] for number in sorted(found)]


def _part(source: Source, nodes: list[Node], groups: list[list[Node]]) -> Part:
    """A group of nodes with what it reads and what others read of it."""
    made = {name: None for node in nodes for name in node.outputs if name}
    wanted = set(source.outputs)
    for group in groups:
        if group is not nodes:
            own = {name for node in group for name in node.outputs}
            wanted.update(n for node in group for n in node.reads if n not in own)
    inputs = dict.fromkeys(
        name
        for node in nodes
        for name in node.reads
        if name not in made and name not in source.constants
    )
    outputs = tuple(name for name in made if name in wanted and name not in source.constants)
    return Part(tuple(nodes), tuple(inputs), outputs)


def share(parts: Iterable[Part]) -> float:
    """Returns the part of a model's nodes that run in plans, from 0 to 1."""
    counts = [0, 0]
    for part in parts:
        counts[part.graph is not None] += len(part.nodes)
    return counts[1] / max(sum(counts), 1)
