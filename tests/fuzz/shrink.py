"""Makes a finding small: fewer outputs, nodes and inputs, as long as it stays a finding."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.conformance.judge import session

Feeds = list[dict[str, np.ndarray]]
Finding = tuple[onnx.ModelProto, Feeds]


def shrunk(finding: Finding, shows: Callable[[Finding], bool]) -> Finding:
    """Returns a small graph that shows the same fault.

    Args:
        finding: A graph and its inputs.
        shows: Whether such a pair is a finding still.
    """
    while True:
        smaller = next((f for f in _smaller(finding) if shows(f)), None)
        if smaller is None:
            return finding
        finding = smaller


def _smaller(finding: Finding) -> Iterator[Finding]:
    model, feeds = finding
    if len(feeds) > 1:
        for feed in feeds:
            yield model, [feed]
        if len(feeds) > 2:
            for place in range(len(feeds)):
                yield model, feeds[:place] + feeds[place + 1 :]
    outputs = model.graph.output
    for place in range(len(outputs) if len(outputs) > 1 else 0):
        yield _cleaned(_with_outputs(model, [outputs[place].name])), feeds
    for node in model.graph.node:
        for name in node.output:
            yield from _ended_at(finding, name)
    for node in reversed(model.graph.node):
        yield from _begun_at(finding, node)
    for node in model.graph.node:
        yield from _bypassed(finding, node)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def _with_outputs(model: onnx.ModelProto, names: list[str]) -> onnx.ModelProto:
    made = _copy(model)
    del made.graph.output[:]
    made.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names
    )
    return made


def _cleaned(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without nodes, weights and inputs that nobody reads."""
    made, graph = _copy(model), model.graph
    needed = {output.name for output in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            nodes.append(node)
            needed.update(node.input)
            needed.update(n for a in node.attribute for inner in a.g.node for n in inner.input)
    for field, kept in (
        ("node", nodes[::-1]),
        ("initializer", [w for w in graph.initializer if w.name in needed]),
        ("input", [i for i in graph.input if i.name in needed] or graph.input[:1]),
    ):
        made.graph.ClearField(field)
        getattr(made.graph, field).extend(kept)
    return made


def _ended_at(finding: Finding, name: str) -> Iterator[Finding]:
    """The graph up to one value, if that is shorter."""
    model, feeds = finding
    made = _cleaned(_with_outputs(model, [name]))
    if len(made.graph.node) < len(model.graph.node):
        yield made, feeds


def _begun_at(finding: Finding, node: onnx.NodeProto) -> Iterator[Finding]:
    """The graph with what a node makes given from outside, as the reference computes it."""
    model, feeds = finding
    if len(node.output) != 1 or node.output[0] in {o.name for o in model.graph.output}:
        return
    (name,) = node.output
    try:
        inner = session(_with_outputs(model, [name]))
        arrays = [inner.run([name], feed)[0] for feed in feeds]
    except Exception:  # noqa: BLE001 # then this is no way
        return
    if any(array.dtype != np.float32 for array in arrays):
        return
    made = _copy(model)
    first = made.graph.input[0].type.tensor_type.shape.dim
    batch = [first[0]] if len(first) else []
    info = helper.make_tensor_value_info(name, TensorProto.FLOAT, list(arrays[0].shape))
    if batch and arrays[0].ndim:
        info.type.tensor_type.shape.dim[0].CopyFrom(batch[0])
    made.graph.input.append(info)
    nodes = [n for n in made.graph.node if n.output[0] != name]
    made.graph.ClearField("node")
    made.graph.node.extend(nodes)
    made = _cleaned(made)
    if len(made.graph.node) >= len(model.graph.node):
        return
    left = {value.name for value in made.graph.input}
    joined = [{**feed, name: array} for feed, array in zip(feeds, arrays, strict=True)]
    yield made, [{n: a for n, a in feed.items() if n in left} for feed in joined]


def _bypassed(finding: Finding, node: onnx.NodeProto) -> Iterator[Finding]:
    """The graph without a node: who reads it reads what it read."""
    model, feeds = finding
    if not node.input or not node.input[0]:
        return
    made = _copy(model)
    nodes = [n for n in made.graph.node if n.output[0] != node.output[0]]
    if node.output[0] in {output.name for output in made.graph.output}:
        return
    for other in nodes:
        other.input[:] = [node.input[0] if name == node.output[0] else name for name in other.input]
    kept = [_copied(n) for n in nodes]
    made.graph.ClearField("node")
    made.graph.node.extend(kept)
    made = _cleaned(made)
    left = {value.name for value in made.graph.input}
    yield made, [{n: a for n, a in feed.items() if n in left} for feed in feeds]


def _copied(node: onnx.NodeProto) -> onnx.NodeProto:
    made = onnx.NodeProto()
    made.CopyFrom(node)
    return made
