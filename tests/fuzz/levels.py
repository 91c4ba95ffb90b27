"""Random quantized parts: QuantizeLinear and DequantizeLinear around what integers can compute."""

from __future__ import annotations

import numpy as np

from tests.fuzz.graphs import Graph, Value


def quantized(graph: Graph, value: Value) -> Value:
    """A value rounded to levels of its own and back."""
    levels, scale, zero = _levels(graph, value)
    back = [levels, scale, *([zero] if zero else [])]
    return graph.put("DequantizeLinear", value.shape, *back)


def _levels(graph: Graph, value: Value) -> tuple[str, str, str]:
    kind = graph.draw(np.uint8, np.uint8, np.int8)
    low = np.iinfo(kind).min
    scale = graph.constant(np.float32(graph.rng.uniform(0.01, 0.05)))
    zero = graph.constant(kind(low + graph.draw(128, 0, graph.number(0, 255))))
    if kind is np.uint8 and graph.chance(0.15):
        zero = ""
    inputs = [value.name, scale, *([zero] if zero else [])]
    return graph.node("QuantizeLinear", *inputs), scale, zero


def requantize(graph: Graph) -> Value | None:
    value = graph.pick(graph.draw(4, 4, 2, 3))
    return None if value is None else quantized(graph, value)


def _weights(graph: Graph, shape: tuple[int, ...], axis: int) -> str:
    """Quantized weights as they are dequantized: a scale each filter, or one."""
    w = graph.rng.integers(-127, 128, shape).astype(np.int8)
    each = graph.opset >= 13 and graph.chance(0.7)
    size = (shape[axis],) if each else ()
    depth = np.sqrt(np.prod(shape) / shape[axis])
    scale = graph.constant((graph.rng.uniform(0.5, 1.5, size) / 73 / depth).astype(np.float32))
    inputs = [graph.constant(w), scale]
    if graph.chance(0.7):
        inputs.append(graph.constant(np.zeros(size, np.int8)))
    return graph.node("DequantizeLinear", *inputs, **({"axis": axis} if each else {}))


def conv(graph: Graph) -> Value | None:
    """A quantized convolution, its end quantized or not."""
    value = graph.image()
    if value is None:
        return None
    given = quantized(graph, value)
    channels, *sizes = (int(size) for size in value.shape[1:])
    depthwise = channels > 1 and graph.chance(0.4)
    filters, groups = (channels, channels) if depthwise else (graph.number(1, 20), 1)
    window = [graph.number(1, min(3, size)) for size in sizes]
    strides = [graph.draw(1, 1, 2) for _ in sizes]
    pads = [graph.number(0, w - 1) for w in (*window, *window)]
    made = [(sizes[i] + pads[i] + pads[i + 2] - window[i]) // strides[i] + 1 for i in (0, 1)]
    w = _weights(graph, (filters, channels // groups, *window), 0)
    inputs = [given.name, w, *([graph.weight(filters, scale=0.5)] if graph.chance(0.6) else [])]
    facts = {"strides": strides, "pads": pads, "group": groups}
    end = graph.put("Conv", ("n", filters, *made), *inputs, **facts)
    return _ended(graph, end)


def matmul(graph: Graph) -> Value | None:
    value = graph.pick(graph.draw(2, 3))
    if value is None or not isinstance(value.shape[-1], int):
        return None
    given = quantized(graph, value)
    columns = graph.number(1, 40)
    w = _weights(graph, (value.shape[-1], columns), 1)
    end = graph.put("MatMul", (*value.shape[:-1], columns), given.name, w)
    if graph.chance(0.5):
        end = graph.put("Add", end.shape, end.name, graph.weight(columns, scale=0.5))
    return _ended(graph, end)


def _ended(graph: Graph, end: Value) -> Value:
    """Perhaps a ReLU, perhaps a residual, perhaps levels again."""
    if graph.chance(0.4):
        end = graph.put("Relu", end.shape, end.name)
    other = graph.like(end)
    if other is not None and graph.chance(0.5):
        if graph.chance(0.7):
            other = quantized(graph, other)
        if graph.chance(0.3):
            end = quantized(graph, end)
        end = graph.put("Add", end.shape, end.name, other.name)
        if graph.chance(0.5):
            end = graph.put("Relu", end.shape, end.name)
    return quantized(graph, end) if graph.chance(0.7) else end


def pool(graph: Graph) -> Value | None:
    value = graph.image()
    if value is None:
        return None
    given = quantized(graph, value)
    kind = graph.draw("GlobalAveragePool", "AveragePool", "MaxPool")
    if kind == "GlobalAveragePool":
        end = graph.put(kind, (*value.shape[:2], 1, 1), given.name)
    else:
        window = [graph.number(1, min(3, int(size))) for size in value.shape[2:]]
        made = [int(size) - w + 1 for size, w in zip(value.shape[2:], window, strict=True)]
        end = graph.put(kind, (*value.shape[:2], *made), given.name, kernel_shape=window)
    return quantized(graph, end) if graph.chance(0.7) else end


def turned(graph: Graph) -> Value | None:
    """Levels that are transposed before they are numbers again."""
    value = graph.image()
    if value is None:
        return None
    levels, scale, zero = _levels(graph, value)
    perm = [0, *(int(axis) for axis in graph.rng.permutation([1, 2, 3]))]
    moved = graph.node("Transpose", levels, perm=perm)
    shape = tuple(value.shape[p] for p in perm)
    return graph.put("DequantizeLinear", shape, moved, scale, *([zero] if zero else []))


def residual(graph: Graph) -> Value | None:
    """A quantized block around a shortcut, whose sides have levels of their own or not."""
    value = graph.image()
    if value is None:
        return None
    channels = int(value.shape[1])
    given = quantized(graph, value)
    end = given
    for _ in range(graph.number(1, 2)):
        window = [graph.number(1, 3), graph.number(1, 3)]
        above = [graph.number(0, w - 1) for w in window]
        pads = [*above, *(w - 1 - a for w, a in zip(window, above, strict=True))]
        inputs = [end.name, _weights(graph, (channels, channels, *window), 0)]
        inputs += [graph.weight(channels, scale=0.5)] if graph.chance(0.5) else []
        end = graph.put("Conv", value.shape, *inputs, pads=pads)
        if graph.chance(0.5):
            end = graph.put("Relu", end.shape, end.name)
        if graph.chance(0.6):
            end = quantized(graph, end)
    sides = [given.name, end.name]
    if graph.chance(0.5):
        sides.reverse()
    total = graph.put("Add", value.shape, *sides)
    if graph.chance(0.6):
        total = graph.put("Relu", value.shape, total.name)
    return quantized(graph, total) if graph.chance(0.7) else total


STEPS = (residual, residual, requantize, conv, conv, conv, matmul, matmul, pool, turned)
