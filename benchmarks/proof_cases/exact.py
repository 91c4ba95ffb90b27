"""Models of whole numbers, texts, truths, other floats, and graphs inside graphs."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from benchmarks.proof_cases.case import (
    BOOL,
    I32,
    I64,
    TEXT,
    Case,
    D,
    F,
    Feed,
    H,
    build,
    draw,
    glorot,
    length,
    node,
    normal,
    whole,
)  # fmt: skip
from benchmarks.proof_cases.tables import dense, rows_of


def clock() -> onnx.ModelProto:
    """Milliseconds since 1970 to the hour of the day, and what a small net makes of it."""
    nodes = [
        node("Div", ["ms", "hour_ms"], ["hours"]),
        node("Mod", ["hours", "day"], ["hour"]),
        node("Cast", ["hour"], ["f"], to=F),
        node("Mul", ["f", "share"], ["x"]),
        node("Gemm", ["x", "w0", "b0"], ["h"]),
        node("Relu", ["h"], ["r"]),
        node("MatMul", ["r", "w1"], ["y"]),
    ]
    weights = {
        "hour_ms": np.int64(3600000), "day": np.int64(24), "share": np.float32(1 / 24),
        "w0": normal(1, 32), "b0": normal(32, seed=2), "w1": glorot(32, 6),
    }  # fmt: skip
    outputs = [("y", F, ["batch", 6]), ("hour", I64, ["batch", 1])]
    return build(nodes, [("ms", I64, ["batch", 1])], outputs, weights)


def moments(random: np.random.Generator, rows: int) -> Feed:
    return {"ms": random.integers(1_500_000_000_000, 1_900_000_000_000, (rows, 1))}


def running_sums() -> onnx.ModelProto:
    """Sums over the open first axis: rows that are no batch."""
    return build(
        [node("CumSum", ["x", "zero"], ["y"])], [("x", I64, ["n", 4])], [("y", I64, ["n", 4])],
        {"zero": np.array(0, np.int64)},
    )  # fmt: skip


def amounts(random: np.random.Generator, rows: int) -> Feed:
    return {"x": random.integers(0, 10**10, (rows, 4))}


def ranks_with_ties() -> onnx.ModelProto:
    """The best three of eight scores that are rounded, so that many are equal."""
    nodes = [
        node("MatMul", ["x", "w"], ["p"]),
        node("Round", ["p"], ["q"]),
        node("TopK", ["q", "three"], ["values", "places"], axis=-1),
    ]
    outputs = [("values", F, ["batch", 3]), ("places", I64, ["batch", 3])]
    weights = {"w": normal(8, 8, scale=0.6), "three": whole(3)}
    return build(nodes, [("x", F, ["batch", 8])], outputs, weights)


def best_class() -> onnx.ModelProto:
    """The class as a number, and how sure it is; the scores themselves stay inside."""
    nodes, weights = dense([20, 64, 9], "logits", seed=33)
    weights["w1"] = 3 * weights["w1"]
    nodes += [
        node("Softmax", ["logits"], ["p"], axis=-1),
        node("ArgMax", ["p"], ["kind"], axis=1, keepdims=0),
        node("ReduceMax", ["p"], ["sure"], axes=[1], keepdims=0),
    ]
    outputs = [("kind", I64, ["batch"]), ("sure", F, ["batch"])]
    return build(nodes, [("x", F, ["batch", 20])], outputs, weights)


TEXTS = ["rot", "grün", "blau", "日本", "gelb, hell"]


def texts() -> onnx.ModelProto:
    """Texts in, a label as text out."""
    nodes = [
        node(
            "LabelEncoder",
            ["x"],
            ["i"],
            domain="ai.onnx.ml",
            keys_strings=TEXTS,
            values_int64s=list(range(5)),
            default_int64=5,
        ),
        node("Gather", ["table", "i"], ["e"]),
        node("Flatten", ["e"], ["f"]),
        node("MatMul", ["f", "w"], ["y"]),
        node("ArgMax", ["y"], ["k"], axis=1, keepdims=0),
        node(
            "LabelEncoder",
            ["k"],
            ["label"],
            domain="ai.onnx.ml",
            keys_int64s=[0, 1, 2],
            values_strings=["ja", "nein", "weiß nicht"],
            default_string="?",
        ),
    ]
    outputs = [("label", TEXT, ["batch"]), ("y", F, ["batch", 3])]
    weights = {"table": normal(6, 8, seed=5), "w": glorot(16, 3, seed=6)}
    return build(nodes, [("x", TEXT, ["batch", 2])], outputs, weights, domains={"ai.onnx.ml": 2})


def two_texts(random: np.random.Generator, rows: int) -> Feed:
    return {"x": random.choice(np.array([*TEXTS, "lila", "ä"], object), (rows, 2))}


def truths() -> onnx.ModelProto:
    """Rules over numbers and truths."""
    nodes = [
        node("Greater", ["x", "limit"], ["over"]),
        node("And", ["over", "armed"], ["alarm"]),
        node("Cast", ["over"], ["n"], to=I32),
        node("ReduceSum", ["n", "axis"], ["count"], keepdims=0),
        node("Where", ["armed", "x", "quiet"], ["shown"]),
    ]
    weights = {"limit": normal(6, seed=3, scale=0.5), "axis": whole(1), "quiet": np.float32(0)}
    inputs = [("x", F, ["batch", 6]), ("armed", BOOL, ["batch", 6])]
    outputs = [("alarm", BOOL, ["batch", 6]), ("count", I32, ["batch"]), ("shown", F, ["batch", 6])]
    return build(nodes, inputs, outputs, weights)


def armed(random: np.random.Generator, rows: int) -> Feed:
    return {"x": draw(random, rows, 6), "armed": random.random((rows, 6)) < 0.5}


def doubles() -> onnx.ModelProto:
    """Small differences of large numbers, in 64 bits."""
    nodes = [
        node("Sub", ["x", "start"], ["d"]),
        node("MatMul", ["d", "w"], ["y"]),
    ]
    weights = {"start": np.full(4, 2.4e6), "w": normal(4, 3).astype(np.float64)}
    return build(nodes, [("x", D, ["batch", 4])], [("y", D, ["batch", 3])], weights)


def days(random: np.random.Generator, rows: int) -> Feed:
    return {"x": 2.4e6 + random.random((rows, 4))}


def halves() -> onnx.ModelProto:
    """A net of 16-bit floats."""
    nodes = [
        node("MatMul", ["x", "w0"], ["h"]),
        node("Add", ["h", "b0"], ["s"]),
        node("Relu", ["s"], ["r"]),
        node("MatMul", ["r", "w1"], ["y"]),
    ]
    weights = {
        "w0": glorot(24, 64).astype(np.float16), "b0": normal(64, scale=0.2).astype(np.float16),
        "w1": glorot(64, 8).astype(np.float16),
    }  # fmt: skip
    return build(nodes, [("x", H, ["batch", 24])], [("y", H, ["batch", 8])], weights)


def half_rows(random: np.random.Generator, rows: int) -> Feed:
    return {"x": draw(random, rows, 24).astype(np.float16)}


def keys() -> onnx.ModelProto:
    """Mixes the bits of large keys into buckets."""
    nodes = [
        node("Mul", ["key", "factor"], ["m"]),
        node("Mod", ["m", "prime"], ["r"]),
        node("Mod", ["r", "many"], ["bucket"]),
        node("Gather", ["table", "bucket"], ["y"]),
    ]
    weights = {
        "factor": np.int64(2654435761), "prime": np.int64(1000000007), "many": np.int64(64),
        "table": normal(64, 6),
    }  # fmt: skip
    outputs = [("bucket", I64, ["batch", 3]), ("y", F, ["batch", 3, 6])]
    return build(nodes, [("key", I64, ["batch", 3])], outputs, weights)


def some_keys(random: np.random.Generator, rows: int) -> Feed:
    return {"key": random.integers(0, 2**31, (rows, 3))}


def found_places() -> onnx.ModelProto:
    """The places of what is over a limit: as many as there are."""
    nodes = [
        node("MatMul", ["x", "w"], ["p"]),
        node("Round", ["p"], ["q"]),
        node("Greater", ["q", "zero"], ["over"]),
        node("NonZero", ["over"], ["places"]),
    ]
    weights = {"w": normal(6, 6, scale=0.8), "zero": np.float32(0)}
    return build(nodes, [("x", F, ["batch", 6])], [("places", I64, [2, "found"])], weights)


def branches() -> onnx.ModelProto:
    """Branches that read a layer's result of the graph around them."""
    out = [helper.make_tensor_value_info("o", F, None)]
    then = helper.make_graph([node("Mul", ["c", "k"], ["o"])], "then", [], out)
    other = helper.make_graph([node("Neg", ["c"], ["o"])], "else", [], out)
    nodes = [
        node("Conv", ["x", "w0"], ["c"], pads=[1, 1, 1, 1]),
        node("ReduceSum", ["x"], ["s"], keepdims=0),
        node("Greater", ["s", "zero"], ["yes"]),
        node("If", ["yes"], ["b"], then_branch=then, else_branch=other),
        node("Conv", ["b", "w1"], ["y"], pads=[1, 1, 1, 1]),
    ]
    weights = {
        "w0": normal(8, 3, 3, 3, scale=0.3), "w1": normal(4, 8, 3, 3, scale=0.2, seed=2),
        "k": np.float32(3), "zero": np.float32(0),
    }  # fmt: skip
    return build(nodes, [("x", F, ["batch", 3, 10, 10])], [("y", F, ["batch", 4, 10, 10])], weights)


def small_pictures(random: np.random.Generator, rows: int) -> Feed:
    return {"x": draw(random, rows, 3, 10, 10) + np.float32(random.normal())}


def loop() -> onnx.ModelProto:
    """A state that decays five times, each step kept."""
    info = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            node("MatMul", ["state", "turn"], ["turned"]),
            node("Tanh", ["turned"], ["after"]),
            node("Identity", ["after"], ["kept"]),
            node("Identity", ["go"], ["go_on"]),
        ],
        "body",
        [info("i", I64, []), info("go", BOOL, []), info("state", F, ["batch", 10])],
        [info("go_on", BOOL, []), info("after", F, ["batch", 10]), info("kept", F, ["batch", 10])],
    )
    nodes = [
        node("MatMul", ["x", "w"], ["p"]),
        node("Loop", ["times", "yes", "p"], ["y", "steps"], body=body),
    ]
    weights = {
        "w": glorot(6, 10), "turn": glorot(10, 10, seed=4), "times": np.int64(5),
        "yes": np.array(True),
    }  # fmt: skip
    outputs = [("y", F, ["batch", 10]), ("steps", F, [5, "batch", 10])]
    return build(nodes, [("x", F, ["batch", 6])], outputs, weights)


def graph_attention() -> onnx.ModelProto:
    """e[i, j] = s[i] + d[j] over all nodes: the first axis is no batch."""
    nodes = [
        node("MatMul", ["x", "w"], ["z"]),
        node("MatMul", ["z", "a"], ["s"]),
        node("MatMul", ["z", "b"], ["d"]),
        node("Transpose", ["d"], ["dt"], perm=[1, 0]),
        node("Add", ["s", "dt"], ["e"]),
        node("LeakyRelu", ["e"], ["l"], alpha=0.2),
        node("Softmax", ["l"], ["share"], axis=1),
        node("MatMul", ["share", "z"], ["y"]),
    ]
    weights = {"w": glorot(10, 16), "a": normal(16, 1, seed=2), "b": normal(16, 1, seed=3)}
    return build(nodes, [("x", F, ["nodes", 10])], [("y", F, ["nodes", 16])], weights)


def edges() -> onnx.ModelProto:
    """Messages along a list of edges, summed at their ends."""
    nodes = [
        node("MatMul", ["x", "w"], ["z"]),
        node("Gather", ["edges", "zero"], ["from"], axis=0),
        node("Gather", ["edges", "one"], ["to"], axis=0),
        node("Gather", ["z", "from"], ["message"]),
        node("Shape", ["z"], ["shape"]),
        node("ConstantOfShape", ["shape"], ["empty"]),
        node("Unsqueeze", ["to", "last"], ["to1"]),
        node("ScatterND", ["empty", "to1", "message"], ["sum"], reduction="add"),
        node("Add", ["sum", "z"], ["both"]),
        node("Relu", ["both"], ["y"]),
    ]
    weights = {
        "w": glorot(6, 8), "zero": np.int64(0), "one": np.int64(1), "last": whole(-1)
    }  # fmt: skip
    inputs = [("x", F, ["nodes", 6]), ("edges", I64, [2, "edges"])]
    return build(nodes, inputs, [("y", F, ["nodes", 8])], weights)


def meshes(random: np.random.Generator, rows: int) -> Feed:
    count = length(random, 4, 9, 15)
    return {"x": draw(random, rows, 6), "edges": random.integers(0, rows, (2, count))}


def scalars() -> onnx.ModelProto:
    nodes = [
        node("MatMul", ["x", "w"], ["p"]),
        node("Mul", ["p", "k"], ["y"]),
        node("ReduceMax", ["p"], ["top"], keepdims=0),
    ]
    inputs = [("x", F, ["batch", 10]), ("k", F, [])]
    return build(nodes, inputs, [("y", F, ["batch", 5]), ("top", F, [])], {"w": glorot(10, 5)})


def with_factor(random: np.random.Generator, rows: int) -> Feed:
    return {"x": draw(random, rows, 10), "k": np.array(random.uniform(0.5, 3), np.float32)}


def retrieval() -> onnx.ModelProto:
    """Queries against keys: two first axes of different names."""
    nodes = [
        node("MatMul", ["query", "w"], ["q"]),
        node("Transpose", ["keys"], ["k"], perm=[1, 0]),
        node("MatMul", ["q", "k"], ["y"]),
    ]
    inputs = [("query", F, ["queries", 8]), ("keys", F, ["known", 8])]
    return build(nodes, inputs, [("y", F, ["queries", "known"])], {"w": glorot(8, 8)})


def queries(random: np.random.Generator, rows: int) -> Feed:
    return {"query": draw(random, rows, 8), "keys": draw(random, length(random, 2, 5, 9), 8)}


def over_the_batch() -> onnx.ModelProto:
    """Shares among all rows of a run: what a listwise ranking does."""
    nodes = [
        node("Gemm", ["x", "w", "b"], ["s"]),
        node("Softmax", ["s"], ["y"], axis=0),
    ]
    weights = {"w": glorot(12, 3), "b": normal(3, scale=0.2)}
    return build(nodes, [("x", F, ["batch", 12])], [("y", F, ["batch", 3])], weights)


def every_type() -> onnx.ModelProto:
    """Within what all types hold: beyond it no standard says what a cast gives."""
    kinds = (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, I32, I64, BOOL, D, H)
    nodes = [
        node("Clip", ["x", "low", "high"], ["held"]),
        *(node("Cast", ["held"], [f"y{kind}"], to=kind) for kind in kinds),
    ]
    outputs = [(f"y{kind}", kind, ["batch", 5]) for kind in kinds]
    weights = {"low": np.float32(0), "high": np.float32(20)}
    return build(nodes, [("x", F, ["batch", 5])], outputs, weights)


def small_numbers(random: np.random.Generator, rows: int) -> Feed:
    return {"x": random.integers(0, 20, (rows, 5)).astype(np.float32) + np.float32(0.25)}


CASES = (
    Case("clock in int64", clock, moments, is_quick=True),
    Case("running sums in int64", running_sums, amounts, is_quick=True),
    Case("ranks with ties", ranks_with_ties, rows_of(8), is_quick=True),
    Case("best class", best_class, rows_of(20), samples=96),
    Case("texts", texts, two_texts, is_quick=True),
    Case("truths", truths, armed),
    Case("doubles", doubles, days, is_quick=True),
    Case("floats of 16 bits", halves, half_rows),
    Case("keys to buckets", keys, some_keys),
    Case("places that are found", found_places, rows_of(6)),
    Case("branches", branches, small_pictures),
    Case("loop", loop, rows_of(6)),
    Case("graph attention", graph_attention, rows_of(10), is_quick=True),
    Case("list of edges", edges, meshes),
    Case("scalars", scalars, with_factor),
    Case("queries and keys", retrieval, queries),
    Case("shares over the batch", over_the_batch, rows_of(12)),
    Case("every datatype", every_type, small_numbers),
)
