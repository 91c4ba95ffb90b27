"""Convolutions of ResNet-50: fp32 and int8."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.kernel_cases.levels import without_amx
from benchmarks.kernel_cases.timing import Case

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
            **blocked_conv(x, w, {"stride": steps, "padding": border}),
            **torch_conv(x, w, steps, border),
            **openvino_conv(x, w, steps, border, threads),
        }
        name = f"{size},{channels},{filters},{window}/{stride}"
        yield Case(name, float(operations), "fp32", calls)


def blocked_conv(x, w, sides, levels=()) -> dict[str, Callable[[], object]]:
    """The same layer between blocked ones; pictures of three channels come channels-last."""
    from adlik_kernels import prepare_conv2d, prepare_conv2d_int8
    from adlik_kernels.references import blocked_reference

    layout = "blocked" if x.shape[3] % 16 == 0 else "last"
    prepare = prepare_conv2d_int8 if levels else prepare_conv2d
    layer = prepare(w, x.shape[1:3], *levels, in_layout=layout, out_layout="blocked", **sides)
    given = blocked_reference(x) if layout == "blocked" else x
    out = layer(given)
    return {"adlik, blocked": lambda: layer(given, out=out)}


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


def conv_int8_cases(threads: int) -> Iterator[Case]:
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
        sides = {"stride": steps, "padding": border}
        prepare = partial(prepare_conv2d_int8, w, (size, size), levels, bias, "relu", **sides)
        layer = prepare()
        out = layer(x)
        calls = {
            "adlik": lambda layer=layer, x=x, out=out: layer(x, out=out),
            **blocked_conv(x, w, sides, (levels, bias, "relu")),
            **without_amx(prepare, x, out),
            **torch_conv_int8(x, w, levels, bias, (steps, border)),
            **openvino_node_int8(x, w, levels, bias, (steps, border), threads),
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


def openvino_node_int8(x, w, levels, bias, sides, threads: int) -> dict[str, Callable[[], object]]:
    """OpenVINO's own account of its node: no reordering, no dispatch, levels in and levels out."""
    try:
        import openvino as ov
        from openvino import opset13 as op
    except ImportError:
        return {}
    import numpy as np

    def on_levels(node, scale: float):
        ends = [np.float32(0), np.float32(255 * scale)] * 2
        return op.fake_quantize(node, *(op.constant(end) for end in ends), 256)

    def weights(values, scale):
        return op.multiply(op.convert(op.constant(values), np.float32), op.constant(scale))

    rows = np.ascontiguousarray(x.transpose(0, 3, 1, 2).astype(np.float32) * levels.x_scale)
    given = op.parameter(list(rows.shape), np.float32)
    (steps, border), columns = sides, (-1, 1, 1, 1)
    scaled = weights(w, levels.w_scale.reshape(columns))
    shape = (list(steps), list(border), list(border), [1, 1])
    layer = op.convolution(on_levels(given, levels.x_scale), scaled, *shape)
    layer.friendly_name = name = "layer"
    shifted = op.relu(op.add(layer, op.constant(bias.reshape(1, -1, 1, 1))))
    # A second layer reads levels, so the first has to write them.
    after = weights(np.ones((16, w.shape[0], 1, 1), np.int8), np.ones((16, 1, 1, 1), np.float32))
    plain = ([1, 1], [0, 0], [0, 0], [1, 1])
    model = ov.Model([op.convolution(on_levels(shifted, levels.out_scale), after, *plain)], [given])
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    request = ov.Core().compile_model(model, "CPU", {**hints, "PERF_COUNT": True})
    request = request.create_infer_request()
    request.set_input_tensor(ov.Tensor(rows, shared_memory=True))

    def own_seconds(_keep=rows) -> float:
        request.infer()
        spent = {node.node_name: node for node in request.get_profiling_info()}[name]
        return spent.real_time.total_seconds()

    return {"openvino, node": own_seconds}
