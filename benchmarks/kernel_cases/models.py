"""Whole models through plans, ONNX Runtime and OpenVINO."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.kernel_cases.networks import encoder, mobilenet_v2, perceptron, resnet50
from benchmarks.kernel_cases.timing import Case, check_same


def model_cases(threads: int) -> Iterator[Case]:
    """MLP, MobileNetV2, ResNet-50 and MiniLM's layers in fp32."""
    import numpy as np

    rng = np.random.default_rng(0)
    networks = [("mlp", perceptron, batch) for batch in (1, 8, 32)] + [
        ("mobilenetv2", mobilenet_v2, 1),
        ("resnet50", resnet50, 1),
        ("resnet50 pruned", lambda: resnet50(0.5), 1),
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        for name, make, batch in networks:
            net = make()
            net.save(path, batch)
            x = rng.standard_normal((batch, *net.shape)).astype(np.float32)
            yield from case(f"{name} batch {batch}", path, x, threads)
        try:
            encoder(path)
        except ImportError:
            return
        for tokens in (16, 128):
            x = rng.standard_normal((1, tokens, 384)).astype(np.float32)
            yield from case(f"minilm, {tokens} tokens", path, x, threads)


def model_int8_cases(threads: int) -> Iterator[Case]:
    """The same CNNs, quantized by Adlik's int8 recipe (NNCF)."""
    import numpy as np

    try:
        from adlik_optimizer.command import optimize
    except ImportError:
        return
    rng = np.random.default_rng(0)
    networks = [
        ("mobilenetv2", mobilenet_v2),
        ("resnet50", resnet50),
        ("resnet50 pruned", lambda: resnet50(0.5)),
    ]
    with tempfile.TemporaryDirectory() as folder:
        path, made, samples = (Path(folder) / name for name in ("m.onnx", "q.onnx", "x.npz"))
        for name, make in networks:
            net = make()
            net.save(path, 1)
            x = rng.standard_normal((8, *net.shape)).astype(np.float32)
            np.savez(samples, x=x)
            optimize(path, made, recipe="int8", samples=samples)
            yield from case(f"{name} int8", made, x[:1], threads, exact=False)


def case(name: str, path: Path, x, threads: int, *, exact: bool = True) -> Iterator[Case]:
    from adlik_kernels import load_model, measure_model

    measure_model(path, threads)
    model = load_model(path, threads=threads)
    (output,) = model.outputs
    peer = onnxruntime_model(path, x, threads)
    if exact:
        check_same(model({"x": x})[output], peer)
    calls = {"adlik": lambda: model({"x": x}), **peer, **openvino_model(path, x, threads)}
    yield Case(name, 0, "", calls)


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
