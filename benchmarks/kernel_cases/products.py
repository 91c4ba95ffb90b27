"""Products of matrices: fp32, int8 and bf16."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from benchmarks.kernel_cases.levels import without_amx
from benchmarks.kernel_cases.timing import Case, aligned

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


def dense_cases(threads: int) -> Iterator[Case]:
    import numpy as np
    from adlik_kernels import prepare_dense

    rng = np.random.default_rng(0)
    for rows, columns, depth in SHAPES:
        x, w = (rng.standard_normal(s, np.float32) for s in ((rows, depth), (depth, columns)))
        # Everybody gets operands that begin at a cache line.
        x, out = aligned(x), aligned(np.empty((rows, columns), np.float32))
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
        prepare = partial(prepare_dense_int8, w, quantization, bias, "relu", rows=(rows,))
        layer = prepare()
        x, out = aligned(x), aligned(np.empty((rows, columns), np.uint8))
        calls = {
            "adlik": lambda layer=layer, x=x, out=out: layer(x, out=out),
            **without_amx(prepare, x, out),
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
        prepare = partial(prepare_dense, w, dtype="bf16", rows=(rows,))
        layer = prepare()
        calls = {
            "adlik": lambda layer=layer, x=x, out=out: layer(x, out=out),
            **without_amx(prepare, x, out),
        }
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
