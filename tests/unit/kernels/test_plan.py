"""Plans of ONNX models against ONNX Runtime."""

import threading

import numpy as np
import onnxruntime
import pytest
from adlik_kernels import InvalidOperand, UnsupportedGraph, load_plan
from adlik_kernels.plans import lowering
from adlik_kernels.plans.arena import Lifetime, arrange
from adlik_kernels.schedules.registry import choose
from adlik_kernels.workload import ACTIVATION_NAMES
from hypothesis import given
from hypothesis import strategies as st

from .levels import LEVELS


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


def test_a_multilayer_perceptron(path, builder):
    model = builder((20,))
    for depth, columns in ((20, 33), (33, 40)):
        model.node(
            "Gemm", model.last, model.weight(columns, depth), model.weight(columns), transB=1
        )
        model.node("Relu")
    model.node("MatMul", model.last, model.weight(40, 7))
    model.node("Add", model.last, model.weight(7))
    model.node("Softmax", axis=-1)
    plan = model.check(path, batches=(1, 3, 8, 50))
    assert [operator.kind for operator in plan.graph.operators] == ["dense"] * 3 + ["softmax"]
    assert plan.graph.operators[2].bias is not None


@pytest.mark.parametrize(("batch", "rows"), [(8, {8}), ("n", {1, 4, 64})])
def test_products_get_the_schedule_for_their_rows(path, builder, monkeypatch, batch, rows):
    asked = []
    monkeypatch.setattr(lowering, "choose", lambda w, *more: asked.append(w) or choose(w, *more))
    model = builder((20,))
    model.node("MatMul", "x", model.weight(20, 33))
    plan = load_plan(model.save(path, batch))
    assert {(work.rows, work.columns, work.depth) for work in asked} == {
        (count, 33, 20) for count in rows
    }
    x = model.rng.standard_normal((8, 20)).astype(np.float32)
    (want,) = onnxruntime.InferenceSession(path).run(None, {"x": x})
    np.testing.assert_allclose(plan(x), want, atol=1e-5)


def test_a_residual_network(path, residual_network):
    plan = residual_network.check(path)
    kinds = [operator.kind for operator in plan.graph.operators]
    assert kinds == ["conv", "max", "conv", "conv", "conv", "conv", "conv", "sum", "mean", "dense"]
    fused = [operator for operator in plan.graph.operators if len(operator.inputs) == 2]
    assert [operator.kind for operator in fused] == ["conv", "sum"]


def test_pictures_come_out_channels_first(path, builder):
    model = builder((5, 9, 8))
    model.conv(5, 6, 3)
    model.node("AveragePool", kernel_shape=[2, 3], strides=[1, 2])
    model.node("HardSwish")
    model.check(path)


def test_flattening_turns_the_weights(path, builder):
    model = builder((3, 6, 7))
    model.conv(3, 4, 1)
    model.node("Reshape", model.last, model.constant(np.array([0, -1])))
    model.node("Gemm", model.last, model.weight(4 * 6 * 7, 10))
    model.node("Tanh")
    model.check(path)


@pytest.mark.parametrize("name", ["Relu", "Sigmoid", "Tanh", "HardSwish", "Gelu"])
def test_activations_stand_alone(path, builder, name):
    model = builder((37,))
    model.node(name)
    model.check(path)


def test_clip_is_relu6(path, builder):
    model = builder((8,))
    model.node("Gemm", model.last, model.weight(8, 30))
    low, high = (model.constant(np.float32(value)) for value in (0, 6))
    model.node("Clip", model.last, low, high)
    plan = model.check(path)
    assert plan.graph.operators[0].activation == "relu6"
    assert set(ACTIVATION_NAMES) >= {operator.activation for operator in plan.graph.operators}


@pytest.mark.parametrize(
    ("kind", "attributes", "message"),
    [
        ("LRN", {"size": 3}, "LRN"),
        ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}, "ceil_mode"),
        ("Softmax", {"axis": 1}, "columns"),
        ("Mul", {}, "sigmoid"),
        ("Flatten", {"axis": 2}, "flattens"),
        ("ReduceMean", {}, "height and width"),
    ],
)
def test_what_a_plan_does_not_know_is_named(path, builder, kind, attributes, message):
    model = builder((4, 6, 6))
    inputs = (model.last, model.last) if kind == "Mul" else ()
    model.node(kind, *inputs, **attributes)
    with pytest.raises(UnsupportedGraph, match=message):
        load_plan(model.save(path))


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize(("window", "stride"), [(3, 1), (3, 2), (5, 1)])
def test_a_depthwise_block(path, builder, level, window, stride):
    model = builder((21, 13, 15))
    model.conv(21, 37, 1)
    weights = model.weight(37, 1, window, window), model.weight(37)
    sides = {"strides": [stride] * 2, "pads": [window // 2] * 4}
    model.node("Conv", model.last, *weights, group=37, **sides)
    model.node("Clip", model.last, *(model.constant(np.float32(value)) for value in (0, 6)))
    model.conv(37, 5, 1)
    plan = model.check(path)
    assert [operator.kind for operator in plan.graph.operators] == ["conv", "depthwise", "conv"]
    assert plan.graph.operators[1].activation == "relu6"


def test_grouped_dilated_and_unevenly_padded_convolutions(path, builder):
    model = builder((8, 11, 12))
    sides = {"pads": [0, 1, 2, 0], "strides": [2, 1], "dilations": [1, 2]}
    model.node("Conv", model.last, model.weight(6, 4, 3, 3), model.weight(6), group=2, **sides)
    model.node("Relu")
    model.node("Conv", model.last, model.weight(5, 6, 2, 2), auto_pad="SAME_UPPER")
    model.node("MaxPool", kernel_shape=[3, 2], strides=[2, 2], pads=[0, 1, 1, 0])
    plan = model.check(path)
    assert [operator.groups for operator in plan.graph.operators] == [2, 1, 1]


def test_transposed_convolutions(path, builder):
    model = builder((6, 5, 7))
    sides = {"strides": [2, 3], "pads": [1, 0, 1, 0], "output_padding": [1, 2]}
    model.node("ConvTranspose", model.last, model.weight(6, 9, 4, 3), model.weight(9), **sides)
    model.node("Relu")
    model.conv(9, 4, 3)
    plan = model.check(path)
    assert [operator.kind for operator in plan.graph.operators] == ["transposed", "conv"]


def test_bad_inputs_are_refused(path, builder):
    model = builder((20,))
    model.node("Gemm", model.last, model.weight(20, 4))
    plan = load_plan(model.save(path))
    for x in (np.zeros((1, 19), np.float32), np.zeros((1, 20)), np.zeros((0, 20), np.float32)):
        with pytest.raises(InvalidOperand):
            plan(x)


def test_threads_may_call_one_plan(path, builder):
    model = builder((30,))
    model.node("Gemm", model.last, model.weight(30, 40))
    plan = load_plan(model.save(path))
    inputs = [np.full((2, 30), n, np.float32) for n in range(4)]
    want, same = [plan(x) for x in inputs], []

    def work(n):
        same.extend((plan(inputs[n]) == want[n]).all() for _ in range(100))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(same) == 400
    assert all(same)


lifetimes = st.lists(
    st.tuples(
        st.integers(0, 10),
        st.integers(0, 5),
        st.integers(1, 400),
        st.sampled_from([None, None, (1, 2, 3)]),
    ),
    max_size=15,
)


@given(lifetimes=lifetimes)
def test_values_of_one_time_never_overlap(lifetimes):
    values = [
        Lifetime(f"v{n}", first, first + more, size if border is None else 50, border)
        for n, (first, more, size, border) in enumerate(lifetimes)
    ]
    places, total = arrange(values)
    spans = {v.name: (places[v.name], places[v.name] + v.size) for v in values}
    for one in values:
        assert spans[one.name][1] <= total
        for other in values:
            if one is other:
                continue
            (a, b), (c, d) = spans[one.name], spans[other.name]
            apart = b <= c or d <= a
            if one.meets(other) or (one.border is None) != (other.border is None):
                assert apart
            elif one.border:
                assert apart or a == c
