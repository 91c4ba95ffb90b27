"""Networks as ONNX models, with random weights."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path


class Network:
    """Writes an ONNX model node by node."""

    def __init__(self, shape):
        import numpy as np

        self.rng = np.random.default_rng(0)
        self.shape, self.nodes, self.weights, self.last = shape, [], [], "x"

    def weight(self, *shape) -> str:
        import numpy as np
        from onnx import numpy_helper

        scale = np.sqrt(2 / max(np.prod(shape[1:]), 1))
        value = (self.rng.standard_normal(shape) * scale).astype(np.float32)
        self.weights.append(numpy_helper.from_array(value, f"w{len(self.weights)}"))
        return self.weights[-1].name

    def node(self, kind: str, *inputs: str, **attributes) -> str:
        from onnx import helper

        self.last, inputs = f"v{len(self.nodes)}", inputs or (self.last,)
        self.nodes.append(helper.make_node(kind, inputs, [self.last], **attributes))
        return self.last

    def conv(self, source: str, sizes: tuple[int, int], window: int, stride: int = 1) -> str:
        weights = self.weight(sizes[1], sizes[0], window, window), self.weight(sizes[1])
        sides = {"strides": [stride] * 2, "pads": [window // 2] * 4}
        return self.node("Conv", source, *weights, **sides)

    def save(self, path: Path, batch: int) -> None:
        import onnx
        from onnx import helper

        info, kind = helper.make_tensor_value_info, onnx.TensorProto.FLOAT
        given, made = info("x", kind, [batch, *self.shape]), info(self.last, kind, None)
        graph = helper.make_graph(self.nodes, "model", [given], [made], self.weights)
        opset = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opset, ir_version=9)
        onnx.save(onnx.shape_inference.infer_shapes(model), path)


def perceptron() -> Network:
    """256-512-512-128-16 with ReLU between."""
    net, sizes = Network((256,)), (256, 512, 512, 128, 16)
    for depth, columns in itertools.pairwise(sizes):
        net.node("Gemm", net.last, net.weight(depth, columns), net.weight(columns))
        if columns != sizes[-1]:
            net.node("Relu")
    return net


def resnet50(width: float = 1.0) -> Network:
    """ResNet-50 v1.5 with its batch normalisation folded and random weights.

    A width of 0.5 leaves a quarter of the products, as pruning does, in channels of whole blocks.
    """
    net, stem = Network((3, 224, 224)), int(64 * width)
    net.conv("x", (3, stem), 7, 2)
    net.node("Relu")
    here, channels = net.node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4), stem
    for stage, blocks in enumerate((3, 4, 6, 3)):
        inner = stem << stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            short = here
            if not block:
                short = net.conv(here, (channels, 4 * inner), 1, stride)
            net.conv(here, (channels, inner), 1)
            net.node("Relu")
            net.conv(net.last, (inner, inner), 3, stride)
            net.node("Relu")
            net.conv(net.last, (inner, 4 * inner), 1)
            net.node("Add", net.last, short)
            here, channels = net.node("Relu"), 4 * inner
    net.node("GlobalAveragePool")
    net.node("Flatten")
    net.node("Gemm", net.last, net.weight(channels, 1000), net.weight(1000))
    return net


def mobilenet_v2() -> Network:
    """MobileNetV2 with its batch normalisation folded and random weights."""
    net = Network((3, 224, 224))
    here, channels = relu6(net, net.conv("x", (3, 32), 3, 2)), 32
    table = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))
    for factor, filters, repeats, first in (*table, (6, 160, 3, 2), (6, 320, 1, 1)):
        for block in range(repeats):
            stride, inner, start = (1 if block else first), channels * factor, here
            if factor > 1:
                here = relu6(net, net.conv(here, (channels, inner), 1))
            weights = net.weight(inner, 1, 3, 3), net.weight(inner)
            sides = {"strides": [stride] * 2, "pads": [1] * 4, "group": inner}
            here = relu6(net, net.node("Conv", here, *weights, **sides))
            here = net.conv(here, (inner, filters), 1)
            if stride == 1 and channels == filters:
                here = net.node("Add", start, here)
            channels = filters
    relu6(net, net.conv(here, (channels, 1280), 1))
    net.node("GlobalAveragePool")
    net.node("Flatten")
    net.node("Gemm", net.last, net.weight(1280, 1000), net.weight(1000))
    return net


def relu6(net: Network, source: str) -> str:
    import numpy as np
    from onnx import numpy_helper

    if not any(weight.name == "six" for weight in net.weights):
        net.weights += [numpy_helper.from_array(np.float32(v), n) for n, v in BOUNDS.items()]
    return net.node("Clip", source, *BOUNDS)


BOUNDS = {"zero": 0.0, "six": 6.0}


def encoder(path: Path, layers: int = 6, columns: int = 384, heads: int = 12) -> None:
    """Writes the layers of MiniLM, "x" [batch, tokens, 384] to "states", as torch exports them."""
    import torch
    from torch import nn

    torch.manual_seed(0)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList(nn.Linear(columns, columns) for _ in "qkvo")
            self.up, self.down = nn.Linear(columns, 4 * columns), nn.Linear(4 * columns, columns)
            self.norms = nn.ModuleList(nn.LayerNorm(columns) for _ in range(2))

        def forward(self, x):
            q, k, v = (
                part(x).view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)
                for part in self.parts[:3]
            )
            chances = (q @ k.transpose(-1, -2) / (columns // heads) ** 0.5).softmax(-1)
            joined = (chances @ v).transpose(1, 2).reshape(x.shape)
            x = self.norms[0](x + self.parts[3](joined))
            return self.norms[1](x + self.down(nn.functional.gelu(self.up(x))))

    model = nn.Sequential(*(Layer() for _ in range(layers))).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (torch.zeros(1, 16, columns),),
            str(path),
            dynamo=False,
            input_names=["x"],
            output_names=["states"],
            dynamic_axes={"x": {0: "batch", 1: "tokens"}, "states": {0: "batch", 1: "tokens"}},
        )
