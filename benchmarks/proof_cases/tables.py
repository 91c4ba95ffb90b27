"""Models of rows of numbers: classifiers, regressions, embeddings, trees."""

from __future__ import annotations

import itertools

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
    node,
    normal,
    whole,
)  # fmt: skip


def dense(
    sizes: list[int], last: str, seed: int = 0
) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """Returns layers with ReLU between them, whose last result bears a name."""
    nodes, weights, value = [], {}, "x"
    for at, (rows, columns) in enumerate(itertools.pairwise(sizes)):
        weights[f"w{at}"] = glorot(rows, columns, seed=seed + at)
        weights[f"b{at}"] = normal(columns, seed=seed + 50 + at, scale=0.2)
        is_last = at == len(sizes) - 2
        made = last if is_last else f"sum{at}"
        nodes.append(node("Gemm", [value, f"w{at}", f"b{at}"], [made]))
        if not is_last:
            nodes.append(node("Relu", [made], [f"act{at}"]))
            value = f"act{at}"
    return nodes, weights


def rows_of(columns: int, scale: float = 1.0, shift: float = 0.0):
    """Returns what makes float rows "x" [rows, columns]."""

    def feed(random: np.random.Generator, rows: int) -> Feed:
        return {"x": scale * draw(random, rows, columns) + np.float32(shift)}

    return feed


def classifier(*, softmax: bool, classes: int) -> onnx.ModelProto:
    nodes, weights = dense([32, 96, classes], "logits")
    weights["w1"] = weights["w1"] * 3  # sure of most
    if softmax:
        nodes.append(node("Softmax", ["logits"], ["y"], axis=-1))
    name = "y" if softmax else "logits"
    return build(nodes, [("x", F, ["batch", 32])], [(name, F, ["batch", classes])], weights)


def logits_of_ten() -> onnx.ModelProto:
    return classifier(softmax=False, classes=10)


def shares_of_five() -> onnx.ModelProto:
    return classifier(softmax=True, classes=5)


def houses() -> onnx.ModelProto:
    """One number from features of very different sizes, the scaling folded into the first layer."""
    nodes, weights = dense([5, 128, 128, 1], "y", seed=4)
    mean, spread = np.array([200, 4.5, 1960, 48, 10]), np.array([100, 2.5, 36, 0.6, 6])
    weights["b0"] = (weights["b0"] - (mean / spread) @ weights["w0"]).astype(np.float32)
    weights["w0"] = (weights["w0"] / spread[:, None]).astype(np.float32)
    weights["w2"], weights["b2"] = weights["w2"] * 2e4, np.array([4e5], np.float32)
    return build(nodes, [("x", F, ["batch", 5])], [("y", F, ["batch", 1])], weights)


def house(random: np.random.Generator, rows: int) -> Feed:
    low, high = [30, 1, 1900, 47, 0.1], [400, 9, 2024, 49, 20]
    return {"x": random.uniform(low, high, (rows, 5)).astype(np.float32)}


def embedding() -> onnx.ModelProto:
    nodes, weights = dense([24, 96, 48], "raw", seed=7)
    nodes.append(node("LpNormalization", ["raw"], ["y"], axis=-1, p=2))
    return build(nodes, [("x", F, ["batch", 24])], [("y", F, ["batch", 48])], weights)


def large_beside_small() -> onnx.ModelProto:
    """A large output whose size comes from one feature, and small ones that need all others."""
    nodes, weights = dense([48, 96], "sum", seed=9)
    nodes += [
        node("Relu", ["sum"], ["act"]),
        node("Gemm", ["act", "wl", "bl"], ["large"]),
        node("Gemm", ["act", "ws", "bs"], ["logit"]),
        node("Sigmoid", ["logit"], ["small"]),
        node("Mul", ["small", "tiny"], ["score"]),
    ]
    weights |= {
        "wl": normal(96, 4, seed=7, scale=200.0), "bl": np.full(4, 900, np.float32),
        "ws": normal(96, 6, seed=8, scale=0.3), "bs": np.full(6, -1, np.float32),
        "tiny": np.float32(0.01),
    }  # fmt: skip
    outputs = [("large", F, ["batch", 4]), ("score", F, ["batch", 6])]
    return build(nodes, [("x", F, ["batch", 48])], outputs, weights)


def labels_of_many() -> onnx.ModelProto:
    nodes, weights = dense([40, 64, 14], "logits", seed=12)
    nodes.append(node("Sigmoid", ["logits"], ["y"]))
    return build(nodes, [("x", F, ["batch", 40])], [("y", F, ["batch", 14])], weights)


def with_gaps() -> onnx.ModelProto:
    """Missing numbers (NaN) are replaced, and counted."""
    nodes, weights = dense([12, 48, 6], "y", seed=15)
    nodes[0].input[0] = "filled"
    before = [
        node("IsNaN", ["x"], ["gap"]),
        node("Where", ["gap", "mean", "x"], ["filled"]),
        node("Cast", ["gap"], ["one"], to=I64),
        node("ReduceSum", ["one", "axis"], ["gaps"], keepdims=1),
    ]
    weights |= {"mean": normal(12, seed=3), "axis": whole(1)}
    outputs = [("y", F, ["batch", 6]), ("gaps", I64, ["batch", 1])]
    return build([*before, *nodes], [("x", F, ["batch", 12])], outputs, weights)


def row_with_gaps(random: np.random.Generator, rows: int) -> Feed:
    values = draw(random, rows, 12)
    return {"x": np.where(random.random(values.shape) < 0.1, np.float32(np.nan), values)}


def fixed_batch() -> onnx.ModelProto:
    nodes, weights = dense([32, 64, 10], "y", seed=18)
    return build(nodes, [("x", F, [4, 32])], [("y", F, [4, 10])], weights)


def four_rows(random: np.random.Generator, rows: int) -> Feed:
    del rows  # the model says how many
    return {"x": draw(random, 4, 32)}


def anomaly() -> onnx.ModelProto:
    """How badly each row is restored: one number for a row, without an axis of its own."""
    nodes, weights = dense([20, 8, 20], "again", seed=21)
    nodes += [
        node("Sub", ["again", "x"], ["off"]),
        node("Mul", ["off", "off"], ["square"]),
        node("ReduceMean", ["square"], ["y"], axes=[1], keepdims=0),
    ]
    return build(nodes, [("x", F, ["batch", 20])], [("y", F, ["batch"])], weights)


def trees() -> onnx.ModelProto:
    """A forest whose leaves hold shares of three classes; the label and the shares."""
    random = np.random.default_rng(5)
    count, inner, leaves = 12, range(7), range(7, 15)
    tree = [t for t in range(count) for _ in range(15)]
    place = [n for _ in range(count) for n in range(15)]
    shares = random.dirichlet(np.ones(3), (count, len(leaves))) / count
    ensemble = node(
        "TreeEnsembleClassifier", ["x"], ["label", "shares"], domain="ai.onnx.ml",
        nodes_treeids=tree, nodes_nodeids=place,
        nodes_featureids=[int(random.integers(0, 8)) if n in inner else 0 for n in place],
        nodes_values=[float(random.normal(scale=0.7)) if n in inner else 0.0 for n in place],
        nodes_modes=["BRANCH_LEQ" if n in inner else "LEAF" for n in place],
        nodes_truenodeids=[2 * n + 1 if n in inner else 0 for n in place],
        nodes_falsenodeids=[2 * n + 2 if n in inner else 0 for n in place],
        class_treeids=[t for t in range(count) for _ in leaves for _ in range(3)],
        class_nodeids=[n for _ in range(count) for n in leaves for _ in range(3)],
        class_ids=[k for _ in range(count) for _ in leaves for k in range(3)],
        class_weights=[float(share) for share in shares.ravel()],
        classlabels_int64s=[3, 7, 40], post_transform="NONE",
    )  # fmt: skip
    outputs = [("label", I64, ["batch"]), ("shares", F, ["batch", 3])]
    return build([ensemble], [("x", F, ["batch", 8])], outputs, {}, domains={"ai.onnx.ml": 3})


CASES = (
    Case("classifier, logits", logits_of_ten, rows_of(32, 0.7, 0.3), samples=128, is_quick=True),
    Case("classifier, softmax", shares_of_five, rows_of(32)),
    Case("regression with an offset", houses, house, samples=200, is_quick=True),
    Case("embedding", embedding, rows_of(24, 2.0, 1.0), samples=96),
    Case("tiny beside large", large_beside_small, rows_of(48), samples=96, is_quick=True),
    Case("labels of many", labels_of_many, rows_of(40)),
    Case("gaps are filled", with_gaps, row_with_gaps, is_quick=True),
    Case("fixed batch of four", fixed_batch, four_rows, samples=48, sample_rows=4),
    Case("anomaly, one number a row", anomaly, rows_of(20)),
    Case("tree ensemble", trees, rows_of(8), samples=64),
)  # fmt: skip
