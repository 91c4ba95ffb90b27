"""Random nodes on rows [batch, columns] and sequences [batch, tokens, columns]."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.fuzz.graphs import TOKENS, Graph, Value

MOST_COLUMNS = 48


def _rows(graph: Graph) -> Value | None:
    value = graph.pick(graph.draw(2, 3))
    return value if value is not None and isinstance(value.shape[-1], int) else None


def gemm(graph: Graph) -> Value | None:
    value = graph.pick(2)
    if value is None or not isinstance(value.shape[1], int):
        return None
    depth, columns = value.shape[1], graph.number(1, MOST_COLUMNS)
    turned = graph.number(0, 1)
    w = graph.weight(columns, depth) if turned else graph.weight(depth, columns, scale=depth**-0.5)
    facts: dict[str, Any] = {"transB": turned}
    if graph.tamely(0.2):
        facts |= {"alpha": 0.5, "beta": float(graph.draw(0.0, 0.5, 1.0))}
    shapes = [(columns,), (columns,), (1, columns), (1,), (1, 1), ()]
    bias = graph.weight(*graph.draw(*shapes), scale=1.0) if graph.chance(0.8) else ""
    if not bias and graph.opset < 11:
        bias = graph.weight(columns, scale=1.0)
    inputs = [value.name, w, *([bias] if bias else [])]
    return graph.put("Gemm", ("n", columns), *inputs, **facts)


def matmul(graph: Graph) -> Value | None:
    value = _rows(graph)
    if value is None:
        return None
    depth, columns = int(value.shape[-1]), graph.number(1, MOST_COLUMNS)
    w = graph.weight(depth, columns, scale=depth**-0.5)
    made = graph.put("MatMul", (*value.shape[:-1], columns), value.name, w)
    if graph.chance(0.6):
        shape = graph.draw((columns,), (columns,), (1, columns), (1,), ())
        sides = [made.name, graph.weight(*shape, scale=1.0)]
        if graph.chance(0.3):
            sides.reverse()
        made = graph.put("Add", made.shape, *sides)
    return made


def outer(graph: Graph) -> Value | None:
    """A column of a number a row, plus its transpose: a table of all pairs of rows."""
    value = graph.pick(2)
    if value is None or not isinstance(value.shape[1], int):
        return None
    one, two = (graph.node("MatMul", value.name, graph.weight(value.shape[1], 1)) for _ in "ab")
    table = graph.node("Add", one, graph.node("Transpose", two, perm=[1, 0]))
    chances = graph.node("Softmax", table, axis=1)
    return graph.put("MatMul", value.shape, chances, value.name)


def layer_norm(graph: Graph) -> Value | None:
    value = _rows(graph)
    if value is None or int(value.shape[-1]) < 2:
        return None
    columns = int(value.shape[-1])
    scale = graph.constant(graph.rng.uniform(0.5, 1.5, columns).astype(np.float32))
    bias = graph.weight(columns, scale=1.0)
    if graph.opset >= 17 and graph.chance(0.5):
        facts = {"axis": graph.draw(-1, value.rank - 1), "epsilon": 1e-5}
        names = [value.name, scale, *([bias] if graph.chance(0.7) else [])]
        return graph.put("LayerNormalization", value.shape, *names, **facts)
    names, facts = graph.axes([-1], 18)
    mean = graph.node("ReduceMean", value.name, *names, keepdims=1, **facts)
    centred = graph.node("Sub", value.name, mean)
    squares = graph.node("Pow", centred, graph.constant(np.float32(2)))
    variance = graph.node("ReduceMean", squares, *names, keepdims=1, **facts)
    stable = graph.node("Add", variance, graph.constant(np.float32(1e-5)))
    normal = graph.node("Div", centred, graph.node("Sqrt", stable))
    scaled = graph.node("Mul", normal, scale)
    return graph.put("Add", value.shape, scaled, bias)


def attention(graph: Graph) -> Value | None:
    """Attention of several heads as torch exports it, with or without a mask of keys."""
    value = graph.pick(3)
    if value is None or not isinstance(value.shape[2], int):
        return None
    heads, depth = graph.draw((1, 8), (2, 4), (3, 5), (2, 16))
    columns, tokens = heads * depth, value.shape[1]
    held = 0 if tokens == TOKENS else int(tokens)
    parts, is_computed = [], graph.chance(0.4)
    for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
        w = graph.weight(int(value.shape[2]), columns, scale=int(value.shape[2]) ** -0.5)
        product = graph.node("MatMul", value.name, w)
        product = graph.node("Add", product, graph.weight(columns, scale=0.1))
        target = [0, graph.draw(0, held, held) if held else 0, heads, depth]
        shape = graph.constant(np.array(target, np.int64))
        if is_computed:
            shape = graph.sizes(Value(product, (*value.shape[:2], columns)), [0, 1], target[2:])
        parts.append(graph.node("Transpose", graph.node("Reshape", product, shape), perm=perm))
    queries, keys, values = parts
    scores = graph.node("MatMul", queries, keys)
    scores = graph.node("Div", scores, graph.constant(np.float32(depth**0.5)))
    if graph.chance(0.4):
        scores = graph.node("Add", scores, _mask(graph, tokens))
    chances = graph.node("Softmax", scores, axis=3)
    context = graph.node("Transpose", graph.node("MatMul", chances, values), perm=[0, 2, 1, 3])
    target = graph.constant(np.array([0, 0, columns], np.int64))
    if is_computed:
        target = graph.sizes(value, [0, 1], [columns])
    return graph.put("Reshape", ("n", tokens, columns), context, target)


def _mask(graph: Graph, tokens: int | str) -> str:
    shape = ("n", 1, 1, tokens)
    found = [value for value in graph.values if value.shape == shape]
    return (found[0] if found else graph.take(shape)).name


def move(graph: Graph) -> Value | None:
    """Transpose, mean of tokens, first token or tokens, one picture of a sequence."""
    value = graph.pick(3)
    if value is None:
        return None
    _, tokens, columns = value.shape
    kind = graph.draw("transpose", "mean", "first", "cut", "row", "strided")
    if kind == "transpose":
        return graph.put("Transpose", ("n", columns, tokens), value.name, perm=[0, 2, 1])
    if kind == "mean":
        names, facts = graph.axes([1], 18)
        return graph.put("ReduceMean", ("n", columns), value.name, *names, keepdims=0, **facts)
    if kind == "first":
        zero = graph.constant(np.array(0, np.int64))
        return graph.put("Gather", ("n", columns), value.name, zero, axis=1)
    if kind == "cut" and graph.opset >= 10:
        names = [graph.constant(np.array([n], np.int64)) for n in (0, 8, 1)]
        return _averaged(graph, graph.node("Slice", value.name, *names), columns)
    if kind == "strided" and isinstance(columns, int):
        turned = graph.node("Transpose", value.name, perm=[0, 2, 1])
        strided = graph.node("Conv", turned, graph.weight(6, columns, 1), strides=[2])
        return _averaged(graph, graph.node("Transpose", strided, perm=[0, 2, 1]), 6)
    if isinstance(tokens, int) and isinstance(columns, int):
        target = graph.constant(np.array([0, tokens * columns], np.int64))
        return graph.put("Reshape", ("n", tokens * columns), value.name, target)
    return None


def _averaged(graph: Graph, name: str, columns: int | str) -> Value:
    """The mean over tokens: how many are left, nobody who reads it needs to know."""
    if isinstance(columns, int):
        name, columns = graph.node("MatMul", name, graph.weight(columns, 7)), 7
    names, facts = graph.axes([1], 18)
    return graph.put("ReduceMean", ("n", columns), name, *names, keepdims=0, **facts)


STEPS = (gemm, gemm, matmul, matmul, matmul, layer_norm, attention, move)
RARE = (outer,)
