"""Readers of matrix products."""

from __future__ import annotations

import numpy as np

from adlik_kernels.plans.graph import Array, Node, Operator, UnsupportedGraph, Value
from adlik_kernels.plans.reader import Reader
from adlik_kernels.plans.readers import attention, levels


def gemm(reader: Reader, node: Node) -> None:
    """Gemm with alpha and beta 1 and x as it is."""
    facts = node.attributes
    if facts.get("alpha", 1.0) != 1.0 or facts.get("beta", 1.0) != 1.0 or facts.get("transA", 0):
        raise UnsupportedGraph("A plan knows Gemm with alpha and beta 1 and x as it is.")
    is_turned = bool(facts.get("transB", 0))
    w, w_scale = levels.weights(reader, node.inputs[1], axis=0 if is_turned else 1)
    w = w.T if is_turned else w
    bias = None
    if node.input(2):
        if w.ndim != 2:
            raise UnsupportedGraph("A plan knows products with a matrix of weights only.")
        bias = levels.bias(reader, node.inputs[2], w.shape[1], is_broadcast=True)
    product(reader, node, w, w_scale, bias)


def matmul(reader: Reader, node: Node) -> None:
    """MatMul: with a matrix of weights, or as a part of an attention."""
    if attention.matmul(reader, node):
        return
    w, w_scale = levels.weights(reader, node.inputs[1], axis=1)
    product(reader, node, w, w_scale, None)


def product(
    reader: Reader, node: Node, w: Array, w_scale: Array | None, bias: Array | None
) -> None:
    """Makes a "dense" operator of rows or sequences.

    Args:
        reader: Where to.
        node: The node.
        w: [depth, columns].
        w_scale: Scale of int8 weights, [columns].
        bias: [columns].
    """
    if w.ndim != 2:
        raise UnsupportedGraph("A plan knows products with a matrix of weights only.")
    if w_scale is not None and w.shape[0] % levels.WORD:
        # Kernels read whole words of levels: a row that ends within one begins the next within it.
        w, w_scale = levels.as_floats(w, w_scale, axis=1), None
    flat = reader.view(node.inputs[0], "flat")
    if flat is not None:
        source = flat.sources[0]
        height, width, channels = flat.facts["shape"]
        # The picture lies channels last: turn the weights round instead of the picture.
        if w.shape[0] != height * width * channels:
            raise UnsupportedGraph("A product's weights do not fit its input.")
        turned = w.reshape(channels, height, width, -1).transpose(1, 2, 0, 3)
        w = turned.reshape(height * width * channels, -1)
        if reader.values[source].levels is not None and w_scale is None:
            source = levels.floats_of(reader, source)
        shape: tuple[int | str, ...] = ()
    else:
        source = levels.operand(reader, node.inputs[0], quantized=w_scale is not None)
        value = reader.values[source]
        if value.is_picture or value.columns != w.shape[0]:
            raise UnsupportedGraph(f"A product of {value.shape} does not fit {w.shape}.")
        shape = value.shape[:-1]
    if reader.values[source].levels is None and w_scale is not None:
        w, w_scale = levels.as_floats(w, w_scale, axis=1), None
    kept = np.ascontiguousarray(w) if w_scale is not None else np.ascontiguousarray(w, np.float32)
    operator = Operator("dense", (source,), node.outputs[0], w=kept, bias=bias, w_scale=w_scale)
    reader.emit(operator, Value((*shape, w.shape[1])))
