"""Random nodes on images [batch, channels, height, width]: everything about them is asymmetric."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.fuzz.graphs import Graph, Value

MOST_CHANNELS = 24


def _window(graph: Graph, value: Value, most: int = 4) -> tuple[dict[str, Any], list[int]]:
    """A window's attributes, and the rows and columns that it gives: none where it does not fit."""
    sizes = [int(size) for size in value.shape[2:]]
    window = [graph.number(1, min(most, size)) for size in sizes]
    strides = [graph.draw(1, 1, 2, 3) for _ in sizes]
    dilations = [graph.draw(1, 1, 1, 2, 3) for _ in sizes]
    pads = [graph.number(0, graph.draw(0, 1, w - 1)) if w > 1 else 0 for w in (*window, *window)]
    facts = {"kernel_shape": window, "strides": strides, "dilations": dilations, "pads": pads}
    kind = graph.draw(*["NOTSET"] * 6, "SAME_UPPER", "SAME_LOWER", "VALID")
    if kind.startswith("SAME"):  # there, ONNX Runtime takes no dilation
        facts["dilations"] = dilations = [1, 1]
    if kind != "NOTSET":
        del facts["pads"]
        facts["auto_pad"] = kind
        pads = [0] * 4
    reach = [d * (w - 1) + 1 for w, d in zip(window, dilations, strict=True)]
    if kind.startswith("SAME"):
        return facts, [-(-size // step) for size, step in zip(sizes, strides, strict=True)]
    room = [sizes[i] + pads[i] + pads[i + 2] - reach[i] for i in (0, 1)]
    return facts, [r // s + 1 if r >= 0 else 0 for r, s in zip(room, strides, strict=True)]


def conv(graph: Graph) -> Value | None:
    value = graph.image()
    if value is None:
        return None
    channels = int(value.shape[1])
    facts, size = _window(graph, value)
    if min(size) < 1:
        return None
    kind = graph.draw("plain", "plain", "pointwise", "depthwise", "grouped")
    groups, filters = 1, graph.number(1, MOST_CHANNELS)
    if kind == "depthwise":
        groups, filters = channels, channels * graph.draw(1, 1, 1, 2)
    if kind == "grouped":
        groups = graph.draw(*[g for g in range(1, channels + 1) if channels % g == 0])
        filters = groups * graph.number(1, 4)
    if kind == "pointwise":
        facts = {"kernel_shape": [1, 1]}
        size = [int(s) for s in value.shape[2:]]
    if graph.chance(0.2):  # it follows from the weights
        w = graph.weight(filters, channels // groups, *facts.pop("kernel_shape"))
    else:
        w = graph.weight(filters, channels // groups, *facts["kernel_shape"])
    inputs = [value.name, w, *([graph.weight(filters, scale=1.0)] if graph.chance(0.6) else [])]
    return graph.put("Conv", ("n", filters, *size), *inputs, group=groups, **facts)


def transposed(graph: Graph) -> Value | None:
    value = graph.image()
    if value is None:
        return None
    channels, *sizes = (int(size) for size in value.shape[1:])
    groups = 1
    if graph.tamely(0.5):
        groups = graph.draw(*[g for g in range(1, channels + 1) if channels % g == 0])
    filters = graph.number(1, 6)
    window = [graph.number(1, 4) for _ in sizes]
    strides = [graph.draw(1, 2, 2, 3) for _ in sizes]
    pads = [graph.number(0, w - 1) for w in (*window, *window)]
    if graph.tame or graph.chance(0.5):
        pads[2:] = pads[:2]
    more = [graph.number(0, s - 1) for s in strides]
    made = [
        (sizes[i] - 1) * strides[i] + window[i] - pads[i] - pads[i + 2] + more[i] for i in (0, 1)
    ]
    if min(made) < 1 or max(made) > 40:
        return None
    facts = {"strides": strides, "pads": pads, "output_padding": more, "group": groups}
    w = graph.weight(channels, filters, *window)
    inputs = [value.name, w, *([graph.weight(filters * groups)] if graph.chance(0.5) else [])]
    return graph.put("ConvTranspose", ("n", filters * groups, *made), *inputs, **facts)


def batch_norm(graph: Graph) -> Value | None:
    value = graph.pick(graph.draw(4, 4, 4, 3, 2))
    if value is None or not isinstance(value.shape[1], int):
        return None
    channels = value.shape[1]
    rng = graph.rng
    parts = [rng.uniform(0.5, 1.5, channels), rng.standard_normal(channels)]
    parts += [rng.standard_normal(channels), rng.uniform(0.5, 1.5, channels)]
    names = [graph.constant(part.astype(np.float32)) for part in parts]
    facts: dict[str, Any] = {"epsilon": float(graph.draw(1e-5, 1e-3))}
    made = graph.put("BatchNormalization", value.shape, value.name, *names, **facts)
    if graph.opset >= 14 and graph.chance(0.15):
        node = graph.nodes[-1]
        node.output.extend([f"{made.name}_mean", f"{made.name}_variance"])
        node.attribute.append(_attribute("training_mode", 1))
    return made


def _attribute(name: str, value: Any) -> Any:
    from onnx import helper

    return helper.make_attribute(name, value)


def pool(graph: Graph) -> Value | None:
    value = graph.image()
    if value is None:
        return None
    kind = graph.draw("MaxPool", "AveragePool")
    facts, size = _window(graph, value)
    is_plain = kind == "AveragePool" or graph.opset < 10 or graph.tame
    if is_plain and any(step != 1 for step in facts.pop("dilations")):
        return None
    if kind == "AveragePool" and graph.tamely(0.4):
        facts["count_include_pad"] = 1
    if min(size) < 1:
        return None
    made = graph.node(kind, value.name, **facts)
    shape = ("n", value.shape[1], *size)
    if graph.opset >= 10 and "pads" in facts and graph.chance(0.25):
        graph.nodes[-1].attribute.append(_attribute("ceil_mode", 1))
        # The size may be another one: what reads it must not need to know.
        return graph.put("GlobalAveragePool", (*shape[:2], 1, 1), made)
    return graph.keep(made, shape)


def global_pool(graph: Graph) -> Value | None:
    value = graph.image()
    if value is None:
        return None
    kind = graph.draw("GlobalAveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean")
    kind = kind if kind != "GlobalMaxPool" or not graph.tame else "GlobalAveragePool"
    if kind != "ReduceMean":
        return graph.put(kind, (*value.shape[:2], 1, 1), value.name)
    axes = [2, 3] if graph.tame else graph.draw([2, 3], [2, 3], [-1, -2], [3], [1], [1, 2, 3])
    keeps = graph.number(0, 1)
    names, facts = graph.axes(axes, 18)
    gone = {axis % 4 for axis in axes}
    shape = tuple(
        1 if i in gone else size for i, size in enumerate(value.shape) if keeps or i not in gone
    )
    return graph.put(kind, shape, value.name, *names, keepdims=keeps, **facts)


def excitation(graph: Graph) -> Value | None:
    """Squeeze and excitation."""
    value = graph.image()
    if value is None:
        return None
    channels = int(value.shape[1])
    middle = graph.number(1, 5)
    mean = graph.node("GlobalAveragePool", value.name)
    first = graph.node("Conv", mean, graph.weight(middle, channels, 1, 1), graph.weight(middle))
    second = graph.node("Relu", first)
    third = graph.node("Conv", second, graph.weight(channels, middle, 1, 1))
    gate = graph.node("Sigmoid", third)
    sides = (value.name, gate) if graph.chance(0.5) else (gate, value.name)
    return graph.put("Mul", value.shape, *sides)


def move(graph: Graph) -> Value | None:
    """Transpose, Reshape, Flatten, Slice, Pad, Concat, Squeeze."""
    value = graph.image()
    if value is None:
        return None
    _, channels, height, width = value.shape
    kind = graph.draw("flatten", "reshape", "transpose", "slice", "pad", "concat", "squeeze")
    kind = graph.draw("flatten", "reshape", "squeeze") if graph.tame else kind
    if kind == "flatten":
        return graph.put("Flatten", ("n", channels * height * width), value.name)
    if kind == "reshape":
        first, last = graph.draw((0, -1), (-1, channels * height * width))
        target = graph.constant(np.array([first, last], np.int64))
        if graph.chance(0.4):
            target = graph.sizes(value, [0], [graph.draw(-1, channels * height * width)])
        return graph.put("Reshape", ("n", channels * height * width), value.name, target)
    if kind == "transpose":
        perm = [0, *(int(axis) for axis in graph.rng.permutation([1, 2, 3]))]
        return graph.put("Transpose", tuple(value.shape[p] for p in perm), value.name, perm=perm)
    if kind == "squeeze" and (height, width) == (1, 1):
        names, facts = graph.axes([2, 3], 13)
        return graph.put("Squeeze", ("n", channels), value.name, *names, **facts)
    if kind == "concat" and (other := graph.like(value)) is not None:
        return graph.put(
            "Concat", ("n", 2 * channels, height, width), value.name, other.name, axis=1
        )
    if kind == "slice" and height > 1:
        return slice_axis(graph, value, 2, 1, height)
    if kind == "pad":
        return _padded(graph, value)
    return None


def slice_axis(graph: Graph, value: Value, axis: int, start: int, end: int) -> Value:
    """A slice along one axis, as attributes before version 10."""
    shape = (*value.shape[:axis], end - start, *value.shape[axis + 1 :])
    if graph.opset < 10:
        facts = {"axes": [axis], "starts": [start], "ends": [end]}
        return graph.put("Slice", shape, value.name, **facts)
    names = [graph.constant(np.array([n], np.int64)) for n in (start, end, axis)]
    return graph.put("Slice", shape, value.name, *names)


def _padded(graph: Graph, value: Value) -> Value:
    top, left, bottom, right = (graph.number(0, 2) for _ in range(4))
    pads = [0, 0, top, left, 0, 0, bottom, right]
    _, channels, height, width = value.shape
    shape = ("n", channels, height + top + bottom, width + left + right)
    if graph.opset < 11:
        return graph.put("Pad", shape, value.name, pads=pads)
    return graph.put("Pad", shape, value.name, graph.constant(np.array(pads, np.int64)))


def residual(graph: Graph) -> Value | None:
    """One or two convolutions that keep the size, around a shortcut."""
    value = graph.image()
    if value is None:
        return None
    channels = int(value.shape[1])
    end = value
    for _ in range(graph.number(1, 2)):
        groups = graph.draw(1, 1, channels)
        window = [graph.number(1, 4), graph.number(1, 4)]
        above = [graph.number(0, w - 1) for w in window]
        pads = [*above, *(w - 1 - a for w, a in zip(window, above, strict=True))]
        inputs = [end.name, graph.weight(channels, channels // groups, *window)]
        inputs += [graph.weight(channels, scale=0.5)] if graph.chance(0.5) else []
        end = graph.put("Conv", value.shape, *inputs, pads=pads, group=groups)
        if graph.chance(0.4):
            end = graph.put("Relu", end.shape, end.name)
    sides = [value.name, end.name]
    if graph.chance(0.5):
        sides.reverse()
    total = graph.put("Add", value.shape, *sides)
    return graph.put("Relu", value.shape, total.name) if graph.chance(0.5) else total


STEPS = (
    *(residual, residual, conv, conv, conv, conv, transposed, batch_norm),
    *(pool, pool, global_pool, excitation, move),
)
