"""Readers of what works on pictures: convolutions, batch normalisation, pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from adlik_kernels.plans.graph import Node, Operator, UnsupportedGraph, Value, as_float
from adlik_kernels.plans.reader import Reader
from adlik_kernels.plans.readers import levels, normalization

CONVOLUTIONS = ("conv", "depthwise")


def picture(reader: Reader, name: str) -> tuple[int, int, int]:
    """Returns the height, width and channels of a picture.

    Raises:
        UnsupportedGraph: It is none.
    """
    shape = reader.values[name].shape
    if len(shape) != 3 or not all(isinstance(size, int) for size in shape):
        raise UnsupportedGraph(f"{name} is no picture.")
    height, width, channels = (int(size) for size in shape)
    return height, width, channels


def conv(reader: Reader, node: Node) -> None:
    """Conv: of any window and stride, plain or depthwise, fp32 or int8."""
    w, w_scale = levels.weights(reader, node.inputs[1], axis=0)
    source = levels.operand(reader, node.inputs[0], quantized=w_scale is not None)
    if w_scale is not None and reader.values[source].levels is None:
        w, w_scale = levels.as_floats(w, w_scale, axis=0), None
    height, width, channels = picture(reader, source)
    groups = node.attributes.get("group", 1)
    if w.ndim != 4 or groups < 1 or w.shape[1] * groups != channels:
        raise UnsupportedGraph("A plan knows convolutions of pictures with fitting weights only.")
    is_depthwise = groups == channels == w.shape[0] > 1
    if (groups != 1 and not is_depthwise) or set(node.attributes.get("dilations", [1])) != {1}:
        raise UnsupportedGraph("A plan knows no grouped or dilated convolutions.")
    window = (w.shape[2], w.shape[3])
    stride = pair(node.attributes.get("strides", [1, 1]))
    padding = padding_of(node, window, stride, (height, width))
    bias = levels.bias(reader, node.input(2), w.shape[0])
    operator = Operator(
        kind="depthwise" if is_depthwise else "conv",
        inputs=(source,),
        output=node.outputs[0],
        w=w,
        bias=bias,
        w_scale=w_scale,
        window=window,
        stride=stride,
        padding=padding,
    )
    reader.emit(operator, Value((*slid((height, width), window, stride, padding), w.shape[0])))


def batch_norm(reader: Reader, node: Node) -> None:
    """BatchNormalization: folded into the convolution before it."""
    before = reader.only_maker(reader.real(node.inputs[0]))
    fits = before is not None and before.kind in CONVOLUTIONS and before.w_scale is None
    if (
        before is None
        or before.w is None
        or not fits
        or before.activation
        or len(before.inputs) > 1
    ):
        raise UnsupportedGraph("A plan knows batch normalisation behind a convolution only.")
    parts = [reader.needed(name).astype(np.float64) for name in node.inputs[1:5]]
    if any(part.shape != (before.w.shape[0],) for part in parts):
        raise UnsupportedGraph("A batch normalisation needs numbers for each channel.")
    scale, shift, mean, variance = parts
    factor = scale / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
    bias = 0.0 if before.bias is None else before.bias
    folded = replace(
        before,
        w=as_float(before.w * factor[:, None, None, None]),
        bias=as_float((bias - mean) * factor + shift),
    )
    reader.remake(before, folded, node.outputs[0])


def pool(reader: Reader, node: Node) -> None:
    """MaxPool and AveragePool."""
    kind = "max" if node.kind == "MaxPool" else "mean"
    source = levels.operand(reader, node.inputs[0], quantized=kind == "max")
    height, width, channels = picture(reader, source)
    window = pair(node.attributes["kernel_shape"])
    stride = pair(node.attributes.get("strides", [1, 1]))
    padding = padding_of(node, window, stride, (height, width))
    counts = node.attributes.get("count_include_pad", 0) and any(padding)
    dilated = set(node.attributes.get("dilations", [1])) != {1}
    size = slid((height, width), window, stride, padding)
    if node.attributes.get("ceil_mode", 0) and size != ceiled(
        (height, width), window, stride, padding
    ):
        raise UnsupportedGraph("A plan knows plain pooling: no ceil_mode that matters.")
    if dilated or counts:
        raise UnsupportedGraph("A plan knows plain pooling: no dilation, no counted padding.")
    operator = Operator(
        kind, (source,), node.outputs[0], window=window, stride=stride, padding=padding
    )
    levels.emit_like(reader, node, operator, Value((*size, channels)))


def global_pool(reader: Reader, node: Node) -> None:
    """GlobalAveragePool: the mean of every channel."""
    source = levels.operand(reader, node.inputs[0], quantized=False)
    height, width, channels = picture(reader, source)
    operator = Operator("mean", (source,), node.outputs[0], window=(height, width))
    reader.emit(operator, Value((1, 1, channels)))


def reduce_mean(reader: Reader, node: Node) -> None:
    """ReduceMean: over the picture, or as a part of a layer normalisation."""
    axes = node.attributes.get("axes")
    if axes is None and node.input(1):
        axes = reader.needed(node.inputs[1]).tolist()
    if normalization.mean(reader, node, axes or []):
        return
    shape = reader.values[reader.real(node.inputs[0])].shape
    if len(shape) != 3 or sorted(axis % 4 for axis in axes or []) != [2, 3]:
        raise UnsupportedGraph("A plan knows the mean over height and width only.")
    global_pool(reader, node)
    if not node.attributes.get("keepdims", 1):
        reader.values[node.outputs[0]] = Value(reader.values[node.outputs[0]].shape[2:])


def pair(values: Sequence[int]) -> tuple[int, int]:
    """Returns two sizes of a window.

    Raises:
        UnsupportedGraph: They are not two, or not above 0.
    """
    if len(values) != 2 or min(values) < 1:
        raise UnsupportedGraph("A plan knows windows of two dimensions only.")
    return values[0], values[1]


def slid(
    size: tuple[int, int],
    window: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> tuple[int, int]:
    """Returns the rows and columns that a window gives."""
    rows, columns = (
        (s + 2 * p - w) // d + 1 for s, p, w, d in zip(size, padding, window, stride, strict=True)
    )
    if min(rows, columns) < 1:
        raise UnsupportedGraph("A window is larger than its picture.")
    return rows, columns


def ceiled(
    size: tuple[int, int],
    window: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> tuple[int, int]:
    """Returns the rows and columns that a window gives if parts of windows count."""
    rows, columns = (
        -(-(s + 2 * p - w) // d) + 1
        for s, p, w, d in zip(size, padding, window, stride, strict=True)
    )
    return rows, columns


def padding_of(
    node: Node, window: tuple[int, int], stride: tuple[int, int], size: tuple[int, int]
) -> tuple[int, int]:
    """Returns the rows and columns around a picture.

    Raises:
        UnsupportedGraph: They differ from side to side.
    """
    kind = node.attributes.get("auto_pad", b"NOTSET")
    if kind in {b"SAME_UPPER", b"SAME_LOWER"}:
        wanted = [
            max((-(-s // d) - 1) * d + w - s, 0)
            for s, w, d in zip(size, window, stride, strict=True)
        ]
        pads = [wanted[0] // 2, wanted[1] // 2, -(-wanted[0] // 2), -(-wanted[1] // 2)]
    else:
        pads = list(node.attributes.get("pads", [0, 0, 0, 0]))
    if len(pads) != 4 or min(pads) < 0 or pads[:2] != pads[2:]:
        raise UnsupportedGraph(f"A plan knows padding that is alike on both sides, not {pads}.")
    return pads[0], pads[1]
