"""Models whose signature is unusual: names, shapes that nobody knows, outputs that are inputs."""

from __future__ import annotations

import numpy as np
import onnx

from benchmarks.proof_cases.case import I64, Case, F, Feed, build, draw, glorot, node, normal, whole


def called_labels() -> onnx.ModelProto:
    nodes = [node("Gemm", ["labels", "w", "b"], ["h"]), node("Tanh", ["h"], ["y"])]
    weights = {"w": glorot(16, 6), "b": normal(6, scale=0.2)}
    return build(nodes, [("labels", F, ["batch", 16])], [("y", F, ["batch", 6])], weights)


def labels(random: np.random.Generator, rows: int) -> Feed:
    return {"labels": draw(random, rows, 16)}


def nameless() -> onnx.ModelProto:
    """Open axes without names, and an output of which no shape is known."""
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Relu", ["h"], ["r"]),
        node("ReduceMax", ["r"], ["y"], axes=[1], keepdims=0),
    ]
    return build(nodes, [("x", F, [None, None, 8])], [("y", F, None)], {"w": glorot(8, 12)})


def rows_of_tokens(random: np.random.Generator, rows: int) -> Feed:
    return {"x": draw(random, rows, int(random.integers(1, 9)), 8)}


def given_back() -> onnx.ModelProto:
    """An output that is the input, one that is a weight, one that is another's double."""
    nodes = [
        node("MatMul", ["x", "w"], ["y"]),
        node("Identity", ["x"], ["same"]),
        node("Identity", ["w"], ["weights"]),
        node("Identity", ["y"], ["again"]),
    ]
    rows = ["batch", 4]
    outputs = [("y", F, ["batch", 3]), ("same", F, rows), ("weights", F, [4, 3])]
    outputs.append(("again", F, ["batch", 3]))
    return build(nodes, [("x", F, rows)], outputs, {"w": glorot(4, 3)})


def rows_of_four(random: np.random.Generator, rows: int) -> Feed:
    return {"x": draw(random, rows, 4)}


def unread() -> onnx.ModelProto:
    """An input that nothing reads beside one that matters."""
    nodes = [node("MatMul", ["x", "w"], ["y"])]
    inputs = [("x", F, ["batch", 12]), ("mask", I64, ["batch", "tokens"])]
    return build(nodes, inputs, [("y", F, ["batch", 5])], {"w": glorot(12, 5)})


def masked(random: np.random.Generator, rows: int) -> Feed:
    return {"x": draw(random, rows, 12), "mask": np.ones((rows, 5), np.int64)}


def contributed() -> onnx.ModelProto:
    """Operators of ONNX Runtime's own."""
    nodes = [
        node("FusedMatMul", ["x", "w0"], ["p"], domain="com.microsoft", alpha=0.5),
        node("Gelu", ["p"], ["g"], domain="com.microsoft"),
        node("SkipLayerNormalization", ["g", "g", "scale", "shift"], ["n"], domain="com.microsoft"),
        node("MatMul", ["n", "w1"], ["y"]),
    ]
    weights = {
        "w0": glorot(12, 24), "w1": glorot(24, 6), "scale": 1 + normal(24, scale=0.1),
        "shift": normal(24, seed=2, scale=0.1),
    }  # fmt: skip
    inputs, outputs = [("x", F, ["batch", "t", 12])], [("y", F, ["batch", "t", 6])]
    return build(nodes, inputs, outputs, weights, domains={"com.microsoft": 1})


def frames(random: np.random.Generator, rows: int) -> Feed:
    return {"x": draw(random, rows, int(random.integers(2, 12)), 12)}


def shape_given() -> onnx.ModelProto:
    """A second input says which columns are kept."""
    nodes = [
        node("MatMul", ["x", "w"], ["h"]),
        node("Gather", ["h", "columns"], ["y"], axis=1),
        node("ReduceMean", ["y"], ["mean"], axes=[1], keepdims=1),
    ]
    inputs = [("x", F, ["batch", 10]), ("columns", I64, ["kept"])]
    outputs = [("y", F, ["batch", "kept"]), ("mean", F, ["batch", 1])]
    return build(nodes, inputs, outputs, {"w": glorot(10, 9)})


def some_columns(random: np.random.Generator, rows: int) -> Feed:
    kept = random.integers(0, 9, int(random.integers(1, 12)))
    return {"x": draw(random, rows, 10), "columns": whole(*kept)}


CASES = (
    Case("input called labels", called_labels, labels, samples=48),
    Case("open axes without names", nameless, rows_of_tokens),
    Case("outputs that are inputs", given_back, rows_of_four),
    Case("an input that nothing reads", unread, masked),
    Case("contributed operators", contributed, frames),
    Case("columns by index", shape_given, some_columns),
)
