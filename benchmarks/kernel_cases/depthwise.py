"""Depthwise convolutions of MobileNetV2: fp32 and int8."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.kernel_cases.timing import Case

LAYERS = (
    *((112, 32, 1), (112, 96, 2), (56, 144, 1), (56, 144, 2), (28, 192, 1), (28, 192, 2)),
    *((14, 384, 1), (14, 576, 1), (14, 576, 2), (7, 960, 1)),
)
"""MobileNetV2's: height and width, channels, stride; all windows are 3x3."""


def depthwise_cases(threads: int) -> Iterator[Case]:
    import numpy as np
    from adlik_kernels import prepare_depthwise
    from adlik_kernels.operators.operands import aligned_empty

    rng = np.random.default_rng(0)
    for size, channels, stride in LAYERS:
        x = aligned_empty((1, size, size, channels), np.float32)  # as peers keep their own arrays
        x[...] = rng.standard_normal(x.shape, np.float32)
        w = rng.standard_normal((channels, 1, 3, 3), np.float32)
        layer = prepare_depthwise(w, (size, size), stride=(stride, stride), padding=(1, 1))
        out = layer(x)
        calls = {
            "adlik": lambda layer=layer, x=x, out=out: layer(x, out=out),
            **torch_depthwise(x, w, stride),
            **openvino_depthwise(x, w, stride, threads),
        }
        yield Case(f"{size},{channels}/{stride}", 18.0 * out.size, "fp32", calls)


def torch_depthwise(x, w, stride: int) -> dict[str, Callable[[], object]]:
    try:
        import torch
    except ImportError:
        return {}
    given = torch.from_numpy(x).permute(0, 3, 1, 2)
    channels = len(w)
    layer = torch.nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False)
    layer.weight = torch.nn.Parameter(torch.from_numpy(w), requires_grad=False)
    layer = layer.to(memory_format=torch.channels_last).eval()
    return {"torch": lambda: layer(given)}


def openvino_depthwise(x, w, stride: int, threads: int) -> dict[str, Callable[[], object]]:
    """One node alone, in both layouts: the better of reordering, or of a transposed input."""
    try:
        import openvino as ov
        from openvino import opset13 as op
    except ImportError:
        return {}
    import numpy as np
    from adlik_kernels.operators.operands import aligned_empty

    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}

    def compiled(rows, *, last: bool) -> Callable[[], object]:
        given = op.parameter(list(rows.shape), np.float32)
        node = op.transpose(given, op.constant([0, 3, 1, 2])) if last else given
        steps = ([stride] * 2, [1, 1], [1, 1], [1, 1])
        node = op.group_convolution(node, op.constant(w[:, :, None]), *steps)
        node = op.transpose(node, op.constant([0, 2, 3, 1])) if last else node
        model = ov.Model([node], [given])
        request = ov.Core().compile_model(model, "CPU", hints).create_infer_request()
        request.set_input_tensor(ov.Tensor(rows, shared_memory=True))
        # The request does not own its input: the call keeps it alive.
        return lambda _keep=rows: request.infer()

    planes = aligned_empty((1, x.shape[3], *x.shape[1:3]), np.float32)
    planes[...] = x.transpose(0, 3, 1, 2)
    return {
        "openvino": compiled(planes, last=False),
        "openvino, channels last": compiled(x, last=True),
    }


def depthwise_int8_cases(_threads: int) -> Iterator[Case]:
    """uint8 pictures, requantized; the fp32 way beside it tells what int8 is worth."""
    import numpy as np
    from adlik_kernels import Quantization, prepare_depthwise, prepare_depthwise_int8
    from adlik_kernels.operators.operands import aligned_empty

    rng = np.random.default_rng(0)
    for size, channels, stride in LAYERS:
        x = aligned_empty((1, size, size, channels), np.uint8)
        x[...] = rng.integers(0, 256, x.shape)
        w = rng.integers(-127, 128, (channels, 1, 3, 3)).astype(np.int8)
        bias = rng.standard_normal(channels).astype(np.float32)
        scale = rng.uniform(0.001, 0.01, channels).astype(np.float32)
        levels = Quantization(0.02, 0, scale, out_scale=0.5)
        sides = {"stride": (stride, stride), "padding": (1, 1)}
        layer = prepare_depthwise_int8(w, (size, size), levels, bias, "relu", **sides)
        plain = prepare_depthwise(w.astype(np.float32), (size, size), bias, "relu", **sides)
        real = aligned_empty(x.shape, np.float32)
        real[...] = x
        out, real_out = layer(x), plain(real)
        calls = {
            "adlik": lambda layer=layer, x=x, out=out: layer(x, out=out),
            "ours, fp32": lambda layer=plain, x=real, out=real_out: layer(x, out=out),
            **torch_depthwise_int8(x, w, levels, bias, stride),
        }
        yield Case(f"{size},{channels}/{stride}", 18.0 * out.size, "int8", calls)


def torch_depthwise_int8(x, w, quantization, bias, stride) -> dict[str, Callable[[], object]]:
    try:
        import torch
    except ImportError:
        return {}
    ops, planes = torch.ops.onednn, torch.from_numpy(x).permute(0, 3, 1, 2)
    scale, shift = torch.from_numpy(quantization.w_scale), torch.from_numpy(bias)
    zeros = torch.zeros(len(w), dtype=torch.int64)
    shape = ([stride] * 2, [1, 1], [1, 1], len(w))
    packed = ops.qconv_prepack(torch.from_numpy(w), scale, 0.02, 0, *shape, list(planes.shape))
    left = (0.02, 0, packed, scale, zeros, shift, *shape)
    right = (quantization.out_scale, 0, torch.uint8, "relu", [], "")
    return {"onednn": lambda: ops.qconv_pointwise(planes, *left, *right)}
