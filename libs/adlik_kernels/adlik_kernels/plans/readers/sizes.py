"""Readers of what only moves or renames: reshaping, and the sizes that models compute for it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from adlik_kernels.plans.graph import BATCH, Node, Size, UnsupportedGraph, Value
from adlik_kernels.plans.reader import Reader
from adlik_kernels.plans.readers import attention
from adlik_kernels.plans.source import FLOAT, INT64


def constant(reader: Reader, node: Node) -> None:
    """Constant: known already."""
    if reader.constant(node.outputs[0]) is None:
        raise UnsupportedGraph("A plan knows constants that are tensors only.")


def same(reader: Reader, node: Node) -> None:
    """Identity, and Dropout as it is when nobody trains."""
    if any(node.outputs[1:]):
        raise UnsupportedGraph("A plan knows no mask of a Dropout.")
    if node.input(2) and reader.needed(node.inputs[2]).any():
        raise UnsupportedGraph("A plan does not train: it knows no Dropout that does.")
    reader.rename(node.outputs[0], reader.name(node.inputs[0]))


def cast(reader: Reader, node: Node) -> None:
    """Cast of sizes: of numbers to numbers, or of open sizes, which stay what they are."""
    sizes = sizes_of(reader, node.inputs[0])
    kind = node.attributes.get("to")
    if kind == FLOAT and all(isinstance(size, int) for size in sizes):
        reader.constants[node.outputs[0]] = np.array(sizes, np.float32)
    elif kind == INT64:
        reader.sizes[node.outputs[0]] = sizes
    else:
        raise UnsupportedGraph("A plan casts sizes only.")


def shape(reader: Reader, node: Node) -> None:
    """Shape of a sequence, or of its heads."""
    if node.attributes.get("start", 0) or "end" in node.attributes:
        raise UnsupportedGraph("A plan knows whole shapes only.")
    name = reader.name(node.inputs[0])
    found = attention.shape(reader, name)
    value = reader.values.get(name)
    if found is None and (value is None or value.is_picture):
        raise UnsupportedGraph("A plan knows the shape of sequences only.")
    if found is None and value is not None:
        found = value.shape
    reader.sizes[node.outputs[0]] = (reader.batch or BATCH, *(found or ()))


def gather(reader: Reader, node: Node) -> None:
    """Gather of sizes."""
    sizes, places = sizes_of(reader, node.inputs[0]), reader.needed(node.inputs[1])
    wanted = [int(place) for place in places.reshape(-1)]
    if any(not -len(sizes) <= place < len(sizes) for place in wanted):
        raise UnsupportedGraph("A place lies outside of the sizes.")
    reader.sizes[node.outputs[0]] = tuple(sizes[place] for place in wanted)


def concat(reader: Reader, node: Node) -> None:
    """Concat of sizes."""
    parts = [sizes_of(reader, name) for name in node.inputs]
    reader.sizes[node.outputs[0]] = tuple(size for part in parts for size in part)


def slice_sizes(reader: Reader, node: Node) -> None:
    """Slice of sizes."""
    sizes = sizes_of(reader, node.inputs[0])
    facts = node.attributes  # before version 10; inputs since
    starts, stops, axes, steps = (
        facts.get(name, other) if not node.input(place) else reader.needed(node.inputs[place])
        for place, (name, other) in enumerate(_SLICE.items(), 1)
    )
    if [list(axes), list(steps)] not in ([[0], [1]], [[-1], [1]]) or len(starts) != 1:
        raise UnsupportedGraph("A plan slices sizes one by one.")
    reader.sizes[node.outputs[0]] = sizes[int(starts[0]) : int(stops[0])]


_SLICE = {"starts": (), "ends": (), "axes": (0,), "steps": (1,)}
"""What a Slice is told, in the order of its inputs, and what it is if left out."""


def unsqueeze(reader: Reader, node: Node) -> None:
    """Unsqueeze of a size."""
    reader.sizes[node.outputs[0]] = sizes_of(reader, node.inputs[0])


def squeeze(reader: Reader, node: Node) -> None:
    """Squeeze of a picture of one pixel to a row."""
    value = _value(reader, node.inputs[0])
    axes = node.attributes.get("axes")
    if node.input(1):
        axes = reader.needed(node.inputs[1]).tolist()
    is_pixel = value is not None and value.is_picture and value.shape[:2] == (1, 1)
    if not is_pixel or sorted(axis % 4 for axis in axes or ()) != [2, 3]:
        raise UnsupportedGraph("A plan squeezes pictures of one pixel only.")
    flatten_value(reader, node)


def flatten(reader: Reader, node: Node) -> None:
    """Flatten of all but the batch."""
    if node.attributes.get("axis", 1) != 1:
        raise UnsupportedGraph("A plan flattens all but the batch.")
    flatten_value(reader, node)


def reshape(reader: Reader, node: Node) -> None:
    """Reshape: to rows, to heads and back, or to what it is already."""
    target = sizes_of(reader, node.inputs[1])
    if node.attributes.get("allowzero", 0) and 0 in target:
        raise UnsupportedGraph("A plan knows no sizes of 0.")
    if attention.reshape(reader, node, target):
        return
    value = _value(reader, node.inputs[0])
    if value is None or not target:
        raise UnsupportedGraph("A plan can't reshape this.", _behind(reader, node))
    if _is_same(reader, value, target):
        reader.rename(node.outputs[0], reader.name(node.inputs[0]))
        return
    numbers = [size for size in value.shape if isinstance(size, int)]
    is_whole = len(numbers) == len(value.shape) and target[1:] in {(-1,), (math.prod(numbers),)}
    keeps_batch = target[0] in {0, -1} or reader.is_batch(target[0])
    if not is_whole or not keeps_batch or target == (-1, -1):
        raise UnsupportedGraph("A plan flattens only.", _behind(reader, node))
    flatten_value(reader, node)


def flatten_made(reader: Reader, name: str) -> None:
    """Turns a picture of one pixel that an operator makes into a row, where it is."""
    view = reader.view(name, "level mean")
    if view is not None:
        facts = {**view.facts, "shape": view.facts["shape"][-1:]}
        reader.views[reader.name(name)] = replace(view, facts=facts)
    else:
        reader.values[name] = Value(reader.values[name].shape[2:])


def flatten_value(reader: Reader, node: Node) -> None:
    """Turns a picture into a row: a matter of names for one pixel, of weights for more."""
    source = reader.name(node.inputs[0])
    mean = reader.view(source, "level mean")
    if mean is not None and mean.facts["shape"][:-1] in {(1, 1), ()}:
        flatten_made(reader, source)
        reader.rename(node.outputs[0], source)
        return
    value = _value(reader, source)
    if value is None:
        raise UnsupportedGraph("A plan can't flatten this.", _behind(reader, node))
    if len(value.shape) == 1:
        if reader.rank(node.inputs[0]) != 2:
            raise UnsupportedGraph("A plan knows no row of more than two axes.")
        reader.rename(node.outputs[0], source)
        return
    if len(value.shape) != 3:
        raise UnsupportedGraph("A plan flattens pictures only.")
    view = reader.view(source, "levels")
    maker = view.sources[0] if view else source
    alone = reader.uses[source] == 1 and source not in reader.measured
    if value.shape[:2] == (1, 1) and maker in reader.made and alone:
        row = Value(value.shape[2:], value.levels)
        reader.values[maker] = row
        reader.rename(node.outputs[0], source)
        return
    behind = [view] if view else []
    sources = view.sources if view else (source,)
    reader.look(node, "flat", sources, *behind, shape=value.shape)


def sizes_of(reader: Reader, name: str) -> tuple[Size, ...]:
    """Returns sizes that are constant or that the model computes.

    Raises:
        UnsupportedGraph: The value is neither.
    """
    name = reader.name(name)
    if name in reader.sizes:
        return reader.sizes[name]
    found = reader.constant(name)
    if found is None or found.dtype != np.int64 or found.size > 16:
        raise UnsupportedGraph(f"{name} are no sizes that a plan knows.")
    return tuple(int(size) for size in found.reshape(-1))


def _value(reader: Reader, name: str) -> Value | None:
    """What is known of a value, or of the levels behind a view."""
    name = reader.name(name)
    view = reader.view(name, "levels")
    return reader.values.get(view.sources[0] if view else name)


def _is_same(reader: Reader, value: Value, target: Sequence[Size]) -> bool:
    if value.is_picture or len(target) != len(value.shape) + 1:
        return False
    pairs = zip(target[1:], value.shape, strict=True)
    return reader.is_batch(target[0]) and all(a in {b, -1} for a, b in pairs)


def _behind(reader: Reader, node: Node) -> tuple[int, ...]:
    view = reader.views.get(reader.name(node.inputs[0]))
    return (*(view.nodes if view else ()), node.number)
