"""What operators mean in their version, with their attributes, on odd inputs: as ONNX Runtime."""

import numpy as np
import onnx
import onnxruntime
import pytest
from adlik_kernels import BuildFailed, UnsupportedGraph, export_plan, load_model, load_plan
from onnx import TensorProto, helper, numpy_helper

from tests.conformance.judge import Reference, judged

F = TensorProto.FLOAT
node = helper.make_node


def floats(*shape, seed=0, scale=1.0):
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def model_of(nodes, inputs, outputs, weights=(), opset=17):
    """A model; inputs and outputs are names, with a shape or without."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, F, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        [numpy_helper.from_array(np.asarray(w), name) for name, w in dict(weights).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def check(model, feeds, path, *, plans=True):
    """Every feed is answered as the reference answers; some part runs in a plan, or none does."""
    onnx.save(model, path)
    loaded, reference = load_model(path), Reference(model)
    for feed in feeds:
        assert judged(reference, feed, loaded(feed)) == ""
    engines = [part.engine for part in loaded.parts]
    assert ("kernels" in engines) == plans, engines
    return loaded


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


@pytest.mark.parametrize("pads", [[0, 0, 1, 1], [1, 1, 0, 0], [0, 1, 2, 0], [2, 0, 0, 1]])
@pytest.mark.parametrize("stride", [[1, 1], [2, 2], [3, 1]])
@pytest.mark.parametrize("is_quantized", [False, True])
def test_depthwise_windows_pad_each_side_by_itself(path, pads, stride, is_quantized):
    channels, weights = 20, {"w": floats(20, 1, 3, 3)}
    nodes = [node("Conv", ["x", "w"], ["y"], group=channels, strides=stride, pads=pads)]
    if is_quantized:
        weights = {
            "s": np.float32(0.05),
            "z": np.uint8(131),
            "q": np.arange(-90, 90, dtype=np.int8).reshape(20, 1, 3, 3),
            "t": np.float32(0.02),
        }
        nodes[0].input[:] = ["d", "w"]
        nodes = [
            node("QuantizeLinear", ["x", "s", "z"], ["l"]),
            node("DequantizeLinear", ["l", "s", "z"], ["d"]),
            node("DequantizeLinear", ["q", "t"], ["w"]),
            *nodes,
        ]
    model = model_of(nodes, {"x": ["n", channels, 9, 11]}, {"y": F}, weights)
    loaded = check(model, [{"x": floats(n, channels, 9, 11)} for n in (1, 3)], path)
    assert any(o.kind == "depthwise" for graph in loaded.graphs for o in graph.operators)


@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("opset", [7, 11, 13, 17])
@pytest.mark.parametrize("axis", [None, 1, 2])
def test_softmax_is_over_what_its_version_says(path, kind, opset, axis):
    facts = {} if axis is None else {"axis": axis}
    nodes = [node("MatMul", ["x", "w"], ["p"]), node(kind, ["p"], ["y"], **facts)]
    model = model_of(nodes, {"x": ["n", "t", 8]}, {"y": F}, {"w": floats(8, 16)}, opset)
    check(model, [{"x": floats(n, t, 8)} for n, t in ((1, 1), (1, 5), (3, 4))], path)


@pytest.mark.parametrize("shape", [(6,), (1, 6), (1,), (), (1, 1), (6, 1), (6, 6)])
@pytest.mark.parametrize("turned", [0, 1])
def test_what_gemm_adds_is_broadcast_as_onnx_says(path, shape, turned):
    nodes = [node("Gemm", ["x", "w", "c"], ["y"], transB=turned)]
    weights = {"w": floats(6, 6), "c": floats(*shape, seed=2)}
    model = model_of(nodes, {"x": [6, 6]}, {"y": F}, weights)
    is_row = shape not in {(6, 1), (6, 6)}
    check(model, [{"x": floats(6, 6, seed=3)}], path, plans=is_row)


def statistics(channels):
    values = [floats(channels, seed=n) for n in range(3)]
    return dict(zip("gbm", values, strict=True)) | {"v": np.abs(values[0]) + 1}


@pytest.mark.parametrize(
    ("opset", "outputs", "facts"),
    [
        (15, ["y", "m2", "v2"], {"training_mode": 1}),
        (15, ["y"], {"training_mode": 0}),
        (9, ["y"], {}),
        (7, ["y"], {}),
    ],
)
def test_batch_normalization_that_trains_uses_the_batch(path, opset, outputs, facts):
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("BatchNormalization", ["c", *"gbmv"], outputs, **facts),
    ]
    weights = {"w": floats(8, 3, 3, 3), **statistics(8)}
    model = model_of(nodes, {"x": ["n", 3, 6, 7]}, {"y": F}, weights, opset)
    loaded = check(model, [{"x": floats(n, 3, 6, 7, scale=5)} for n in (1, 3)], path)
    trains = bool(facts.get("training_mode"))
    assert any("BatchNormalization" in part.operators for part in loaded.parts) == trains


@pytest.mark.parametrize("trains", [False, True])
def test_a_dropout_that_trains_is_none_of_a_plan(path, trains):
    nodes = [
        node("MatMul", ["x", "w"], ["p"]),
        node("Dropout", ["p", "r", "t"], ["y"], seed=5),
    ]
    weights = {"w": floats(8, 400), "r": np.float32(0.5), "t": np.array(trains)}
    model = model_of(nodes, {"x": ["n", 8]}, {"y": F}, weights)
    onnx.save(model, path)
    loaded = load_model(path)
    assert any("Dropout" in part.operators for part in loaded.parts) == trains
    zeros = (loaded({"x": floats(3, 8)})["y"] == 0).mean()
    assert (0.4 < zeros < 0.6) if trains else zeros == 0


def quantized(ends, outputs, zero, opset=17, **facts):
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["l"]),
        node("DequantizeLinear", ["l", "s", "z"], ["d"]),
        node("DequantizeLinear", ["q", "t"], ["w"], axis=0),
        node("Conv", ["d", "w"], ["c"], pads=[1] * 4),
        node("QuantizeLinear", ["c", "r", *(["o"] if zero is not None else [])], ["e"], **facts),
        *ends,
    ]
    rng = np.random.default_rng(1)
    weights = {
        "s": np.float32(0.043),
        "z": np.uint8(120),
        "r": np.float32(0.0617),
        "t": np.full(16, 0.0113, np.float32),
        # Of 7 bits: with 8, ONNX Runtime saturates on machines without VNNI.
        "q": rng.integers(-63, 64, (16, 8, 3, 3)).astype(np.int8),
        **({} if zero is None else {"o": zero}),
    }
    return model_of(nodes, {"x": ["n", 8, 7, 9]}, outputs, weights, opset)


PICTURES = [{"x": floats(n, 8, 7, 9, seed=n)} for n in (1, 3)]


@pytest.mark.parametrize("zero", [np.uint8(3), np.int8(-5), None])
@pytest.mark.parametrize("is_moved", [False, True])
def test_levels_leave_as_what_they_are_and_are_those_of_onnx_runtime(path, zero, is_moved):
    kind = TensorProto.INT8 if zero is not None and zero.dtype == np.int8 else TensorProto.UINT8
    ends = [node("Transpose", ["e"], ["f"], perm=[0, 2, 3, 1])] if is_moved else []
    model = quantized(ends, {"f" if is_moved else "e": kind}, zero)
    model.graph.node[3].input.append("b")
    model.graph.initializer.append(numpy_helper.from_array(floats(16), "b"))
    onnx.save(model, path)
    loaded = load_model(path)
    assert loaded.parts[0].engine == "kernels"
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for feed in PICTURES:
        (want,) = session.run(None, feed)
        (got,) = loaded(feed).values()
        assert got.dtype == want.dtype
        assert got.shape == want.shape
        off = np.abs(got.astype(int) - want)
        assert off.max() <= 1  # where a sum lies between two levels, to the last bit
        assert off.sum() <= 1 + want.size // 1000


@pytest.mark.parametrize("zero", [np.uint8(3), np.int8(-5)])
@pytest.mark.parametrize(
    "move",
    [
        node("Transpose", ["e"], ["f"], perm=[0, 2, 3, 1]),
        node("Reshape", ["e", "flat"], ["f"]),
        node("Identity", ["e"], ["f"]),
    ],
    ids=["transposed", "reshaped", "renamed"],
)
def test_levels_may_move_before_they_are_numbers_again(path, zero, move):
    model = quantized([move, node("DequantizeLinear", ["f", "r", "o"], ["y"])], {"y": F}, zero)
    model.graph.initializer.append(numpy_helper.from_array(np.array([0, -1]), "flat"))
    check(model, PICTURES, path)


@pytest.mark.parametrize("kind", [TensorProto.INT8, TensorProto.UINT8])
def test_levels_without_a_zero_are_of_the_type_that_is_said(path, kind):
    ends = [node("DequantizeLinear", ["e", "r"], ["y"])]
    model = quantized(ends, {"y": F}, None, opset=21, output_dtype=kind)
    check(model, PICTURES, path)


def test_outputs_may_be_inputs_constants_and_the_same_value_twice(path):
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("Identity", ["x"], ["same"]),
        node("Identity", ["c"], ["again"]),
        node("Identity", ["w"], ["copy"]),
        node("Shape", ["c"], ["size"]),
    ]
    outputs = {"same": F, "c": F, "again": F, "copy": F, "w": F, "size": TensorProto.INT64}
    model = model_of(nodes, {"x": ["n", 3, 8, 6]}, outputs, {"w": floats(4, 3, 3, 3)})
    check(model, [{"x": floats(n, 3, 8, 6)} for n in (1, 3)], path)


def test_branches_and_loops_are_given_what_they_capture(path):
    def body(name, *nodes):
        made = helper.make_tensor_value_info(nodes[-1].output[0], F, None)
        return helper.make_graph(list(nodes), name, [], [made])

    one, two = (body(name, node("Neg", ["c"], [name])) for name in ("one", "two"))
    deep = body("else", node("If", ["condition"], ["deep"], then_branch=one, else_branch=two))
    outer = body("then", node("Mul", ["c", "k"], ["o"]))
    nodes = [
        node("Conv", ["x", "w"], ["c"]),
        node("ReduceSum", ["x"], ["total"], keepdims=0),
        node("Greater", ["total", "zero"], ["condition"]),
        node("If", ["condition"], ["b"], then_branch=outer, else_branch=deep),
        node("Conv", ["b", "v"], ["y"]),
    ]
    weights = {"w": floats(16, 3, 3, 3), "v": floats(8, 16, 1, 1), "zero": np.float32(0)}
    weights["k"] = np.float32(3)
    model = model_of(nodes, {"x": ["n", 3, 8, 6]}, {"y": F}, weights, opset=13)
    check(model, [{"x": floats(2, 3, 8, 6) + shift} for shift in (-2, 2)], path)


def test_sparse_initializers_are_weights(path):
    dense = np.zeros((8, 5), np.float32)
    dense[[1, 3, 7], [0, 4, 2]] = [1.5, -2, 3]
    rows, columns = np.nonzero(dense)
    for indices in (rows * 5 + columns, np.stack([rows, columns], 1)):
        values = numpy_helper.from_array(dense[rows, columns], "w")
        sparse = helper.make_sparse_tensor(
            values, numpy_helper.from_array(indices.astype(np.int64), "places"), [8, 5]
        )
        model = model_of([node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 8]}, {"y": F})
        model.graph.sparse_initializer.append(sparse)
        onnx.save(model, path)
        loaded, x = load_model(path), floats(3, 8)
        np.testing.assert_allclose(loaded({"x": x})["y"], x @ dense, rtol=1e-5, atol=1e-6)
        assert [part.engine for part in loaded.parts] == ["kernels"]


def test_slices_of_sizes_before_version_10(path):
    nodes = [
        node("MatMul", ["x", "w"], ["p"]),
        node("Shape", ["x"], ["shape"]),
        node("Slice", ["shape"], ["front"], starts=[0], ends=[2], axes=[0]),
        node("Concat", ["front", "rest"], ["target"], axis=0),
        node("Reshape", ["p", "target"], ["y"]),
    ]
    weights = {"w": floats(8, 12), "rest": np.array([12])}
    model = model_of(nodes, {"x": ["n", "t", 8]}, {"y": F}, weights, opset=9)
    check(model, [{"x": floats(n, t, 8)} for n, t in ((1, 4), (3, 2))], path)


@pytest.mark.parametrize("size", [-1, None])
def test_sizes_that_are_open_without_a_name(path, size):
    model = model_of(
        [node("MatMul", ["x", "w"], ["y"])], {"x": [size, 8]}, {"y": F}, {"w": floats(8, 4)}
    )
    if size is not None:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = size
    check(model, [{"x": floats(n, 8)} for n in (1, 5)], path)


def test_what_is_cut_at_eight_is_no_open_length(path):
    nodes = [
        node("Slice", ["x", "from", "to", "axis"], ["cut"]),
        node("MatMul", ["cut", "w"], ["y"]),
    ]
    weights = dict(zip(("from", "to", "axis"), ([0], [8], [1]), strict=True)) | {"w": floats(8, 4)}
    model = model_of(nodes, {"x": ["n", "t", 8]}, {"y": F}, weights)
    check(model, [{"x": floats(n, t, 8)} for n, t in ((1, 1), (1, 8), (2, 20))], path, plans=False)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.0])
@pytest.mark.parametrize(
    "end",
    [
        [node("Relu", ["c"], ["y"])],
        [node("Clip", ["c", "low", "high"], ["y"])],
        [node("MaxPool", ["c"], ["y"], kernel_shape=[2, 3], pads=[1, 1, 0, 1])],
        [node("Sigmoid", ["c"], ["s"]), node("Mul", ["c", "s"], ["y"])],
        [node("GlobalAveragePool", ["c"], ["g"]), node("Flatten", ["g"], ["y"])],
    ],
    ids=["relu", "clip", "max", "silu", "mean"],
)
def test_numbers_that_are_not_finite_go_the_reference_s_way(path, value, end):
    nodes = [node("Conv", ["x", "w"], ["c"], pads=[1] * 4), *end]
    weights = {"w": floats(6, 3, 3, 3), "low": np.float32(0), "high": np.float32(6)}
    model = model_of(nodes, {"x": ["n", 3, 7, 9]}, {"c": F, "y": F}, weights)
    x = floats(3, 3, 7, 9)
    x[1, 1, 2, 3] = value
    check(model, [{"x": x}, {"x": floats(2, 3, 7, 9)}], path)


def test_rows_beside_a_nan_are_untouched(path):
    nodes = [node("Gemm", ["x", "w"], ["h"]), node("Relu", ["h"], ["r"])]
    nodes += [node("Gemm", ["r", "v"], ["y"]), node("Softmax", ["y"], ["p"], axis=1)]
    weights = {"w": floats(16, 64), "v": floats(64, 8, seed=1)}
    model = model_of(nodes, {"x": ["n", 16]}, {"y": F, "p": F}, weights)
    x = floats(4, 16)
    x[1, 3], x[2, 0] = np.nan, np.inf
    loaded = check(model, [{"x": x}], path)
    got, alone = loaded({"x": x}), loaded({"x": x[:1]})
    assert np.isnan(got["p"][1]).all()
    np.testing.assert_allclose(got["p"][0], alone["p"][0], rtol=1e-5)


def test_results_too_large_for_a_float_are_the_reference_s(path):
    nodes = [node("Conv", ["x", "w"], ["c"], pads=[1] * 4), node("Sub", ["c", "c"], ["y"])]
    weights = {"w": floats(32, 32, 3, 3, scale=1e18)}
    model = model_of(nodes, {"x": ["n", 32, 14, 14]}, {"c": F, "y": F}, weights)
    onnx.save(model, path)
    x = floats(1, 32, 14, 14, scale=3e19)
    want = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )
    assert not np.isfinite(want[0]).all()
    for name, array in zip("cy", want, strict=True):
        np.testing.assert_array_equal(load_model(path)({"x": x})[name], array)


@pytest.mark.parametrize("shape", [(0, 5, 8), (2, 0, 8), (0, 0, 8)])
def test_no_rows_are_answered_with_no_rows(path, shape):
    nodes = [node("MatMul", ["x", "w"], ["p"]), node("Relu", ["p"], ["y"])]
    model = model_of(nodes, {"x": ["n", "t", 8]}, {"y": F}, {"w": floats(8, 4)})
    loaded = check(model, [{"x": floats(*shape)}, {"x": floats(2, 3, 8)}], path)
    assert loaded({"x": floats(*shape)})["y"].shape == (*shape[:2], 4)


def test_inputs_of_different_first_sizes_are_answered_where_the_model_takes_them(path):
    nodes = [
        node("MatMul", ["x", "w"], ["p"]),
        node("MatMul", ["z", "w"], ["q"]),
        node("Transpose", ["q"], ["r"], perm=[1, 0]),
        node("MatMul", ["p", "r"], ["y"]),
    ]
    model = model_of(nodes, {"x": ["a", 8], "z": ["b", 8]}, {"y": F}, {"w": floats(8, 4)})
    feeds = [{"x": floats(m, 8), "z": floats(n, 8)} for m, n in ((2, 2), (3, 5))]
    check(model, feeds, path)


def test_products_of_odd_depth_with_levels(path):
    """A row of 33 levels ends within a word of four."""
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["l"]),
        node("DequantizeLinear", ["l", "s", "z"], ["d"]),
        node("DequantizeLinear", ["q", "t"], ["w"]),
        node("MatMul", ["d", "w"], ["y"]),
    ]
    rng = np.random.default_rng(2)
    weights = {
        "s": np.float32(0.021),
        "z": np.uint8(81),
        "t": np.float32(0.002),
        "q": rng.integers(-127, 128, (33, 12)).astype(np.int8),
    }
    model = model_of(nodes, {"x": ["n", 33]}, {"y": F}, weights)
    check(model, [{"x": floats(n, 33)} for n in (1, 2, 9)], path)


@pytest.mark.parametrize("kind", ["Sigmoid", "Identity", "Softmax"])
def test_a_mask_is_also_what_the_model_makes_of_it(path, kind):
    nodes = [node("MatMul", ["x", "w"], ["y"]), node(kind, ["m"], ["s"])]
    model = model_of(
        nodes, {"x": ["n", "t", 8], "m": ["n", 1, 1, "t"]}, {"y": F, "s": F}, {"w": floats(8, 4)}
    )
    feeds = [{"x": floats(2, t, 8), "m": floats(2, 1, 1, t)} for t in (3, 20)]
    check(model, feeds, path)


def test_a_picture_of_one_pixel_and_the_row_made_of_it_are_two_values(path):
    nodes = [
        node("GlobalAveragePool", ["x"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "w"], ["y"]),
        node("Shape", ["p"], ["size"]),
        node("Conv", ["p", "v"], ["c"]),
        node("Flatten", ["c"], ["g"]),
        node("Add", ["c", "g"], ["all pairs"]),
    ]
    outputs = {"p": F, "f": F, "y": F, "size": TensorProto.INT64, "c": F, "g": F, "all pairs": F}
    weights = {"w": floats(6, 4), "v": floats(6, 6, 1, 1)}
    model = model_of(nodes, {"x": ["n", 6, 5, 4]}, outputs, weights)
    check(model, [{"x": floats(n, 6, 5, 4)} for n in (1, 3)], path)


def test_constants_with_more_axes_than_what_they_meet_make_it_larger(path):
    nodes = [
        node("MatMul", ["x", "w"], ["p"]),
        node("Add", ["p", "b"], ["s"]),
        node("MatMul", ["x", "w"], ["q"]),
        node("Mul", ["q", "k"], ["m"]),
    ]
    weights = {"w": floats(8, 4), "b": floats(1, 1, 1, 4), "k": np.ones((1, 1, 1), np.float32)}
    model = model_of(nodes, {"x": ["n", 8]}, {"s": F, "m": F}, weights)
    loaded = check(model, [{"x": floats(3, 8)}], path)
    assert loaded({"x": floats(3, 8)})["s"].shape == (1, 1, 3, 4)


def test_random_numbers_are_drawn_anew(path):
    nodes = [
        node("MatMul", ["x", "w"], ["p"]),
        node("RandomNormalLike", ["w"], ["r"]),
        node("Bernoulli", ["chance"], ["b"]),
    ]
    weights = {"w": floats(8, 400), "chance": np.full(400, 0.5, np.float32)}
    model = model_of(nodes, {"x": ["n", 8]}, {"p": F, "r": F, "b": F}, weights)
    onnx.save(model, path)
    loaded = load_model(path)
    one, two = loaded({"x": floats(2, 8)}), loaded({"x": floats(2, 8)})
    assert not np.array_equal(one["r"], two["r"])
    assert not np.array_equal(one["b"], two["b"])
    np.testing.assert_array_equal(one["p"], two["p"])


def test_a_function_named_like_an_operator_is_not_that_operator(path):
    domain = "other"
    function = helper.make_function(
        domain, "Relu", ["a"], ["b"], [node("Neg", ["a"], ["b"])], [helper.make_opsetid("", 17)]
    )
    nodes = [node("MatMul", ["x", "w"], ["p"]), node("Relu", ["p"], ["y"], domain=domain)]
    model = model_of(nodes, {"x": ["n", 8]}, {"y": F}, {"w": floats(8, 4)})
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid(domain, 1))
    check(model, [{"x": floats(3, 8)}], path)


def test_what_onnx_runtime_s_optimizer_fails_on_runs_without_it(path, monkeypatch):
    levels = []
    session = onnxruntime.InferenceSession

    def failing(content, options, **others):
        levels.append(options.graph_optimization_level)
        if levels[-1] != onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL:
            raise RuntimeError("fusion failed")
        return session(content, options, **others)

    model = model_of([node("LRN", ["x"], ["y"], size=3)], {"x": ["n", 4, 5, 6]}, {"y": F})
    onnx.save(model, path)
    monkeypatch.setattr(onnxruntime, "InferenceSession", failing)
    loaded = load_model(path)
    assert levels[-2] != levels[-1]
    assert loaded({"x": floats(2, 4, 5, 6)})["y"].shape == (2, 4, 5, 6)


def test_huge_numbers_are_finite_and_warn_of_nothing(path):
    weights = {"w": np.eye(8, dtype=np.float32)}
    model = model_of([node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 8]}, {"y": F}, weights)
    x = floats(2, 8, scale=1e25)
    onnx.save(model, path)
    np.testing.assert_array_equal(load_model(path)({"x": x})["y"], x)


@pytest.mark.parametrize(
    ("nodes", "opset", "words"),
    [
        ([node("Relu", ["x"], ["y"])], 6, "version 6"),
        ([node("LRN", ["x"], ["y"], size=3)], 17, "LRN"),
    ],
)
def test_a_plan_of_a_whole_model_is_refused_with_the_reason(path, nodes, opset, words):
    onnx.save(model_of(nodes, {"x": ["n", 3, 5, 6]}, {"y": F}, opset=opset), path)
    with pytest.raises(UnsupportedGraph, match=words):
        load_plan(path)


def test_a_plan_may_give_its_input_back_but_not_as_a_library(path, tmp_path):
    onnx.save(model_of([node("Identity", ["x"], ["y"])], {"x": [2, 3, 5, 6]}, {"y": F}), path)
    plan, x = load_plan(path), floats(2, 3, 5, 6)
    np.testing.assert_array_equal(plan(x), x)
    with pytest.raises(BuildFailed, match="compute one output"):
        export_plan(plan, tmp_path, "same")
