"""Readers of what works on pictures: convolutions, batch normalisation, pooling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from adlik_kernels.errors import KernelError
from adlik_kernels.plans.graph import Array, Node, Operator, UnsupportedGraph, Value, as_float
from adlik_kernels.plans.reader import Reader
from adlik_kernels.plans.readers import levels, normalization, sizes
from adlik_kernels.templates.phases import Transposed2d

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
    """Conv: of any window and stride, grouped or not, fp32 or int8."""
    w, w_scale = levels.weights(reader, node.inputs[1], axis=0)
    groups = node.attributes.get("group", 1)
    source = levels.operand_apart(reader, node.inputs[0])
    if source is None or w_scale is None or not _is_depthwise(reader, source, w, groups):
        source = levels.operand(reader, node.inputs[0], quantized=w_scale is not None)
    if w_scale is not None and reader.values[source].levels is None:
        w, w_scale = levels.as_floats(w, w_scale, axis=0), None
    height, width, channels = picture(reader, source)
    fits = w.ndim == 4 and groups > 0 and w.shape[1] * groups == channels
    if not fits or w.shape[0] % groups:
        raise UnsupportedGraph("A plan knows convolutions of pictures with fitting weights only.")
    frame = frame_of(node, (w.shape[2], w.shape[3]), (height, width))
    is_depthwise = _is_depthwise(reader, source, w, groups) and frame.dilation == (1, 1)
    if w_scale is not None and w.shape[1] % levels.WORD and _fill_words(reader, source, groups):
        w = np.pad(w, ((0, 0), (0, -w.shape[1] % levels.WORD), (0, 0), (0, 0)))
    if w_scale is not None and w.shape[1] % levels.WORD and not is_depthwise:
        # Words of four levels along k: other convolutions compute with the numbers.
        source, w, w_scale = reader.real(node.inputs[0]), levels.as_floats(w, w_scale, axis=0), None
    operator = Operator(
        kind="depthwise" if is_depthwise else "conv",
        inputs=(source,),
        output=node.outputs[0],
        w=w,
        bias=levels.bias(reader, node.input(2), w.shape[0]),
        w_scale=w_scale,
        window=frame.window,
        stride=frame.stride,
        padding=frame.padding,
        dilation=frame.dilation,
        groups=groups,
    )
    reader.emit(operator, Value((*frame.slid((height, width)), w.shape[0])))


def _is_depthwise(reader: Reader, source: str, w: Array, groups: int) -> bool:
    """Whether each channel of a picture has one filter of its own."""
    return w.ndim == 4 and groups == reader.values[source].columns == w.shape[0] > 1


def conv_transposed(reader: Reader, node: Node) -> None:
    """ConvTranspose in floats, of any window and up to four steps."""
    w, w_scale = levels.weights(reader, node.inputs[1], axis=1)
    w = w if w_scale is None else levels.as_floats(w, w_scale, axis=1)
    source = reader.real(node.inputs[0])
    height, width, channels = picture(reader, source)
    if w.ndim != 4 or w.shape[0] != channels or node.attributes.get("group", 1) != 1:
        raise UnsupportedGraph("A plan knows transposed convolutions without groups only.")
    window = (w.shape[2], w.shape[3])
    frame = frame_of(node, pair(node.attributes.get("kernel_shape", window)), (height, width))
    more = tuple(node.attributes.get("output_padding", (0, 0)))
    is_named = "output_shape" in node.attributes or "auto_pad" in node.attributes
    if is_named or frame.padding[:2] != frame.padding[2:] or frame.dilation != (1, 1):
        raise UnsupportedGraph("A plan knows transposed convolutions with plain padding only.")
    try:
        workload = Transposed2d(
            *(height, width, channels, w.shape[1]),
            kernel=window,
            stride=frame.stride,
            padding=frame.padding[:2],
            output_padding=(more[0], more[1]),
        )
    except KernelError as error:
        raise UnsupportedGraph(error.message) from error
    operator = Operator(
        kind="transposed",
        inputs=(source,),
        output=node.outputs[0],
        w=w,
        bias=levels.bias(reader, node.input(2), w.shape[1]),
        window=window,
        stride=frame.stride,
        padding=frame.padding,
        output_padding=(more[0], more[1]),
    )
    reader.emit(operator, Value((*workload.result, w.shape[1])))


def _fill_words(reader: Reader, source: str, groups: int) -> bool:
    """Lets an input's pixels fill whole words of levels, if only this convolution reads them."""
    maker = reader.only_maker(source)
    if maker is None or maker.kind != "quantize" or groups != 1:
        return False
    (given,) = maker.inputs
    value = reader.values[source]
    if given in reader.made or reader.uses[given] != 1 or value.columns >= levels.WORD:
        return False
    reader.values[source] = replace(value, shape=(*value.shape[:2], levels.WORD))
    return True


def batch_norm(reader: Reader, node: Node) -> None:
    """BatchNormalization: folded into the convolution before it.

    One that trains uses the mean of the batch: so says `training_mode` from version 14 on, a second
    output before.
    """
    facts = node.attributes
    if facts.get("training_mode", 0) or any(node.outputs[1:]) or not facts.get("spatial", 1):
        raise UnsupportedGraph("A plan knows batch normalisation with constant statistics only.")
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
    if any(node.outputs[1:]):
        raise UnsupportedGraph("A plan knows no places of largest numbers.")
    kind = "max" if node.kind == "MaxPool" else "mean"
    source = levels.operand(reader, node.inputs[0], quantized=True)
    height, width, channels = picture(reader, source)
    frame = frame_of(node, pair(node.attributes["kernel_shape"]), (height, width))
    size = frame.slid((height, width))
    if node.attributes.get("ceil_mode", 0) and size != frame.slid((height, width), ceiled=True):
        raise UnsupportedGraph("A plan knows plain pooling: no ceil_mode that matters.")
    sides = (*frame.window, *frame.window)
    if any(pad >= side for pad, side in zip(frame.padding, sides, strict=True)):
        raise UnsupportedGraph("A plan knows no window that lies in the padding alone.")
    counts = node.attributes.get("count_include_pad", 0) and any(frame.padding)
    if frame.dilation != (1, 1) or counts:
        raise UnsupportedGraph("A plan knows plain pooling: no dilation, no counted padding.")
    operator = Operator(
        kind,
        (source,),
        node.outputs[0],
        window=frame.window,
        stride=frame.stride,
        padding=frame.padding,
    )
    levels.emit_like(reader, node, operator, Value((*size, channels)))


def global_pool(reader: Reader, node: Node) -> None:
    """GlobalAveragePool: the mean of every channel."""
    source = levels.operand(reader, node.inputs[0], quantized=True)
    height, width, channels = picture(reader, source)
    operator = Operator("mean", (source,), node.outputs[0], window=(height, width))
    levels.emit_like(reader, node, operator, Value((1, 1, channels)))


def reduce_mean(reader: Reader, node: Node) -> None:
    """ReduceMean: over the picture, or as a part of a layer normalisation."""
    axes = node.attributes.get("axes")
    if axes is None and node.input(1):
        axes = reader.needed(node.inputs[1]).tolist()
    if normalization.mean(reader, node, axes or []):
        return
    shape = reader.values[levels.operand(reader, node.inputs[0], quantized=True)].shape
    if len(shape) != 3 or sorted(axis % 4 for axis in axes or []) != [2, 3]:
        raise UnsupportedGraph("A plan knows the mean over height and width only.")
    global_pool(reader, node)
    if not node.attributes.get("keepdims", 1):
        sizes.flatten_made(reader, node.outputs[0])


def pair(values: Sequence[int]) -> tuple[int, int]:
    """Returns two sizes of a window.

    Raises:
        UnsupportedGraph: They are not two, or not above 0.
    """
    if len(values) != 2 or min(values) < 1:
        raise UnsupportedGraph("A plan knows windows of two dimensions only.")
    return values[0], values[1]


@dataclass(frozen=True, slots=True)
class Frame:
    """How a window moves over a picture; see `Operator` for the fields."""

    window: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]

    def slid(self, size: tuple[int, int], *, ceiled: bool = False) -> tuple[int, int]:
        """Returns the rows and columns that the window gives.

        Args:
            size: Rows and columns of the picture.
            ceiled: Whether a part of a window counts.

        Raises:
            UnsupportedGraph: The window is larger than the picture.
        """
        before, after = self.padding[:2], self.padding[2:]
        found = []
        for axis, length in enumerate(size):
            seen = self.dilation[axis] * (self.window[axis] - 1) + 1
            room = length + before[axis] + after[axis] - seen
            steps = -(-room // self.stride[axis]) if ceiled else room // self.stride[axis]
            found.append(steps + 1)
        if min(found) < 1:
            raise UnsupportedGraph("A window is larger than its picture.")
        return found[0], found[1]


def frame_of(node: Node, window: tuple[int, int], size: tuple[int, int]) -> Frame:
    """Returns how the window of a node moves.

    Args:
        node: The node.
        window: Rows and columns of its window.
        size: Rows and columns of the picture.

    Raises:
        UnsupportedGraph: Its attributes are not those of two dimensions.
    """
    stride = pair(node.attributes.get("strides", [1, 1]))
    dilation = pair(node.attributes.get("dilations", [1, 1]))
    kind = node.attributes.get("auto_pad", b"NOTSET")
    if kind == b"VALID":
        pads = [0, 0, 0, 0]
    elif kind in {b"SAME_UPPER", b"SAME_LOWER"}:
        wanted = [
            max((-(-s // d) - 1) * d + (w - 1) * a + 1 - s, 0)
            for s, w, d, a in zip(size, window, stride, dilation, strict=True)
        ]
        small, large = [w // 2 for w in wanted], [-(-w // 2) for w in wanted]
        pads = [*small, *large] if kind == b"SAME_UPPER" else [*large, *small]
    else:
        pads = list(node.attributes.get("pads", [0, 0, 0, 0]))
    if len(pads) != 4 or min(pads) < 0:
        raise UnsupportedGraph(f"A plan knows no padding of {pads}.")
    above, left, below, right = pads
    return Frame(window, stride, (above, left, below, right), dilation)
