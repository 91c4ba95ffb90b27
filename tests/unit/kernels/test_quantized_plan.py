"""Quantized models (QDQ) as plans, against ONNX Runtime computing the same nodes in floats."""

import ctypes
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from adlik_kernels import configuration, export_plan, load_model, load_plan
from adlik_kernels.machine.target import host, uncapped
from adlik_kernels.plans import export
from adlik_kernels.plans.graph import BATCH


class Quantized:
    """Writes a QDQ model: every activation and every weight between two nodes."""

    def __init__(self, model, zero_type=np.uint8):
        self.model, self.zero_type = model, zero_type

    def levels(self, source, scale, zero):
        zero = zero if self.zero_type is np.uint8 else zero - 128
        pair = self.model.constant(np.float32(scale)), self.model.constant(self.zero_type(zero))
        quantized = self.model.node("QuantizeLinear", source, *pair)
        return self.model.node("DequantizeLinear", quantized, *pair)

    def weights(self, *shape, axis=0):
        w = self.model.rng.integers(-127, 128, shape).astype(np.int8)
        scale = self.model.rng.uniform(0.001, 0.004, shape[axis]).astype(np.float32)
        names = [self.model.constant(value) for value in (w, scale, np.zeros(len(scale), np.int8))]
        return self.model.node("DequantizeLinear", *names, axis=axis)

    def conv(self, source, channels, filters, window=1, stride=1, **more):
        w = self.weights(filters, channels, window, window)
        sides = {"strides": [stride] * 2, "pads": [window // 2] * 4, **more}
        return self.model.node("Conv", source, w, self.model.weight(filters), **sides)


def want(path, x):
    """What the nodes say one by one, in floats."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def check(path, model, step, batches=(1, 3)):
    """Holds a plan against the nodes: levels may fall to the other side of a half."""
    model.save(path)
    plan = load_plan(path)
    for batch in batches:
        x = model.rng.standard_normal((batch, *model.shape)).astype(np.float32)
        got, expected = plan(x), want(path, x)
        assert got.shape == expected.shape
        assert np.abs(got - expected).max() <= 4 * step
        assert np.abs(got - expected).mean() <= 0.3 * step
        assert expected.std() > 5 * step
    return plan


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


def residual_network_of_levels(builder, zero_type=np.uint8):
    """A window, a pool, a residual, a mean and a product at the end."""
    model = builder((8, 12, 13))
    q = Quantized(model, zero_type)
    x = q.levels("x", 0.03, 120)
    q.conv(x, 8, 16, 3)
    model.node("Relu")
    stem = q.levels(model.last, 0.02, 0)
    pooled = model.node("MaxPool", stem, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    q.conv(pooled, 16, 12)
    model.node("Relu")
    inner = q.levels(model.last, 0.02, 0)
    out = q.conv(inner, 12, 16, 3)
    model.node("Add", out, pooled)
    model.node("Relu")
    joined = q.levels(model.last, 0.02, 3)
    model.node("GlobalAveragePool", joined)
    model.node("Flatten")
    row = q.levels(model.last, 0.01, 5)
    w = q.weights(16, 10, axis=1)
    model.node("MatMul", row, w)
    model.node("Add", model.last, model.weight(10))
    return model


@pytest.mark.parametrize("zero_type", [np.uint8, np.int8])
def test_a_residual_network_of_levels(path, builder, zero_type):
    plan = check(path, residual_network_of_levels(builder, zero_type), 0.02)
    kinds = [operator.kind for operator in plan.graph.operators]
    assert kinds == ["quantize", "conv", "max", "conv", "conv", "mean", "dense"]
    by_kind = {operator.kind: operator for operator in plan.graph.operators}
    assert plan.graph.values[by_kind["mean"].output].levels is not None
    assert len(plan.graph.operators[4].inputs) == 2


def test_tiles_compute_what_vectors_compute(path, builder, request):
    model = residual_network_of_levels(builder)
    x = model.rng.standard_normal((3, *model.shape)).astype(np.float32)
    want = load_plan(model.save(path))(x)
    request.getfixturevalue("emulated_tiles")
    plan = check(path, model, 0.02)
    np.testing.assert_array_equal(plan(x), want)
    codes = [step.kernel.code for step in plan.steps({BATCH: 1})]
    assert sum(b"emulated_tdpbusd" in code for code in codes) == 4  # three windows, one product


@pytest.mark.parametrize("permitted", [True, False])
def test_an_exported_plan_asks_for_tiles_and_refuses_without(
    path, builder, monkeypatch, tmp_path, permitted
):
    """Code for AMX is compiled here, and run where there is AMX and the system permits it."""
    model = residual_network_of_levels(builder)
    x = model.rng.standard_normal((1, *model.shape)).astype(np.float32)
    want = load_plan(model.save(path))(x)
    tiles = {"amx-tile", "amx-int8", "amx-bf16"}
    made = replace(host(), level="amx", features=host().features | tiles)
    monkeypatch.setattr(configuration, "target", lambda: made)
    plan = load_plan(path)
    source = export._texts(plan, "tiles", 1, tmp_path / "weights.bin")[1]
    assert "permit();" in source.partition("void tiles_prepare")[2].partition("}")[0]
    library = ctypes.CDLL(export_plan(plan, tmp_path, "tiles"))
    out, arena = np.zeros((1, 10), np.float32), np.zeros(1 << 20, np.uint8)
    arena = arena[-arena.ctypes.data % 64 :]
    if permitted:
        library.tiles_prepare(ctypes.c_void_p(arena.ctypes.data))
    places = (ctypes.c_void_p(array.ctypes.data) for array in (arena, x, out))
    refused = library.tiles_run(*places)
    assert bool(refused) == (not permitted or uncapped().level != "amx")
    if not refused:
        np.testing.assert_array_equal(out, want)


@pytest.mark.parametrize("shared", [False, True])
def test_two_branches_of_levels_are_added(path, builder, shared):
    """The last convolution adds the other one, unless somebody else reads what it makes."""
    model = builder((16, 7, 9))
    q = Quantized(model)
    x = q.levels("x", 0.03, 128)
    left = q.levels(q.conv(x, 16, 16), 0.02, 100)
    right = q.levels(q.conv(x, 16, 16, 3), 0.03, 130)
    total = model.node("Relu", model.node("Add", left, right))
    if shared:
        for side in (left, right):
            total = model.node("Add", total, q.conv(side, 16, 16))
    q.conv(q.levels(total, 0.025, 9), 16, 8, 3, 2)
    plan = check(path, model, 0.03)
    kinds = [operator.kind for operator in plan.graph.operators]
    rounded = [operator for operator in plan.graph.operators if operator.rounded]
    assert kinds.count("sum") == (1 if shared else 0)
    if not shared:
        assert kinds == ["quantize", "conv", "conv", "conv"]
        assert [(one.activation, len(one.inputs)) for one in rounded] == [("relu", 2)]


def test_depthwise_convolutions_of_levels(path, builder):
    model = builder((3, 9, 8))
    q = Quantized(model)
    q.conv(q.levels("x", 0.03, 128), 3, 8, 3)
    q.conv(q.levels(model.last, 0.03, 128), 1, 8, 3, group=8)
    model.node("HardSwish")
    q.conv(q.levels(model.last, 0.02, 20), 8, 5)
    plan = check(path, model, 0.03)
    kinds = [operator.kind for operator in plan.graph.operators]
    assert kinds == ["quantize", "conv", "depthwise", "conv"]
    assert all(o.w_scale is not None for o in plan.graph.operators if o.w is not None)


@pytest.mark.parametrize(
    ("activation", "zero"), [("Relu6", 0), ("Relu", 0), ("", 120), ("Tanh", 9)]
)
def test_each_channel_in_front_of_a_depthwise_convolution_has_a_scale(
    path, builder, activation, zero
):
    model = builder((8, 9, 11))
    q = Quantized(model)
    q.conv(q.levels("x", 0.03, 121), 8, 20)
    if activation == "Relu6":
        model.node("Clip", model.last, *(model.constant(np.float32(v)) for v in (0, 6)))
    elif activation:
        model.node(activation)
    scales = model.rng.uniform(0.015, 6 / 255, 20).astype(np.float32)
    zeros = (model.rng.integers(0, 9, 20) * bool(zero) + zero).astype(np.uint8)
    pair = model.constant(scales), model.constant(zeros)
    apart = model.node("QuantizeLinear", model.last, *pair, axis=1)
    apart = model.node("DequantizeLinear", apart, *pair, axis=1)
    q.conv(apart, 1, 20, 3, 2, group=20)
    q.conv(q.levels(model.last, 0.02, 117), 20, 6)
    plan = check(path, model, 0.03)
    kinds = [operator.kind for operator in plan.graph.operators]
    fused = ["quantize", "conv", "depthwise", "conv"]
    assert kinds == (fused if activation != "Tanh" else [*fused[:2], "quantize", *fused[2:]])
    assert plan.graph.values[plan.graph.operators[-2].inputs[0]].levels.apart


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("window", [1, 3])
def test_pixels_of_an_input_fill_words(path, builder, channels, window):
    model = builder((channels, 11, 67))
    q = Quantized(model)
    q.conv(q.levels("x", 0.03, 121), channels, 8, window)
    plan = check(path, model, 0.03)
    quantize, conv = plan.graph.operators
    assert plan.graph.values[quantize.output].shape == (11, 67, 4)
    assert conv.w_scale is not None


def test_levels_of_each_row_of_a_sequence(path, builder):
    model = builder((5, 24))
    q = Quantized(model)
    model.node("MatMul", q.levels("x", 0.03, 128), q.weights(24, 32, axis=1))
    model.node("Add", model.last, model.weight(32))
    model.node("Gelu")
    model.node("MatMul", q.levels(model.last, 0.02, 40), q.weights(32, 24, axis=1))
    model.node("Add", model.last, "x")
    plan = check(path, model, 0.03)
    assert [o.kind for o in plan.graph.operators] == ["quantize", "dense", "dense"]


def test_shifted_weights_run_on_onnx_runtime(path, builder):
    model = builder((8, 6, 6))
    q = Quantized(model)
    x = q.levels("x", 0.03, 128)
    w = model.constant(model.rng.integers(-127, 128, (8, 8, 1, 1)).astype(np.int8))
    shifted = [model.constant(np.float32(0.01)), model.constant(np.int8(3))]
    model.node("Conv", x, model.node("DequantizeLinear", w, *shifted))
    q.conv(q.levels(model.last, 0.05, 128), 8, 8)
    model.save(path)
    x = model.rng.standard_normal((1, 8, 6, 6)).astype(np.float32)
    loaded = load_model(path)
    got, expected = loaded({"x": x})[model.last], want(path, x)
    np.testing.assert_allclose(got, expected, atol=0.1)
    assert {part.engine for part in loaded.parts} == {"kernels", "onnxruntime"}
