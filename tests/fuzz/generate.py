"""From a seed to a graph and the inputs it is run with."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from tests.fuzz import anything, images, levels, rows
from tests.fuzz.graphs import BATCH, TOKENS, Graph, Value, model_of

NEWEST, OLDEST = 23, 7
"""Versions of ONNX' operators."""

SIDES = (2, 3, 5, 6, 7, 8, 9, 11, 13)


def generated(seed: int) -> tuple[onnx.ModelProto, list[dict[str, np.ndarray]]]:
    """Returns the graph of a seed, and inputs of several sizes for it."""
    rng = np.random.default_rng(seed)
    graph = Graph(rng, int(rng.integers(OLDEST, NEWEST + 1)))
    kind = graph.draw("image", "image", "image", "levels", "levels", "rows", "tokens", "tokens")
    if kind == "levels":
        graph.opset = max(graph.opset, 10)
    graph.tame = graph.chance(0.6)
    _take(graph, kind)
    steps = graph.number(2, 9)
    for _ in range(8 * steps):
        if len(graph.values) > steps + 1:
            break
        graph.draw(*_steps(graph, kind))(graph)
    batch = graph.draw("n", "n", "n", "n", None, -1, 1, 3)
    model = model_of(graph, _outputs(graph), batch)
    return model, _feeds(graph, batch)


def _take(graph: Graph, kind: str) -> None:
    if kind == "image" or (kind == "levels" and graph.chance(0.7)):
        channels = graph.draw(1, 2, 3, 5, 8, 16) if kind == "image" else graph.draw(3, 4, 8, 16, 20)
        shape = (BATCH, channels, graph.draw(*SIDES), graph.draw(*SIDES))
    elif kind == "tokens":
        tokens = graph.draw(TOKENS, TOKENS, 1, 6)
        shape = (BATCH, tokens, graph.draw(3, 8, 16, 24))
    else:
        shape = (BATCH, graph.draw(1, 3, 8, 16, 33))
    graph.take(shape)
    if graph.chance(0.2):
        graph.take(shape)
    if kind == "rows" and graph.chance(0.15):
        graph.take((graph.draw(1, 4), shape[1]))
    if kind == "image" and graph.chance(0.15):
        graph.take((BATCH, shape[1], 1, 1))


def _steps(graph: Graph, kind: str) -> tuple[Any, ...]:
    if kind == "levels":
        return (*levels.STEPS, *levels.STEPS, *images.STEPS, *anything.STEPS[:5], *rows.STEPS[:3])
    heavy = images.STEPS + rows.STEPS[:3] if kind == "image" else rows.STEPS
    rare = (*anything.RARE, *(rows.RARE if kind == "rows" else ()))
    some = levels.STEPS if graph.opset >= 10 and graph.chance(0.1) else ()
    return (*heavy, *anything.STEPS, *rare, *some)


def _outputs(graph: Graph) -> list[Value]:
    """The newest value, and some others: inputs by another name, and what others read as well."""
    found = [graph.values[-1]]
    for value in graph.values[:-1]:
        if value.name in graph.inputs:
            if graph.chance(0.08):
                found.append(Value(graph.node("Identity", value.name), value.shape))
        elif graph.chance(0.25):
            found.append(value)
    if graph.chance(0.05):
        found.append(Value(graph.node("Identity", found[0].name), found[0].shape))
    graph.rng.shuffle(found)  # type: ignore[arg-type] # a list of values
    return found


def _feeds(graph: Graph, batch: int | str | None) -> list[dict[str, np.ndarray]]:
    is_open = batch in {"n", None, -1}
    batches = (1, graph.draw(2, 3), graph.draw(5, 7, 9)) if is_open else (batch, batch)
    lengths = (1, graph.draw(2, 3, 5), graph.draw(9, 17))
    pairs = list(zip(batches, graph.rng.permutation(lengths), strict=False))
    if graph.chance(0.1) and is_open:
        pairs.append((0, 4))
    feeds = [_feed(graph, *pair) for pair in pairs]
    if graph.chance(0.15):
        feeds.append(_spoilt(graph, _feed(graph, *pairs[1])))
    return feeds


def _feed(graph: Graph, batch: int, tokens: int) -> dict[str, np.ndarray]:
    sizes: dict[Any, int] = {BATCH: int(batch), TOKENS: int(tokens)}
    return {
        name: graph.rng.standard_normal([sizes.get(s, s) for s in shape]).astype(np.float32)
        for name, shape in graph.inputs.items()
    }


def _spoilt(graph: Graph, feed: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same with a few numbers that are not finite, or are zeros below zero."""
    for array in feed.values():
        if array.size:
            places = graph.rng.integers(0, array.size, 2)
            array.reshape(-1)[places] = graph.draw(np.nan, np.inf, -np.inf, -0.0)
    return feed
