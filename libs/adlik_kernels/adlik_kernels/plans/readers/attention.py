"""Readers of attention (Vaswani et al., 2017) as exporters write it, node by node.

Queries, keys and values are split into heads (Reshape, Transpose), scores are made, scaled, masked
and ranked (MatMul, Div or Mul, Add, Softmax), and heads are joined again (MatMul, Transpose,
Reshape). Until the end all of it are views; then one operator reads queries, keys and values where
they lie.
"""

from __future__ import annotations

from collections.abc import Sequence

from adlik_kernels.plans.graph import Node, Operator, Size, UnsupportedGraph, Value
from adlik_kernels.plans.reader import Reader, View

PARTS = ("split", "heads", "keys", "scores", "chances", "context", "joined")


def reshape(reader: Reader, node: Node, target: Sequence[Size]) -> bool:
    """Reads [batch, tokens, columns] to [batch, tokens, heads, depth] and back."""
    joined = reader.view(node.inputs[0], "joined")
    if joined is not None:
        columns = reader.values[joined.sources[0]].columns
        if len(target) != 3 or target[2] not in {columns, -1}:
            raise UnsupportedGraph("A plan joins all heads of an attention.", joined.nodes)
        _emit(reader, node, joined)
        return True
    x = reader.name(node.inputs[0])
    value = reader.values.get(x)
    if value is None or len(value.shape) != 2 or len(target) != 4 or value.levels:
        return False
    heads, depth = target[2:]
    if not isinstance(heads, int) or not isinstance(depth, int):
        return False
    if heads == -1 and depth > 0:
        heads = value.columns // depth
    if depth == -1 and heads > 0:
        depth = value.columns // heads
    keeps_batch = target[0] in {0, -1} or reader.is_batch(target[0])
    keeps_tokens = target[1] in {0, -1, value.shape[0]}
    if heads * depth != value.columns or not keeps_batch or not keeps_tokens:
        return False
    reader.look(node, "split", (x,), heads=heads, scale=1.0)
    return True


def shape(reader: Reader, name: str) -> tuple[Size, ...] | None:
    """Returns the shape of heads without the batch; None for anything else."""
    view = reader.view(name, "split", "heads")
    if view is None:
        return None
    tokens, columns = reader.values[view.sources[0]].shape
    heads = view.facts["heads"]
    depth = int(columns) // heads
    return (tokens, heads, depth) if view.kind == "split" else (heads, tokens, depth)


def transpose(reader: Reader, node: Node) -> None:
    """Transpose of heads before and behind the tokens."""
    order = tuple(node.attributes.get("perm", ()))
    ways = {
        ("split", (0, 2, 1, 3)): "heads",
        ("split", (0, 2, 3, 1)): "keys",
        ("heads", (0, 1, 3, 2)): "keys",
        ("context", (0, 2, 1, 3)): "joined",
    }
    view = reader.view(node.inputs[0], *PARTS)
    kind = ways.get((view.kind, order)) if view else None
    if view is None or kind is None:
        raise UnsupportedGraph("A plan transposes in attention only.", _behind(view, node))
    reader.look(node, kind, view.sources, view, **view.facts)


def matmul(reader: Reader, node: Node) -> bool:
    """Reads queries times keys, and chances times values."""
    left, right = (reader.view(name, *PARTS) for name in node.inputs)
    if left is None and right is None:
        return False
    if left is None or right is None:
        raise UnsupportedGraph("A plan knows no such product.", _behind(left or right, node))
    heads = left.facts["heads"]
    if (left.kind, right.kind) == ("heads", "keys") and right.facts["heads"] == heads:
        scale = left.facts["scale"] * right.facts["scale"]
        sources = (*left.sources, *right.sources)
        reader.look(node, "scores", sources, left, right, heads=heads, scale=scale, mask="")
        return True
    is_plain = right.facts["scale"] == 1.0
    if (
        (left.kind, right.kind) == ("chances", "heads")
        and right.facts["heads"] == heads
        and is_plain
    ):
        sources = (*left.sources, *right.sources)
        reader.look(node, "context", sources, left, right, **left.facts)
        return True
    raise UnsupportedGraph(
        "A plan knows no such product.", (*left.nodes, *right.nodes, node.number)
    )


def scaled(reader: Reader, node: Node) -> bool:
    """Reads a Mul of queries, keys or scores with a number."""
    for place in (0, 1):
        factor = reader.number(node.inputs[place])
        if factor is not None:
            return scale_by(reader, node, node.inputs[1 - place], factor)
    return False


def scale_by(reader: Reader, node: Node, name: str, factor: float) -> bool:
    """Lets a view be scaled; returns whether it can."""
    view = reader.view(name, "split", "heads", "keys", "scores")
    if view is None or view.facts.get("mask"):
        return False
    facts = {**view.facts, "scale": view.facts["scale"] * factor}
    reader.look(node, view.kind, view.sources, view, **facts)
    return True


def masked(reader: Reader, node: Node) -> bool:
    """Reads scores + mask, the mask being [batch, 1, 1, keys]."""
    for place in (0, 1):
        scores = reader.view(node.inputs[place], "scores")
        if scores is None:
            continue
        mask = reader.real(node.inputs[1 - place])
        value = reader.values[mask]
        keys = reader.values[scores.sources[1]].shape[0]
        # Channels first [batch, 1, 1, keys] is a picture of one row and one channel; it is a row
        # here if another attention has read it. What is a row in the model meets queries instead.
        fits = value.shape in {(1, keys, 1), (keys,)} and reader.rank(node.inputs[1 - place]) == 4
        if scores.facts["mask"] or not fits:
            raise UnsupportedGraph("A plan knows masks of keys only.", (*scores.nodes, node.number))
        reader.values[mask] = Value((keys,))
        facts = {**scores.facts, "mask": mask}
        reader.look(node, "scores", scores.sources, scores, **facts)
        return True
    return False


def softmax(reader: Reader, node: Node) -> None:
    """Softmax over the last axis: of scores, or of rows.

    Before version 13 it was over all axes from `axis` on, which is the same for the last one, and
    the default was the first behind the batch.
    """
    axis = node.attributes.get("axis", -1 if reader.opset >= 13 else 1)
    scores = reader.view(node.inputs[0], "scores")
    if scores is not None:
        if axis not in {-1, 3}:
            raise UnsupportedGraph("A plan ranks keys only.", (*scores.nodes, node.number))
        reader.look(node, "chances", scores.sources, scores, **scores.facts)
        return
    source = reader.real(node.inputs[0])
    value = reader.values[source]
    if value.is_picture or axis not in {-1, len(value.shape)}:
        raise UnsupportedGraph("A plan knows softmax over columns only.")
    reader.emit(Operator("softmax", (source,), node.outputs[0]), value)


def _emit(reader: Reader, node: Node, view: View) -> None:
    queries, keys, values = view.sources
    shapes = [reader.values[name] for name in view.sources]
    mask = view.facts["mask"]
    same_keys = shapes[1] == shapes[2] and shapes[0].columns == shapes[1].columns
    if not same_keys:
        raise UnsupportedGraph("Keys and values of an attention differ.", view.nodes)
    operator = Operator(
        "attention",
        (queries, keys, values, *((mask,) if mask else ())),
        node.outputs[0],
        heads=view.facts["heads"],
        scale=view.facts["scale"],
    )
    reader.emit(operator, shapes[0])


def _behind(view: View | None, node: Node) -> tuple[int, ...]:
    return (*(view.nodes if view else ()), node.number)
