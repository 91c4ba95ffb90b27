"""Models of pictures: classifiers, detectors, maps, and every way to convolve, pool and resize."""

from __future__ import annotations

import numpy as np
import onnx

from benchmarks.proof_cases.case import (
    I64,
    U8,
    Array,
    Case,
    F,
    Feed,
    build,
    draw,
    glorot,
    he,
    length,
    node,
    normal,
    whole,
)  # fmt: skip

ONE = [1, 1, 1, 1]


def scene(random: np.random.Generator, rows: int, side: int, channels: int = 3) -> Array:
    """Returns pictures of bright squares on a smooth ground, 0..1, [rows, channels, side, side]."""
    ramp = np.linspace(0, 0.4, side, dtype=np.float32)
    made = np.tile(
        ramp[None, None, :, None] * random.random((rows, channels, 1, 1)), (1, 1, 1, side)
    )
    for picture in made:
        for _ in range(int(random.integers(1, 5))):
            size = int(random.integers(max(2, side // 8), max(3, side // 3)))
            top, left = (int(random.integers(0, side - size + 1)) for _ in range(2))
            picture[:, top : top + size, left : left + size] = random.random((channels, 1, 1))
    noise = 0.02 * random.standard_normal(made.shape)
    return np.clip(made + noise, 0, 1).astype(np.float32)


def scenes(*sides: int, channels: int = 3):
    """Returns what makes pictures "x" of one of several sizes."""

    def feed(random: np.random.Generator, rows: int) -> Feed:
        return {"x": scene(random, rows, length(random, *sides), channels)}

    return feed


def residual_net() -> onnx.ModelProto:
    nodes = [
        node("Conv", ["x", "w0", "b0"], ["c0"], pads=ONE, strides=[2, 2]),
        node("Relu", ["c0"], ["r0"]),
        node("Conv", ["r0", "w1", "b1"], ["c1"], pads=ONE),
        node("BatchNormalization", ["c1", "scale", "shift", "mean", "var"], ["n1"]),
        node("Relu", ["n1"], ["r1"]),
        node("Conv", ["r1", "w2", "b2"], ["c2"], pads=ONE),
        node("Add", ["c2", "r0"], ["sum"]),
        node("Relu", ["sum"], ["r2"]),
        node("MaxPool", ["r2"], ["pool"], kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", ["pool"], ["mean_map"]),
        node("Flatten", ["mean_map"], ["flat"]),
        node("Gemm", ["flat", "w3", "b3"], ["logits"]),
    ]
    weights = {
        "w0": he(16, 3, 3, 3), "b0": normal(16, scale=0.1), "w1": he(16, 16, 3, 3),
        "b1": normal(16, seed=2, scale=0.1), "w2": he(16, 16, 3, 3, seed=3),
        "b2": normal(16, seed=3, scale=0.1), "scale": 1 + normal(16, seed=4, scale=0.1),
        "shift": normal(16, seed=5, scale=0.1), "mean": normal(16, seed=6, scale=0.1),
        "var": np.abs(1 + normal(16, seed=7, scale=0.2)), "w3": 4 * glorot(16, 12),
        "b3": normal(12, seed=8, scale=0.2),
    }  # fmt: skip
    return build(nodes, [("x", F, ["batch", 3, 32, 32])], [("logits", F, ["batch", 12])], weights)


def tensorflow_mobilenet() -> onnx.ModelProto:
    """Depthwise layers padded as TensorFlow's SAME does at stride 2: more below than above."""
    nodes, weights, value, width = [], {"low": np.float32(0), "high": np.float32(6)}, "x", 8

    def conv(source: str, weight: Array, stride: int, pads: list[int], group: int = 1) -> str:
        at = len(weights)
        weights[f"w{at}"] = weight
        weights[f"b{at}"] = normal(weight.shape[0], seed=at, scale=0.1)
        nodes.append(
            node(
                "Conv",
                [source, f"w{at}", f"b{at}"],
                [f"c{at}"],
                strides=[stride] * 2,
                pads=pads,
                group=group,
            )
        )
        nodes.append(node("Clip", [f"c{at}", "low", "high"], [f"r{at}"]))
        return f"r{at}"

    value = conv(value, he(8, 3, 3, 3), 2, [0, 0, 1, 1])
    for stride, out in ((1, 16), (2, 32), (1, 32), (2, 64)):
        pads = [0, 0, 1, 1] if stride == 2 else ONE
        value = conv(value, he(width, 1, 3, 3, seed=out), stride, pads, group=width)
        value = conv(value, he(out, width, 1, 1, seed=out + 1), 1, [0] * 4)
        width = out
    nodes += [
        node("GlobalAveragePool", [value], ["pool"]),
        node("Flatten", ["pool"], ["flat"]),
        node("Gemm", ["flat", "last", "bias"], ["logits"]),
    ]
    weights |= {"last": 3 * glorot(64, 20), "bias": normal(20, seed=3, scale=0.1)}
    return build(nodes, [("x", F, ["batch", 3, 64, 64])], [("logits", F, ["batch", 20])], weights)


def odd_convolutions() -> onnx.ModelProto:
    nodes = [
        node("Conv", ["x", "w0", "b0"], ["c0"], group=3, dilations=[2, 3], pads=[2, 3, 2, 3]),
        node("LeakyRelu", ["c0"], ["r0"], alpha=0.2),
        node(
            "Conv", ["r0", "w1"], ["c1"], auto_pad="SAME_LOWER", kernel_shape=[4, 2], strides=[2, 1]
        ),
        node("Conv", ["c1", "w2"], ["y"], pads=[0, 1, 2, 0], strides=[1, 2]),
    ]
    weights = {
        "w0": he(12, 3, 3, 3), "b0": normal(12, scale=0.2), "w1": he(10, 12, 4, 2),
        "w2": he(6, 10, 3, 2, seed=4),
    }  # fmt: skip
    return build(
        nodes, [("x", F, ["batch", 9, 16, 13])], [("y", F, ["batch", 6, "h", "w"])], weights
    )


def nine_channels(random: np.random.Generator, rows: int) -> Feed:
    return {"x": draw(random, rows, 9, 16, 13)}


def enlarged() -> onnx.ModelProto:
    """Pictures of any even size, halved and brought back by transposed convolutions."""
    nodes = [
        node("Conv", ["x", "w0", "b0"], ["c0"], pads=ONE, strides=[2, 2]),
        node("PRelu", ["c0", "slope"], ["r0"]),
        node(
            "ConvTranspose",
            ["r0", "w1", "b1"],
            ["c1"],
            strides=[2, 2],
            pads=[0, 0, 1, 1],
            output_padding=[1, 1],
        ),
        node("Tanh", ["c1"], ["y"]),
    ]
    weights = {
        "w0": he(12, 3, 3, 3), "b0": normal(12, scale=0.2), "slope": np.abs(normal(12, 1, 1)),
        "w1": normal(12, 3, 3, 3, seed=3, scale=0.25), "b1": normal(3, seed=4, scale=0.2),
    }  # fmt: skip
    shape = ["batch", 3, "height", "width"]
    return build(nodes, [("x", F, shape)], [("y", F, ["batch", 3, "h2", "w2"])], weights)


def segmentation() -> onnx.ModelProto:
    """A map of class shares, and the class of every pixel."""
    nodes = [
        node("Conv", ["x", "w0", "b0"], ["c0"], pads=ONE),
        node("Relu", ["c0"], ["r0"]),
        node("Conv", ["r0", "w1", "b1"], ["c1"], pads=ONE),
        node("Softmax", ["c1"], ["shares"], axis=1),
        node("ArgMax", ["shares"], ["mask"], axis=1, keepdims=0),
    ]
    weights = {
        "w0": 2 * he(16, 3, 3, 3), "b0": normal(16, scale=0.5), "w1": 2 * he(6, 16, 3, 3),
        "b1": normal(6, seed=2, scale=0.5),
    }  # fmt: skip
    plane = ["batch", "height", "width"]
    outputs = [("shares", F, ["batch", 6, *plane[1:]]), ("mask", I64, plane)]
    return build(nodes, [("x", F, ["batch", 3, *plane[1:]])], outputs, weights)


def pools() -> onnx.ModelProto:
    kinds = [
        (
            "AveragePool",
            {
                "kernel_shape": [3, 3],
                "strides": [2, 2],
                "pads": [1, 0, 0, 1],
                "count_include_pad": 1,
            },
        ),
        ("AveragePool", {"kernel_shape": [3, 2], "strides": [2, 3], "pads": [1, 1, 1, 1]}),
        ("AveragePool", {"kernel_shape": [2, 2], "auto_pad": "SAME_LOWER"}),
        ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
        ("MaxPool", {"kernel_shape": [2, 3], "dilations": [2, 1]}),
    ]
    nodes = [node("Conv", ["x", "w"], ["c"], pads=ONE)]
    outputs = []
    for at, (operator, settings) in enumerate(kinds):
        nodes.append(node(operator, ["c"], [f"y{at}"], **settings))
        outputs.append((f"y{at}", F, ["batch", 4, f"h{at}", f"w{at}"]))
    return build(nodes, [("x", F, ["batch", 3, 11, 12])], outputs, {"w": he(4, 3, 3, 3)})


def wide_pictures(random: np.random.Generator, rows: int) -> Feed:
    return {"x": draw(random, rows, 3, 11, 12) + 1}


def resizes() -> onnx.ModelProto:
    ways = [
        {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
        {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        },
        {"mode": "cubic", "coordinate_transformation_mode": "half_pixel", "cubic_coeff_a": -0.5},
    ]
    nodes, outputs = [node("Conv", ["x", "w"], ["c"], pads=ONE)], []
    for at, way in enumerate(ways):
        nodes.append(node("Resize", ["c", "", "scales"], [f"y{at}"], **way))
        outputs.append((f"y{at}", F, ["batch", 4, f"h{at}", f"w{at}"]))
    weights = {"w": he(4, 3, 3, 3), "scales": np.array([1, 1, 1.5, 2], np.float32)}
    return build(nodes, [("x", F, ["batch", 3, 10, 11])], outputs, weights)


def ten_by_eleven(random: np.random.Generator, rows: int) -> Feed:
    return {"x": draw(random, rows, 3, 10, 11)}


def super_resolution() -> onnx.ModelProto:
    nodes = [
        node("Conv", ["x", "w0", "b0"], ["c0"], pads=[2, 2, 2, 2]),
        node("Relu", ["c0"], ["r0"]),
        node("Conv", ["r0", "w1", "b1"], ["c1"], pads=ONE),
        node("DepthToSpace", ["c1"], ["y"], blocksize=2, mode="CRD"),
    ]
    weights = {
        "w0": he(16, 1, 5, 5), "b0": normal(16, scale=0.1), "w1": he(4, 16, 3, 3),
        "b1": normal(4, seed=2, scale=0.1),
    }  # fmt: skip
    shape = ["batch", 1, "height", "width"]
    return build(nodes, [("x", F, shape)], [("y", F, ["batch", 1, "h2", "w2"])], weights)


GRID, STRIDE, KINDS = 8, 8, 5


def _head(prefix: str) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """Returns a detector's head: boxes in pixels [N, 4, cells], scores [N, KINDS, cells]."""
    ys, xs = np.meshgrid(np.arange(GRID), np.arange(GRID), indexing="ij")
    centres = np.stack([xs, ys]).reshape(1, 2, -1).astype(np.float32) * STRIDE + STRIDE / 2
    nodes = [
        node("Conv", ["x", "w0", "b0"], ["c0"], strides=[4, 4], pads=ONE),
        node("Relu", ["c0"], ["r0"]),
        node("Conv", ["r0", "w1", "b1"], ["c1"], strides=[2, 2], pads=ONE),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "w2", "b2"], ["c2"]),
        node("Reshape", ["c2", "cells"], ["flat"]),
        node("Split", ["flat", "parts"], ["off", "side", "logit"], axis=1),
        node("Tanh", ["off"], ["shift"]),
        node("Mul", ["shift", "stride"], ["moved"]),
        node("Add", ["moved", "centres"], ["centre"]),
        node("Sigmoid", ["side"], ["share"]),
        node("Mul", ["share", "largest"], ["size"]),
        node("Concat", ["centre", "size"], [f"{prefix}boxes"], axis=1),
        node("Sigmoid", ["logit"], [f"{prefix}scores"]),
    ]
    weights = {
        "w0": he(16, 3, 6, 6), "b0": normal(16, scale=0.2), "w1": he(32, 16, 3, 3),
        "b1": normal(32, scale=0.2), "w2": 2.5 * he(4 + KINDS, 32, 1, 1),
        "b2": np.concatenate([np.zeros(4), np.full(KINDS, -1.5)]).astype(np.float32),
        "cells": whole(0, 4 + KINDS, GRID * GRID), "parts": whole(2, 2, KINDS),
        "stride": np.float32(STRIDE), "centres": centres, "largest": np.float32(40),
    }  # fmt: skip
    return nodes, weights


def yolo() -> onnx.ModelProto:
    nodes, weights = _head("")
    nodes.append(node("Concat", ["boxes", "scores"], ["y"], axis=1))
    outputs = [("y", F, ["batch", 4 + KINDS, GRID * GRID])]
    return build(nodes, [("x", F, ["batch", 3, 64, 64])], outputs, weights)


def boxes_and_scores() -> onnx.ModelProto:
    nodes, weights = _head("wide_")
    nodes += [
        node("Transpose", ["wide_boxes"], ["boxes"], perm=[0, 2, 1]),
        node("Transpose", ["wide_scores"], ["scores"], perm=[0, 2, 1]),
    ]
    cells = GRID * GRID
    outputs = [("boxes", F, ["batch", cells, 4]), ("scores", F, ["batch", cells, KINDS])]
    return build(nodes, [("x", F, ["batch", 3, 64, 64])], outputs, weights)


def quantized(*, whole_output: bool) -> onnx.ModelProto:
    """A layer in 8 bits, as a quantizing exporter writes it."""
    weight = he(16, 3, 3, 3)
    scale = (np.abs(weight).max(axis=(1, 2, 3)) / 127).astype(np.float32)
    levels = np.round(weight / scale[:, None, None, None]).astype(np.int8)
    nodes = [
        node("QuantizeLinear", ["x", "sx", "zx"], ["xq"]),
        node("DequantizeLinear", ["xq", "sx", "zx"], ["xd"]),
        node("DequantizeLinear", ["levels", "sw", "zw"], ["wd"], axis=0),
        node("Conv", ["xd", "wd", "b"], ["c"], pads=ONE),
        node("Relu", ["c"], ["r"]),
        node("QuantizeLinear", ["r", "sy", "zy"], ["y" if whole_output else "q"]),
    ]
    kind = U8 if whole_output else F
    if not whole_output:
        nodes.append(node("DequantizeLinear", ["q", "sy", "zy"], ["y"]))
    weights = {
        "sx": np.float32(1 / 128), "zx": np.uint8(3), "levels": levels, "sw": scale,
        "zw": np.zeros(16, np.int8), "b": normal(16, scale=0.2), "sy": np.float32(0.02),
        "zy": np.uint8(0),
    }  # fmt: skip
    return build(
        nodes, [("x", F, ["batch", 3, 12, 12])], [("y", kind, ["batch", 16, 12, 12])], weights
    )


def normalized() -> onnx.ModelProto:
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], pads=ONE),
        node("InstanceNormalization", ["c", "scale", "shift"], ["n"], epsilon=1e-3),
        node("HardSwish", ["n"], ["s"]),
        node("ReduceMean", ["s"], ["m"], axes=[2, 3], keepdims=1),
        node("Sigmoid", ["m"], ["gate"]),
        node("Mul", ["s", "gate"], ["y"]),
    ]
    weights = {
        "w": he(8, 3, 3, 3), "b": normal(8, scale=0.2), "scale": 1 + normal(8, seed=2, scale=0.2),
        "shift": normal(8, seed=3, scale=0.2),
    }  # fmt: skip
    return build(nodes, [("x", F, ["batch", 3, 14, 14])], [("y", F, ["batch", 8, 14, 14])], weights)


def from_bytes() -> onnx.ModelProto:
    """Pictures as cameras give them: bytes, channels last, prepared inside."""
    nodes = [
        node("Cast", ["x"], ["f"], to=F),
        node("Sub", ["f", "mean"], ["centred"]),
        node("Mul", ["centred", "scale"], ["scaled"]),
        node("Transpose", ["scaled"], ["t"], perm=[0, 3, 1, 2]),
        node("Conv", ["t", "w", "b"], ["c"], pads=ONE, strides=[2, 2]),
        node("Relu", ["c"], ["r"]),
        node("GlobalAveragePool", ["r"], ["pool"]),
        node("Flatten", ["pool"], ["flat"]),
        node("Gemm", ["flat", "w1", "b1"], ["logits"]),
        node("Softmax", ["logits"], ["y"], axis=-1),
    ]
    weights = {
        "mean": np.array([123.7, 116.3, 103.5], np.float32), "scale": np.float32(1 / 58),
        "w": he(24, 3, 3, 3), "b": normal(24, scale=0.1), "w1": 6 * glorot(24, 8),
        "b1": normal(8, seed=2, scale=0.2),
    }  # fmt: skip
    return build(nodes, [("x", U8, ["batch", 24, 24, 3])], [("y", F, ["batch", 8])], weights)


def camera(random: np.random.Generator, rows: int) -> Feed:
    shown = scene(random, rows, 24).transpose(0, 2, 3, 1)
    return {"x": np.round(255 * shown).astype(np.uint8)}


CASES = (
    Case("residual net", residual_net, scenes(32), samples=96, is_quick=True),
    Case("TensorFlow's SAME padding", tensorflow_mobilenet, scenes(64)),
    Case("odd convolutions", odd_convolutions, nine_channels),
    Case("transposed convolution, open sizes", enlarged, scenes(8, 16, 22)),
    Case("segmentation, open sizes", segmentation, scenes(9, 16, 21)),
    Case("pools", pools, wide_pictures),
    Case("resizes", resizes, ten_by_eleven),
    Case("super resolution, open sizes", super_resolution, scenes(7, 12, 18, channels=1)),
    Case("detector, one tensor", yolo, scenes(64), samples=64, is_quick=True),
    Case("detector, boxes and scores", boxes_and_scores, scenes(64), samples=64),
    Case("quantized layer", lambda: quantized(whole_output=False), scenes(12), samples=48),
    Case("quantized output", lambda: quantized(whole_output=True), scenes(12)),
    Case("instance norm and gates", normalized, scenes(14)),
    Case("bytes of a camera", from_bytes, camera, samples=64),
)  # fmt: skip
