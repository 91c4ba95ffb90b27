"""Whole models as plans."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.kernel_cases.timing import Case, check_same


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


def resnet50() -> Network:
    """ResNet-50 v1.5 with its batch normalisation folded and random weights."""
    net = Network((3, 224, 224))
    net.conv("x", (3, 64), 7, 2)
    net.node("Relu")
    here, channels = net.node("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4), 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        inner = 64 << stage
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


def model_cases(threads: int) -> Iterator[Case]:
    import numpy as np
    from adlik_kernels import load_plan

    rng = np.random.default_rng(0)
    models = [("mlp", perceptron, batch) for batch in (1, 8, 32)] + [
        ("mobilenetv2", mobilenet_v2, 1),
        ("resnet50", resnet50, 1),
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name, make, batch in models:
            path, net = Path(folder) / "model.onnx", make()
            net.save(path, batch)
            x = rng.standard_normal((batch, *net.shape)).astype(np.float32)
            plan = load_plan(path)
            calls = {
                "adlik": lambda plan=plan, x=x: plan(x),
                **onnxruntime_model(path, x, threads),
                **openvino_model(path, x, threads),
            }
            check_same(plan(x), onnxruntime_model(path, x, threads))
            yield Case(f"{name} batch {batch}", 0, "", calls)


def onnxruntime_model(path: Path, x, threads: int) -> dict[str, Callable[[], object]]:
    try:
        import onnxruntime
    except ImportError:
        return {}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return {"onnxruntime": lambda: session.run(None, {"x": x})}


def openvino_model(path: Path, x, threads: int) -> dict[str, Callable[[], object]]:
    try:
        import openvino as ov
    except ImportError:
        return {}
    core = ov.Core()
    hints = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": "1",
    }
    request = core.compile_model(core.read_model(path), "CPU", hints).create_infer_request()
    request.set_input_tensor(ov.Tensor(x, shared_memory=True))
    return {"openvino": request.infer}
