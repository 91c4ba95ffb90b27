"""How fast the kernels are beside numpy, MKL, oneDNN, OpenVINO and OpenCV where they are installed.

    python benchmarks/kernels.py dense            # fp32, the 18 shapes of ResNet-50 and its like
    python benchmarks/kernels.py int8 bf16 images boxes
    python benchmarks/kernels.py dense --threads 1 --seconds 2 --json out.json

Every case runs all contenders in turns for a fixed time, in a process of its own for each number of
threads. A turn's time is its shortest call; printed is the median of the turns, and in brackets the
shortest of all, which is the one to believe where other work shares the machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

TURN = 0.012
"""Seconds of one turn."""

SHAPES = (
    *((1, 1000, 2048), (8, 1000, 2048), (64, 1024, 1024), (512, 512, 512), (1024, 1024, 1024)),
    *((3136, 64, 64), (3136, 256, 64), (3136, 64, 256), (784, 512, 128), (784, 128, 512)),
    *((196, 1024, 256), (196, 256, 1024), (49, 2048, 512), (49, 512, 2048)),
    *((3136, 64, 576), (784, 128, 1152), (196, 256, 2304), (49, 512, 4608)),
)
"""Rows, columns, depth of ResNet-50's convolutions as products, and of a few plain layers."""

INT8_SHAPES = (
    *((1, 1024, 1024), (8, 1024, 1024), (64, 1024, 1024), (512, 512, 512), (1024, 1024, 1024)),
    *((196, 1024, 256), (196, 256, 1024), (784, 512, 128), (3136, 256, 64), (3136, 64, 576)),
    (49, 512, 4608),
)


@dataclass
class Case:
    """One comparison: what it is called, how many operations, and a call for each contender."""

    name: str
    operations: float
    peak: str
    calls: dict[str, Callable[[], object]]
    best: dict[str, float] = field(default_factory=dict)
    median: dict[str, float] = field(default_factory=dict)


def measure(case: Case, seconds: float) -> None:
    for call in case.calls.values():
        call()
    turns = {name: [] for name in case.calls}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, call in case.calls.items():
            turns[name].append(turn(call))
    case.best = {name: min(found) for name, found in turns.items()}
    case.median = {name: statistics.median(found) for name, found in turns.items()}


def turn(call: Callable[[], object]) -> float:
    shortest, end = math.inf, time.perf_counter() + TURN
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        shortest = min(shortest, time.perf_counter() - start)
    return shortest


def dense_cases(threads: int) -> Iterator[Case]:
    import numpy as np
    from adlik_kernels import prepare_dense

    rng = np.random.default_rng(0)
    for rows, columns, depth in SHAPES:
        x, w = (rng.standard_normal(s, np.float32) for s in ((rows, depth), (depth, columns)))
        out = np.empty((rows, columns), np.float32)
        layer = prepare_dense(w, rows=(rows,))
        calls = {
            "adlik": lambda layer=layer, x=x, out=out: layer(x, out=out),
            "numpy": lambda x=x, w=w, out=out: np.matmul(x, w, out=out),
            **torch_dense(x, w),
            **openvino_dense(x, w, threads),
        }
        name = f"{rows},{columns},{depth}"
        yield Case(name, 2.0 * rows * columns * depth, "fp32", calls)


def torch_dense(x, w) -> dict[str, Callable[[], object]]:
    try:
        import torch
    except ImportError:
        return {}
    tx, tw = torch.from_numpy(x), torch.from_numpy(w)
    out = torch.empty(x.shape[0], w.shape[1])
    calls = {"mkl": lambda: torch.mm(tx, tw, out=out)}
    ops = torch.ops.mkldnn
    if torch.backends.mkldnn.is_available():
        weights = tw.t().contiguous()
        packed = ops._reorder_linear_weight(weights, x.shape[0])  # noqa: SLF001 # torch has no other name
        calls["onednn"] = lambda: ops._linear_pointwise(  # noqa: SLF001 # as above
            tx, packed, None, "none", [], ""
        )
    return calls


def openvino_dense(x, w, threads: int) -> dict[str, Callable[[], object]]:
    try:
        import openvino as ov
        from openvino import opset13 as op
    except ImportError:
        return {}
    import numpy as np

    given = op.parameter(list(x.shape), np.float32)
    model = ov.Model([op.matmul(given, op.constant(w), False, False)], [given])
    hints = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": "1",
    }
    request = ov.Core().compile_model(model, "CPU", hints).create_infer_request()
    request.set_input_tensor(ov.Tensor(x, shared_memory=True))
    return {"openvino": request.infer}


def int8_cases(threads: int) -> Iterator[Case]:
    import numpy as np
    from adlik_kernels import Quantization, prepare_dense_int8

    rng = np.random.default_rng(0)
    for rows, columns, depth in INT8_SHAPES:
        x = rng.integers(0, 256, (rows, depth)).astype(np.uint8)
        w = rng.integers(-127, 128, (depth, columns)).astype(np.int8)
        bias = rng.standard_normal(columns).astype(np.float32)
        scale = rng.uniform(0.001, 0.01, columns).astype(np.float32)
        largest = np.abs((x.astype(np.float64) @ w) * (0.02 * scale)).max()
        quantization = Quantization(0.02, 0, scale, out_scale=float(largest / 200))
        layer = prepare_dense_int8(w, quantization, bias, "relu", rows=(rows,))
        out = np.empty((rows, columns), np.uint8)
        calls = {
            "adlik": lambda layer=layer, x=x, out=out: layer(x, out=out),
            **onednn_int8(x, w, quantization, bias),
            **onnxruntime_int8(x, w, quantization, threads),
        }
        name = f"{rows},{columns},{depth}"
        yield Case(name, 2.0 * rows * columns * depth, "int8", calls)


def onednn_int8(x, w, quantization, bias) -> dict[str, Callable[[], object]]:
    try:
        import torch
    except ImportError:
        return {}
    ops = torch.ops.onednn
    tx, tw, tb, scale = (torch.from_numpy(array) for array in (x, w, bias, quantization.w_scale))
    packed = ops.qlinear_prepack(tw.t().contiguous(), list(x.shape))
    zeros = torch.zeros(w.shape[1], dtype=torch.int64)
    left = (quantization.x_scale, quantization.x_zero, packed, scale, zeros, tb)
    right = (quantization.out_scale, 0, torch.uint8, "relu", [], "")
    return {"onednn": lambda: ops.qlinear_pointwise(tx, *left, *right)}


def onnxruntime_int8(x, w, quantization, threads: int) -> dict[str, Callable[[], object]]:
    try:
        import onnx
        import onnxruntime
    except ImportError:
        return {}
    import numpy as np

    make, constant = onnx.helper.make_node, onnx.numpy_helper.from_array
    values = {
        "xs": np.float32(quantization.x_scale),
        "xz": np.uint8(0),
        "w": w,
        "ws": quantization.w_scale,
        "wz": np.zeros(w.shape[1], np.int8),
        "ys": np.float32(quantization.out_scale),
        "yz": np.uint8(0),
    }
    node = make("QLinearMatMul", ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz"], ["y"])
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "product",
        [info("x", onnx.TensorProto.UINT8, list(x.shape))],
        [info("y", onnx.TensorProto.UINT8, None)],
        [constant(np.asarray(value), name) for name, value in values.items()],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return {"onnxruntime": lambda: session.run(None, {"x": x})}


def bf16_cases(_threads: int) -> Iterator[Case]:
    import numpy as np
    from adlik_kernels import prepare_dense

    rng = np.random.default_rng(0)
    for rows, columns, depth in SHAPES[:5]:
        x, w = (rng.standard_normal(s, np.float32) for s in ((rows, depth), (depth, columns)))
        out = np.empty((rows, columns), np.float32)
        layer = prepare_dense(w, dtype="bf16", rows=(rows,))
        calls = {"adlik": lambda layer=layer, x=x, out=out: layer(x, out=out)}
        try:
            import torch
        except ImportError:
            pass
        else:
            tx, tw = (torch.from_numpy(array).bfloat16() for array in (x, w))
            fx = torch.from_numpy(x)
            calls["torch, bf16 x"] = lambda tx=tx, tw=tw: torch.mm(tx, tw)
            calls["torch, fp32 x"] = lambda fx=fx, tw=tw: torch.mm(fx.bfloat16(), tw).float()
        name = f"{rows},{columns},{depth}"
        yield Case(name, 2.0 * rows * columns * depth, "bf16", calls)


CONVOLUTIONS = (
    *((224, 3, 64, 7, 2), (56, 64, 64, 1, 1), (56, 64, 64, 3, 1), (56, 64, 256, 1, 1)),
    *((56, 256, 64, 1, 1), (56, 128, 128, 3, 2), (28, 512, 128, 1, 1), (28, 128, 128, 3, 1)),
    *((28, 128, 512, 1, 1), (56, 256, 512, 1, 2), (28, 256, 256, 3, 2), (14, 1024, 256, 1, 1)),
    *((14, 256, 256, 3, 1), (14, 256, 1024, 1, 1), (28, 512, 1024, 1, 2), (14, 512, 512, 3, 2)),
    *((7, 2048, 512, 1, 1), (7, 512, 512, 3, 1), (7, 512, 2048, 1, 1)),
)
"""ResNet-50's layers: height and width, channels, filters, window, stride."""


def conv_cases(threads: int) -> Iterator[Case]:
    import numpy as np
    from adlik_kernels import prepare_conv2d

    rng = np.random.default_rng(0)
    for size, channels, filters, window, stride in CONVOLUTIONS:
        pad = window // 2
        x = rng.standard_normal((1, size, size, channels), np.float32)
        w = rng.standard_normal((filters, channels, window, window), np.float32)
        steps, border = (stride, stride), (pad, pad)
        layer = prepare_conv2d(w, (size, size), stride=steps, padding=border)
        out = layer(x)
        operations = layer.workload.operations
        calls = {
            "adlik": lambda layer=layer, x=x, out=out: layer(x, out=out),
            **torch_conv(x, w, steps, border),
            **openvino_conv(x, w, steps, border, threads),
        }
        name = f"{size},{channels},{filters},{window}/{stride}"
        yield Case(name, float(operations), "fp32", calls)


def torch_conv(x, w, stride, padding) -> dict[str, Callable[[], object]]:
    try:
        import torch
    except ImportError:
        return {}
    given = torch.from_numpy(x).permute(0, 3, 1, 2)
    layer = torch.nn.Conv2d(*w.shape[1::-1], w.shape[2:], stride, padding, bias=False)
    layer.weight = torch.nn.Parameter(torch.from_numpy(w), requires_grad=False)
    layer = layer.to(memory_format=torch.channels_last).eval()
    return {"torch": lambda: layer(given)}


def openvino_conv(x, w, stride, padding, threads: int) -> dict[str, Callable[[], object]]:
    """One node alone: it is charged with the reordering of its input and output."""
    try:
        import openvino as ov
        from openvino import opset13 as op
    except ImportError:
        return {}
    import numpy as np

    rows = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    given = op.parameter(list(rows.shape), np.float32)
    node = op.convolution(given, op.constant(w), list(stride), list(padding), list(padding), [1, 1])
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    request = (
        ov.Core().compile_model(ov.Model([node], [given]), "CPU", hints).create_infer_request()
    )
    request.set_input_tensor(ov.Tensor(rows, shared_memory=True))
    # The request does not own its input: the call keeps it alive.
    return {"openvino, with reorder": lambda _keep=rows: request.infer()}


def conv_int8_cases(_threads: int) -> Iterator[Case]:
    import numpy as np
    from adlik_kernels import Quantization, prepare_conv2d_int8

    rng = np.random.default_rng(0)
    for size, channels, filters, window, stride in CONVOLUTIONS[1:]:
        steps, border = (stride, stride), (window // 2, window // 2)
        x = rng.integers(0, 256, (1, size, size, channels)).astype(np.uint8)
        w = rng.integers(-127, 128, (filters, channels, window, window)).astype(np.int8)
        bias = rng.standard_normal(filters).astype(np.float32)
        scale = rng.uniform(0.001, 0.01, filters).astype(np.float32)
        levels = Quantization(0.02, 0, scale, out_scale=20.0)
        layer = prepare_conv2d_int8(
            w, (size, size), levels, bias, "relu", stride=steps, padding=border
        )
        out = layer(x)
        calls = {
            "adlik": lambda layer=layer, x=x, out=out: layer(x, out=out),
            **torch_conv_int8(x, w, levels, bias, (steps, border)),
        }
        name = f"{size},{channels},{filters},{window}/{stride}"
        yield Case(name, float(layer.workload.operations), "int8", calls)


def torch_conv_int8(x, w, quantization, bias, sides) -> dict[str, Callable[[], object]]:
    try:
        import torch
    except ImportError:
        return {}
    ops, (stride, padding) = torch.ops.onednn, (list(side) for side in sides)
    planes = torch.from_numpy(x).permute(0, 3, 1, 2)
    scale, shift = torch.from_numpy(quantization.w_scale), torch.from_numpy(bias)
    zeros = torch.zeros(w.shape[0], dtype=torch.int64)
    shape = (stride, padding, [1, 1], 1)
    packed = ops.qconv_prepack(torch.from_numpy(w), scale, 0.02, 0, *shape, list(planes.shape))
    left = (0.02, 0, packed, scale, zeros, shift, *shape)
    right = (quantization.out_scale, 0, torch.uint8, "relu", [], "")
    return {"onednn": lambda: ops.qconv_pointwise(planes, *left, *right)}


def image_cases(threads: int) -> Iterator[Case]:
    import numpy as np
    from adlik_kernels import ImageInput

    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    rng = np.random.default_rng(0)
    for rows, columns, size in ((480, 640, 224), (1080, 1920, 224), (1080, 1920, 640)):
        image = rng.integers(0, 256, (rows, columns, 3)).astype(np.uint8)
        prepare = ImageInput(size, size, mean, std, swap=True)
        out = np.empty((3, size, size), np.float32)
        calls = {
            "adlik": lambda prepare=prepare, image=image, out=out: prepare(image, out=out),
            **opencv_image(image, size, mean, std, threads),
            **pillow_image(image, size, mean, std),
            **torch_image(image, size, mean, std),
            **openvino_image(image, size, mean, std, threads),
        }
        yield Case(f"{columns}x{rows}->{size}", 0, "", calls)


def opencv_image(image, size, mean, std, threads: int) -> dict[str, Callable[[], object]]:
    try:
        import cv2
    except ImportError:
        return {}
    import numpy as np

    cv2.setNumThreads(threads)
    means, stds = np.float32(mean), np.float32(std)

    def call():
        small = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
        real = cv2.cvtColor(small, cv2.COLOR_BGR2RGB).astype(np.float32)
        return np.ascontiguousarray(((real / 255 - means) / stds).transpose(2, 0, 1))

    return {"opencv": call}


def pillow_image(image, size, mean, std) -> dict[str, Callable[[], object]]:
    try:
        from PIL import Image
    except ImportError:
        return {}
    import numpy as np

    picture = Image.fromarray(np.ascontiguousarray(image[..., ::-1]))
    means, stds = np.float32(mean), np.float32(std)

    def call():
        small = picture.resize((size, size), Image.Resampling.BILINEAR, reducing_gap=1.0)
        real = np.asarray(small).astype(np.float32)
        return np.ascontiguousarray(((real / 255 - means) / stds).transpose(2, 0, 1))

    return {"pillow": call}


def torch_image(image, size, mean, std) -> dict[str, Callable[[], object]]:
    try:
        import torch
    except ImportError:
        return {}
    means, stds = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
    given = torch.from_numpy(image)

    def call():
        planes = given.flip(-1).permute(2, 0, 1)[None].contiguous()
        small = torch.nn.functional.interpolate(planes, size=(size, size), mode="bilinear")
        return (small.float() / 255 - means) / stds

    return {"torch": call}


def openvino_image(image, size, mean, std, threads: int) -> dict[str, Callable[[], object]]:
    try:
        import openvino as ov
        from openvino import opset13 as op
        from openvino.preprocess import ColorFormat, PrePostProcessor, ResizeAlgorithm
    except ImportError:
        return {}
    import numpy as np

    given = op.parameter([1, 3, size, size], np.float32)
    steps = PrePostProcessor(ov.Model([op.relu(given)], [given]))
    steps.input().tensor().set_element_type(ov.Type.u8).set_shape([1, *image.shape]).set_layout(
        ov.Layout("NHWC")
    ).set_color_format(ColorFormat.BGR)
    steps.input().preprocess().convert_element_type(ov.Type.f32).convert_color(
        ColorFormat.RGB
    ).resize(ResizeAlgorithm.RESIZE_LINEAR).mean([255 * m for m in mean]).scale(
        [255 * s for s in std]
    )
    steps.input().model().set_layout(ov.Layout("NCHW"))
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    request = ov.Core().compile_model(steps.build(), "CPU", hints).create_infer_request()
    request.set_input_tensor(ov.Tensor(image[None], shared_memory=True))
    return {"openvino": request.infer}


def box_cases(threads: int) -> Iterator[Case]:
    import numpy as np
    from adlik_kernels import detect

    for objects in (10, 60, 300):
        table = detector_output(objects)
        calls = {
            "adlik": lambda table=table: detect(table),
            "numpy": lambda table=table: numpy_boxes(table, 0.25, 0.45),
            **opencv_boxes(table),
            **onnxruntime_boxes(table, threads),
        }
        assert len(detect(table, limit=10**6)) == len(numpy_boxes(table, 0.25, 0.45)), "they differ"
        assert np.isfinite(table).all()
        yield Case(f"{objects} objects", 0, "", calls)


def detector_output(objects: int, candidates: int = 8400, classes: int = 80):
    """A YOLOv8 head's output with twenty overlapping candidates for each object."""
    import numpy as np

    rng = np.random.default_rng(0)
    table = np.empty((4 + classes, candidates), np.float32)
    table[:2] = rng.uniform(0, 640, (2, candidates))
    table[2:4] = rng.uniform(8, 200, (2, candidates))
    table[4:] = rng.uniform(0, 0.2, (classes, candidates))
    places = rng.choice(candidates, objects * 20, replace=False).reshape(objects, 20)
    for where in places:
        box = np.array([*rng.uniform(50, 590, 2), *rng.uniform(30, 200, 2)])
        table[:4, where] = box[:, None] * (1 + 0.05 * rng.standard_normal((4, 20)))
        table[4 + rng.integers(classes), where] = rng.uniform(0.3, 0.95, 20)
    return table


def decoded(table, confidence: float):
    import numpy as np

    scores, classes = table[4:].max(0), table[4:].argmax(0)
    chosen = scores > confidence
    centre, half = table[:2, chosen].T, table[2:4, chosen].T / 2
    boxes = np.concatenate([centre - half, centre + half], axis=1)
    return boxes, scores[chosen], classes[chosen]


def numpy_boxes(table, confidence: float, overlap: float):
    import numpy as np

    boxes, scores, classes = decoded(table, confidence)
    boxes = boxes + classes[:, None] * np.float32(4096)
    order, kept = np.argsort(-scores, kind="stable"), []
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    while order.size:
        first, rest = order[0], order[1:]
        kept.append(first)
        low = np.maximum(boxes[first, :2], boxes[rest, :2])
        high = np.minimum(boxes[first, 2:], boxes[rest, 2:])
        shared = np.prod(np.clip(high - low, 0, None), axis=1)
        order = rest[shared <= overlap * (area[first] + area[rest] - shared)]
    return kept


def opencv_boxes(table) -> dict[str, Callable[[], object]]:
    try:
        import cv2
    except ImportError:
        return {}

    def call():
        boxes, scores, classes = decoded(table, 0.25)
        boxes[:, 2:] -= boxes[:, :2]
        return cv2.dnn.NMSBoxesBatched(boxes, scores, classes, 0.25, 0.45)

    return {"opencv": call}


def onnxruntime_boxes(table, threads: int) -> dict[str, Callable[[], object]]:
    """The runtime's own suppression, which takes the head's output as it is."""
    try:
        import onnx
        import onnxruntime
    except ImportError:
        return {}
    import numpy as np

    info, kinds = onnx.helper.make_tensor_value_info, onnx.TensorProto
    names = ["boxes", "scores", "limit", "overlap", "confidence"]
    node = onnx.helper.make_node("NonMaxSuppression", names, ["kept"], center_point_box=1)
    constants = {"limit": np.int64([300]), "overlap": [0.45], "confidence": [0.25]}
    graph = onnx.helper.make_graph(
        [node],
        "suppression",
        [
            info("boxes", kinds.FLOAT, [1, table.shape[1], 4]),
            info("scores", kinds.FLOAT, [1, table.shape[0] - 4, table.shape[1]]),
        ],
        [info("kept", kinds.INT64, None)],
        [
            onnx.numpy_helper.from_array(
                np.asarray(value, np.int64 if name == "limit" else np.float32), name
            )
            for name, value in constants.items()
        ],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    boxes, scores = np.ascontiguousarray(table[:4].T)[None], table[None, 4:]
    return {"onnxruntime": lambda: session.run(None, {"boxes": boxes, "scores": scores})}


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
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)


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


def check_same(got, calls: dict[str, Callable[[], object]]) -> None:
    """Stops the benchmark if a plan computes something else than ONNX Runtime."""
    import numpy as np

    for call in calls.values():
        want = call()[0]
        np.testing.assert_allclose(got, want, rtol=1e-2, atol=1e-3 * np.abs(want).max())


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


GROUPS = {
    "models": model_cases,
    "dense": dense_cases,
    "int8": int8_cases,
    "bf16": bf16_cases,
    "conv": conv_cases,
    "conv-int8": conv_int8_cases,
    "images": image_cases,
    "boxes": box_cases,
}


def run_group(group: str, threads: int, seconds: float) -> list[dict[str, object]]:
    from adlik_kernels import configure
    from adlik_kernels.roofline import roofline

    configure(threads=threads)
    try:
        import torch
    except ImportError:
        pass
    else:
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
    limits = roofline(threads)
    rows = []
    for case in GROUPS[group](threads):
        measure(case, seconds)
        peak = limits.operations.get(case.peak, math.nan)
        rows.append({**asdict_plain(case), "peak": peak})
        print(line(case, peak), flush=True)
    peers = [ratio(case, "best") for case in rows if ratio(case, "best")]
    medians = [ratio(case, "median") for case in rows if ratio(case, "median")]
    if peers:
        print(
            f"{group}, {threads} threads: {statistics.geometric_mean(peers):.2f} times the best"
            f" peer (median turns: {statistics.geometric_mean(medians):.2f}),"
            f" from {min(peers):.2f} to {max(peers):.2f}",
            flush=True,
        )
    return rows


def asdict_plain(case: Case) -> dict[str, object]:
    return {
        "name": case.name,
        "operations": case.operations,
        "best": case.best,
        "median": case.median,
    }


def ratio(row: dict[str, object], which: str) -> float:
    times = row[which]
    peers = [seconds for name, seconds in times.items() if name != "adlik"]
    return min(peers) / times["adlik"] if peers else 0.0


def line(case: Case, peak: float) -> str:
    """Speeds in Gop/s where the case has operations, else microseconds."""
    parts = []
    for name in case.calls:
        best, median = case.best[name], case.median[name]
        if case.operations:
            speed = case.operations / 1e9
            parts.append(f"{name} {speed / median:.0f} ({speed / best:.0f})")
        else:
            parts.append(f"{name} {median * 1e6:.0f} ({best * 1e6:.0f}) us")
    share = case.operations / case.best["adlik"] / peak if case.operations else math.nan
    share_text = f" | {share:4.0%} of peak" if share == share else ""
    found = ratio(asdict_plain(case), "best")
    return f"{case.name:>16} | {' | '.join(parts)} | x{found:.2f}{share_text}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("groups", nargs="+", choices=GROUPS)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=1.0, help="for each case")
    parser.add_argument("--json", help="file that gets all figures")
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inner:
        rows = run_group(options.groups[0], options.threads[0], options.seconds)
        Path(options.json).write_text(json.dumps(rows))
        return
    figures = {}
    for group in options.groups:
        for threads in options.threads:
            figures[f"{group}-{threads}"] = in_process(group, threads, options.seconds)
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=1))


def in_process(group: str, threads: int, seconds: float) -> list[dict[str, object]]:
    """Runs one group in a process of its own: libraries read their threads once."""
    environment = dict(os.environ)  # noqa: TID251 # the peers know no other way to be told
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        environment[name] = str(threads)
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, __file__, group, "--inner", "--threads", str(threads)]
        command += ["--seconds", str(seconds), "--json", file.name]
        subprocess.run(command, check=True, env=environment)
        return json.load(file)


if __name__ == "__main__":
    main()
