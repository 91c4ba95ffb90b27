"""A whole ONNX model as one graph of fused operators, or the reason why it is none."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from pathlib import Path

from adlik_kernels.plans.declined import declined
from adlik_kernels.plans.graph import Graph, Node, UnsupportedGraph, Value
from adlik_kernels.plans.probe import Dims
from adlik_kernels.plans.reader import Reader
from adlik_kernels.plans.readers import READERS
from adlik_kernels.plans.source import FLOAT, Source, read_source


def read_onnx(path: Path) -> Graph:
    """Reads an ONNX model.

    Args:
        path: The file; its weights are inside or beside it.

    Raises:
        UnsupportedGraph: It has an operator, an attribute or a shape that plans do not know.
    """
    source = read_source(path)
    if unknown := declined(source):
        reasons = "; ".join(dict.fromkeys(unknown.values()))
        raise UnsupportedGraph(f"No plan computes all of this model: {reasons}.", tuple(unknown))
    return read_nodes(source, source.nodes, given_values(source, source.inputs), source.outputs)


def read_nodes(
    source: Source, nodes: Sequence[Node], given: Mapping[str, Value], outputs: Sequence[str]
) -> Graph:
    """Reads some nodes of a model.

    Args:
        source: The model.
        nodes: The nodes, in order.
        given: What comes from outside.
        outputs: What is wanted.

    Raises:
        UnsupportedGraph: With the numbers of the nodes that a plan can't take.
    """
    reader = Reader(
        ChainMap({}, source.constants), source.batch, source.opset, source.dims, source.types
    )
    return reader.read(nodes, given, outputs, READERS)


def given_values(source: Source, names: Sequence[str]) -> dict[str, Value]:
    """Returns what is known of values that come from outside.

    Args:
        source: The model.
        names: Their names.

    Raises:
        UnsupportedGraph: One is not float32 or has sizes that are open.
    """
    found, unknown = {}, []
    for name in names:
        shape = source.dims.get(name)
        value = value_of(shape, source.batch) if source.types.get(name) == FLOAT else None
        if value is None:
            unknown.append(name)
        else:
            found[name] = value
    if unknown:
        readers = [n.number for n in source.nodes if set(n.reads) & set(unknown)]
        raise UnsupportedGraph(
            f"{', '.join(unknown)}: not float32 [batch, channels, height, width], "
            "[batch, tokens, columns] or [batch, columns] with known sizes.",
            tuple(readers),
        )
    return found


def value_of(dims: Dims | None, batch: int) -> Value | None:
    """Returns a value of a shape with the batch; None for what no plan can read."""
    if dims is None or len(dims) not in {2, 3, 4} or None in dims:
        return None
    if dims[0] != (batch or "batch"):
        return None
    rest = tuple(size for size in dims[1:] if size is not None)
    # Columns must be known; of a mask [batch, 1, 1, tokens] they need not.
    is_mask = len(rest) == 3 and rest[:2] == (1, 1)
    is_empty = any(isinstance(size, int) and size < 1 for size in rest)
    if is_empty or not (isinstance(rest[-1], int) or is_mask):
        return None
    if len(rest) == 3:
        return Value((rest[1], rest[2], rest[0]))
    return Value(rest)
