"""Models of sequences: transformers, windows, recurrent nets, sound."""

from __future__ import annotations

import numpy as np
import onnx

from benchmarks.proof_cases.case import (
    I64,
    Array,
    Case,
    F,
    Feed,
    build,
    draw,
    glorot,
    length,
    node,
    normal,
    whole,
)  # fmt: skip

WORDS, WIDE, HEADS = 60, 24, 3


def _attention(source: str) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """Returns self-attention of three heads with an additive mask "far", result "mixed"."""
    nodes, weights = [], {"heads": whole(0, 0, HEADS, WIDE // HEADS), "flat": whole(0, 0, WIDE)}
    for name, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        weights[f"w{name}"] = glorot(WIDE, WIDE, seed=ord(name))
        nodes += [
            node("MatMul", [source, f"w{name}"], [f"{name}0"]),
            node("Reshape", [f"{name}0", "heads"], [f"{name}1"]),
            node("Transpose", [f"{name}1"], [name], perm=order),
        ]
    weights |= {"root": np.float32((WIDE // HEADS) ** -0.5), "wo": glorot(WIDE, WIDE, seed=3)}
    nodes += [
        node("MatMul", ["q", "k"], ["likeness"]),
        node("Mul", ["likeness", "root"], ["scaled"]),
        node("Add", ["scaled", "far"], ["masked"]),
        node("Softmax", ["masked"], ["weights"], axis=-1),
        node("MatMul", ["weights", "v"], ["heads_out"]),
        node("Transpose", ["heads_out"], ["back"], perm=[0, 2, 1, 3]),
        node("Reshape", ["back", "flat"], ["joined"]),
        node("MatMul", ["joined", "wo"], ["mixed"]),
    ]
    return nodes, weights


def transformer() -> onnx.ModelProto:
    """Token ids and a mask through one block; each token's state and a pooled sentence."""
    attention, weights = _attention("n0")
    nodes = [
        node("Gather", ["table", "ids"], ["x"]),
        node("LayerNormalization", ["x", "g0", "s0"], ["n0"], axis=-1),
        node("Cast", ["mask"], ["here"], to=F),
        node("Sub", ["one", "here"], ["gone"]),
        node("Mul", ["gone", "least"], ["far0"]),
        node("Unsqueeze", ["far0", "axes"], ["far"]),
        *attention,
        node("Add", ["mixed", "x"], ["res"]),
        node("LayerNormalization", ["res", "g1", "s1"], ["n1"], axis=-1),
        node("MatMul", ["n1", "w1"], ["h0"]),
        node("Add", ["h0", "b1"], ["h1"]),
        node("Div", ["h1", "root2"], ["e0"]),
        node("Erf", ["e0"], ["e1"]),
        node("Add", ["e1", "one"], ["e2"]),
        node("Mul", ["h1", "e2"], ["e3"]),
        node("Mul", ["e3", "half"], ["h2"]),
        node("MatMul", ["h2", "w2"], ["h3"]),
        node("Add", ["h3", "res"], ["states"]),
        node("Unsqueeze", ["here", "last"], ["here1"]),
        node("Mul", ["states", "here1"], ["kept"]),
        node("ReduceSum", ["kept", "second"], ["total"], keepdims=0),
        node("ReduceSum", ["here1", "second"], ["count"], keepdims=0),
        node("Max", ["count", "one"], ["count1"]),
        node("Div", ["total", "count1"], ["sentence"]),
    ]
    weights |= {
        "table": normal(WORDS, WIDE, seed=31), "g0": 1 + normal(WIDE, seed=4, scale=0.1),
        "s0": normal(WIDE, seed=5, scale=0.1), "g1": 1 + normal(WIDE, seed=6, scale=0.1),
        "s1": normal(WIDE, seed=7, scale=0.1), "one": np.float32(1), "least": np.float32(-1e4),
        "axes": whole(1, 2), "last": whole(-1), "second": whole(1), "half": np.float32(0.5),
        "root2": np.float32(2**0.5), "w1": glorot(WIDE, 2 * WIDE, seed=8),
        "b1": normal(2 * WIDE, seed=9, scale=0.2), "w2": glorot(2 * WIDE, WIDE, seed=10),
    }  # fmt: skip
    inputs = [("ids", I64, ["batch", "tokens"]), ("mask", I64, ["batch", "tokens"])]
    outputs = [("states", F, ["batch", "tokens", WIDE]), ("sentence", F, ["batch", WIDE])]
    return build(nodes, inputs, outputs, weights)


def sentence(random: np.random.Generator, rows: int) -> Feed:
    tokens = length(random, 4, 7, 12, 20)
    ends = random.integers(max(1, tokens // 2), tokens + 1, (rows, 1))
    ids = random.integers(0, WORDS, (rows, tokens))
    return {"ids": ids, "mask": (np.arange(tokens)[None] < ends).astype(np.int64)}


def bag_of_words() -> onnx.ModelProto:
    """Classes of a text of 16 words: the mean of their vectors."""
    nodes = [
        node("Gather", ["table", "ids"], ["x"]),
        node("ReduceMean", ["x"], ["m"], axes=[1], keepdims=0),
        node("Gemm", ["m", "w", "b"], ["logits"]),
        node("Softmax", ["logits"], ["y"], axis=-1),
    ]
    weights = {
        "table": normal(200, 16, seed=2), "w": 6 * glorot(16, 6), "b": normal(6, scale=0.2)
    }  # fmt: skip
    return build(nodes, [("ids", I64, ["batch", 16])], [("y", F, ["batch", 6])], weights)


def sixteen_words(random: np.random.Generator, rows: int) -> Feed:
    # As texts are: few words often, most of them hardly ever.
    return {"ids": np.minimum(random.zipf(1.4, (rows, 16)) - 1, 199).astype(np.int64)}


def window() -> onnx.ModelProto:
    """Looks at the first eight tokens only."""
    nodes = [
        node("Slice", ["x", "start", "end", "axis"], ["cut"]),
        node("MatMul", ["cut", "w0"], ["h"]),
        node("Relu", ["h"], ["r"]),
        node("MatMul", ["r", "w1"], ["y"]),
    ]
    weights = {
        "start": whole(0), "end": whole(8), "axis": whole(1), "w0": glorot(16, 64),
        "w1": glorot(64, 12),
    }  # fmt: skip
    return build(
        nodes, [("x", F, ["batch", "tokens", 16])], [("y", F, ["batch", "kept", 12])], weights
    )


def tokens_of(columns: int, *lengths: int):
    """Returns what makes sequences "x" [rows, length, columns]."""

    def feed(random: np.random.Generator, rows: int) -> Feed:
        return {"x": draw(random, rows, length(random, *lengths), columns)}

    return feed


def halved() -> onnx.ModelProto:
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
        node("Conv", ["t", "k", "b"], ["c"], kernel_shape=[2], strides=[2]),
        node("Relu", ["c"], ["r"]),
        node("Transpose", ["r"], ["back"], perm=[0, 2, 1]),
        node("MatMul", ["back", "w"], ["y"]),
    ]
    weights = {"k": normal(32, 16, 2, scale=0.3), "b": normal(32, scale=0.2), "w": glorot(32, 10)}
    return build(
        nodes, [("x", F, ["batch", "tokens", 16])], [("y", F, ["batch", "half", 10])], weights
    )


def old_softmax() -> onnx.ModelProto:
    """Softmax of opset 11: over all that follows the first axis."""
    nodes = [node("MatMul", ["x", "w"], ["p"]), node("Softmax", ["p"], ["y"])]
    return build(
        nodes, [("x", F, ["batch", "tokens", 12])], [("y", F, ["batch", "tokens", 20])],
        {"w": glorot(12, 20)}, opset=11,
    )  # fmt: skip


def both_ways() -> onnx.ModelProto:
    """A bidirectional LSTM and a backward GRU, time first."""
    wide, columns = 8, 6
    nodes = [
        node(
            "LSTM",
            ["x", "wl", "rl", "bl"],
            ["a", "ah", "ac"],
            hidden_size=wide,
            direction="bidirectional",
        ),
        node("GRU", ["x", "wg", "rg", "bg"], ["g", "gh"], hidden_size=wide, direction="reverse"),
    ]
    weights = {
        "wl": normal(2, 4 * wide, columns, scale=0.5), "rl": normal(2, 4 * wide, wide, scale=0.4),
        "bl": normal(2, 8 * wide, scale=0.2), "wg": normal(1, 3 * wide, columns, scale=0.5),
        "rg": normal(1, 3 * wide, wide, scale=0.4), "bg": normal(1, 6 * wide, scale=0.2),
    }  # fmt: skip
    outputs = [
        ("a", F, ["time", 2, "batch", wide]), ("ah", F, [2, "batch", wide]),
        ("g", F, ["time", 1, "batch", wide]), ("gh", F, [1, "batch", wide]),
    ]  # fmt: skip
    return build(nodes, [("x", F, ["time", "batch", columns])], outputs, weights, opset=14)


def time_first(random: np.random.Generator, rows: int) -> Feed:
    return {"x": draw(random, length(random, 3, 7, 12), rows, 6)}


def with_state() -> onnx.ModelProto:
    """A GRU that is given its state and gives it back."""
    wide, columns = 12, 5
    nodes = [
        node(
            "GRU",
            ["x", "w", "r", "b", "", "h0"],
            ["o", "h1"],
            hidden_size=wide,
            linear_before_reset=1,
        ),
        node("Squeeze", ["o", "axis"], ["flat"]),
        node("MatMul", ["flat", "v"], ["y"]),
    ]
    weights = {
        "w": normal(1, 3 * wide, columns, scale=0.5), "r": normal(1, 3 * wide, wide, scale=0.4),
        "b": normal(1, 6 * wide, scale=0.2), "axis": whole(1), "v": glorot(wide, 4),
    }  # fmt: skip
    inputs = [("x", F, ["time", "batch", columns]), ("h0", F, [1, "batch", wide])]
    outputs = [("y", F, ["time", "batch", 4]), ("h1", F, [1, "batch", wide])]
    return build(nodes, inputs, outputs, weights)


def time_and_state(random: np.random.Generator, rows: int) -> Feed:
    x = draw(random, length(random, 2, 5, 9), rows, 5)
    return {"x": x, "h0": np.tanh(draw(random, 1, rows, 12))}


def sound() -> onnx.ModelProto:
    """Frames of a sound of any length: a bank of filters, its energy, its logarithm."""
    time = np.arange(32)
    bank = np.stack([np.cos(2 * np.pi * k * time / 32) * np.hanning(32) for k in range(1, 13)])
    nodes = [
        node("Unsqueeze", ["x", "one"], ["wave"]),
        node("Conv", ["wave", "bank"], ["c"], strides=[16], pads=[16, 16]),
        node("Mul", ["c", "c"], ["energy"]),
        node("Add", ["energy", "floor"], ["lifted"]),
        node("Log", ["lifted"], ["y"]),
    ]
    weights = {
        "one": whole(1), "bank": bank[:, None].astype(np.float32), "floor": np.float32(1e-3)
    }  # fmt: skip
    return build(
        nodes, [("x", F, ["batch", "samples"])], [("y", F, ["batch", 12, "frames"])], weights
    )


def tones(random: np.random.Generator, rows: int) -> Feed:
    time = np.arange(length(random, 64, 100, 200))
    tone = np.sin(random.uniform(0.1, 1.5, (rows, 1)) * time + random.uniform(0, 6, (rows, 1)))
    return {"x": (tone * random.uniform(0.1, 1, (rows, 1))).astype(np.float32)}


def causal() -> onnx.ModelProto:
    """Attention in which no token sees a later one; the mask is made of the length."""
    attention, weights = _attention("x")
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Gather", ["shape", "second"], ["tokens"]),
        node("Concat", ["tokens", "tokens"], ["square"], axis=0),
        node("Expand", ["least", "square"], ["all"]),
        node("Trilu", ["all", "first"], ["far"], upper=1),
        *attention,
        node("Add", ["mixed", "x"], ["y"]),
    ]
    weights |= {"second": whole(1), "least": np.array([[-1e9]], np.float32), "first": np.int64(1)}
    shape = ["batch", "tokens", WIDE]
    return build(nodes, [("x", F, shape)], [("y", F, shape)], weights)


CASES = (
    Case("transformer block with a mask", transformer, sentence, is_quick=True),
    Case("bag of words", bag_of_words, sixteen_words, samples=96),
    Case("window of eight tokens", window, tokens_of(16, 3, 8, 12, 20), is_quick=True),
    Case("halved tokens", halved, tokens_of(16, 4, 9, 22)),
    Case("softmax of opset 11", old_softmax, tokens_of(12, 1, 4, 9)),
    Case("recurrent, both ways", both_ways, time_first),
    Case("recurrent, with a state", with_state, time_and_state),
    Case("sound of any length", sound, tones),
    Case("causal attention", causal, tokens_of(WIDE, 3, 9, 14)),
)
