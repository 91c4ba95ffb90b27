"""Transposed convolutions as decoders and generators have them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.kernel_cases.timing import Case

LAYERS = (
    *((4, 512, 256, 4, 2, 1), (8, 256, 128, 4, 2, 1), (16, 128, 64, 4, 2, 1), (32, 64, 3, 4, 2, 1)),
    *((28, 128, 64, 2, 2, 0), (56, 64, 32, 2, 2, 0), (32, 64, 64, 3, 2, 1), (28, 32, 32, 3, 1, 1)),
)
"""Height and width, channels, filters, window, stride, padding."""


def transposed_cases(threads: int) -> Iterator[Case]:
    import numpy as np
    from adlik_kernels import prepare_conv2d_transposed

    rng = np.random.default_rng(0)
    for size, channels, filters, window, stride, cut in LAYERS:
        x = rng.standard_normal((1, size, size, channels), np.float32)
        w = rng.standard_normal((channels, filters, window, window), np.float32)
        sides = {"stride": (stride, stride), "padding": (cut, cut)}
        layer = prepare_conv2d_transposed(w, (size, size), **sides)
        out = layer(x)
        calls = {
            "adlik": lambda layer=layer, x=x, out=out: layer(x, out=out),
            **torch_transposed(x, w, stride, cut),
            **openvino_transposed(x, w, (stride, cut), threads),
        }
        name = f"{size},{channels},{filters},{window}/{stride}"
        yield Case(name, float(layer.workload.operations), "fp32", calls)


def torch_transposed(x, w, stride, cut) -> dict[str, Callable[[], object]]:
    try:
        import torch
    except ImportError:
        return {}
    given = torch.from_numpy(x).permute(0, 3, 1, 2)
    layer = torch.nn.ConvTranspose2d(*w.shape[:2], w.shape[2:], stride, cut, bias=False)
    layer.weight = torch.nn.Parameter(torch.from_numpy(w), requires_grad=False)
    layer = layer.to(memory_format=torch.channels_last).eval()
    return {"torch": lambda: layer(given)}


def openvino_transposed(x, w, sides, threads: int) -> dict[str, Callable[[], object]]:
    """One node alone: it is charged with the reordering of its input and output."""
    try:
        import openvino as ov
        from openvino import opset13 as op
    except ImportError:
        return {}
    import numpy as np

    rows, (stride, cut) = np.ascontiguousarray(x.transpose(0, 3, 1, 2)), sides
    given = op.parameter(list(rows.shape), np.float32)
    steps = {"pads_begin": [cut] * 2, "pads_end": [cut] * 2, "dilations": [1, 1]}
    node = op.convolution_backprop_data(given, op.constant(w), [stride] * 2, **steps)
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    model = ov.Model([node], [given])
    request = ov.Core().compile_model(model, "CPU", hints).create_infer_request()
    request.set_input_tensor(ov.Tensor(rows, shared_memory=True))
    # The request does not own its input: the call keeps it alive.
    return {"openvino, with reorder": lambda _keep=rows: request.infer()}
