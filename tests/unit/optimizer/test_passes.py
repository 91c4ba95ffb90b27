"""Every pass keeps what a model computes, and does what it is there for."""

from __future__ import annotations

import re
import tempfile
import tracemalloc
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from adlik_common.errors import UnsupportedOperator
from adlik_optimizer import pipeline
from adlik_optimizer.passes.fold_constants import PASS as FOLD
from adlik_optimizer.passes.registry import passes
from adlik_optimizer.recipes import CHECK_EFFORT
from adlik_proof.gather import gather
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.unit.optimizer import graphs


def outputs(model, x):
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"x": x})


def operators(model):
    return [node.op_type for node in model.graph.node]


@cache
def evidence_of(text):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(text)
        return gather(path, None, CHECK_EFFORT)


def checked(model, some_passes):
    return pipeline.run_passes(model, some_passes, evidence_of(model.SerializeToString()))


def optimized(model, shape):
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    cleaned, reports = checked(model, passes())
    onnx.checker.check_model(cleaned)
    np.testing.assert_allclose(outputs(cleaned, x)[0], outputs(model, x)[0], atol=1e-4, rtol=1e-3)
    assert not [r for r in reports if r.summary.startswith("undone")]
    return cleaned, {r.name: r for r in reports if r.modified}


def test_a_network_with_exporters_habits_becomes_plain():
    cleaned, done = optimized(graphs.residual_cnn(), (2, 3, 8, 8))
    assert operators(cleaned) == [
        "Conv", "Relu", "Conv", "Add", "GlobalAveragePool", "Flatten", "Gemm",
    ]  # fmt: skip
    assert "unused" not in {w.name for w in cleaned.graph.initializer}
    assert {"fold-batch-norm", "fuse-pad", "cancel-layout", "fuse-gemm"} <= done.keys()
    assert done["fold-batch-norm"].max_abs_error < 1e-4


@settings(max_examples=10, deadline=None)
@given(
    channels=st.sampled_from([4, 8, 12]),
    depthwise=st.booleans(),
    seed=st.integers(0, 1000),
    batch=st.integers(1, 3),
)
def test_random_networks_compute_the_same(channels, depthwise, seed, batch):
    model = graphs.residual_cnn(channels, channels if depthwise else 1, seed)
    cleaned, _ = optimized(model, (batch, 3, 8, 8))
    assert "BatchNormalization" not in operators(cleaned)


@pytest.mark.parametrize("sign", [1, -1])
def test_subgraphs_survive(sign):
    model = graphs.with_if()
    cleaned, _ = optimized(model, (2, 4))
    x = sign * np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(outputs(cleaned, x)[0], outputs(model, x)[0])


def test_batch_norm_behind_a_shared_convolution_stays():
    rng = np.random.default_rng(0)
    statistics, names = graphs.batch_norm(rng, "bn", 4)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", *names], ["b"]),
        helper.make_node("Add", ["b", "c"], ["y"]),
    ]
    model = graphs.model(
        nodes,
        [("x", TensorProto.FLOAT, [1, 3, 5, 5])],
        [("y", TensorProto.FLOAT, [1, 4, 5, 5])],
        [graphs.weight(rng, "w", 4, 3, 1, 1), *statistics],
    )
    cleaned, _ = optimized(model, (1, 3, 5, 5))
    assert "BatchNormalization" in operators(cleaned)


def test_padding_with_another_value_stays():
    weights = [
        numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1]), "pads"),
        numpy_helper.from_array(np.float32(1), "one"),
        graphs.weight(np.random.default_rng(0), "w", 4, 3, 3, 3),
    ]
    nodes = [
        helper.make_node("Pad", ["x", "pads", "one"], ["p"]),
        helper.make_node("Conv", ["p", "w"], ["y"]),
    ]
    model = graphs.model(
        nodes,
        [("x", TensorProto.FLOAT, [1, 3, 5, 5])],
        [("y", TensorProto.FLOAT, [1, 4, 5, 5])],
        weights,
    )
    cleaned, _ = optimized(model, (1, 3, 5, 5))
    assert operators(cleaned) == ["Pad", "Conv"]


class Breaks:
    """A pass that changes what the model computes."""

    name = "breaks"

    def requires(self, model):
        return ""

    def run(self, model):
        node = next(n for n in model.graph if n.op_type == "Relu")
        node.op_type = "Neg"
        return "Relu to Neg"

    def ensures(self, model):
        return ""


def test_a_pass_that_changes_the_result_is_undone_and_said():
    model = graphs.residual_cnn()
    kept, reports = checked(model, [Breaks()])
    assert kept == model
    assert not reports[0].modified
    assert re.match(r"undone: made-up input \d.*: 'y' element .* in place of", reports[0].summary)


class Raises(Breaks):
    """A pass that changes the graph and then meets what its author did not think of."""

    name = "raises"

    def run(self, model):
        super().run(model)
        raise LookupError("no such value\nand a long tale")


class BreaksItsPromise(Breaks):
    """A pass that leaves behind what it was to take away."""

    name = "breaks-its-promise"

    def ensures(self, model):
        return "a Neg is left"


def test_a_pass_that_fails_is_undone_and_said_and_the_next_ones_run():
    model = graphs.residual_cnn()
    cleaned, (raised, promised, *others) = checked(model, [Raises(), BreaksItsPromise(), *passes()])
    assert raised.summary == "undone: it failed with LookupError: no such value"
    assert promised.summary == "undone: a Neg is left"
    assert not raised.modified
    assert not promised.modified
    assert {"fold-batch-norm", "fuse-gemm"} <= {r.name for r in others if r.modified}
    assert "Neg" not in operators(cleaned)


def test_the_limit_on_memory_ends_the_recipe_not_the_pass(monkeypatch):
    def exhausted(self, model):
        raise MemoryError

    monkeypatch.setattr(Raises, "run", exhausted)
    with pytest.raises(MemoryError):
        checked(graphs.residual_cnn(), [Raises()])


SIDE = 1 << 12


@pytest.mark.parametrize(
    ("operator", "start", "sizes"),
    [
        ("Expand", np.ones((), np.float32), [SIDE, SIDE]),
        ("Expand", np.ones((SIDE, 1), np.float32), [1, SIDE]),
        ("Tile", np.ones((1, 1), np.float32), [SIDE, SIDE]),
    ],
)
def test_a_huge_constant_is_not_even_computed(operator, start, sizes):
    nodes = [
        helper.make_node(operator, ["start", "sizes"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0),
        helper.make_node("Add", ["x", "sum"], ["y"]),
    ]
    model = graphs.model(
        nodes,
        [("x", TensorProto.FLOAT, [4])],
        [("y", TensorProto.FLOAT, [4])],
        [
            numpy_helper.from_array(start, "start"),
            numpy_helper.from_array(np.array(sizes), "sizes"),
        ],
    )
    working = ir.serde.deserialize_model(model)
    tracemalloc.start()
    FOLD.run(working)
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most_bytes < SIDE * SIDE  # a quarter of the float32 values
    assert operators(ir.serde.serialize_model(working)) == [operator, "ReduceSum", "Add"]


def test_small_constants_are_folded():
    nodes = [
        helper.make_node("Expand", ["one", "sizes"], ["ones"]),
        helper.make_node("Add", ["x", "ones"], ["y"]),
    ]
    model = graphs.model(
        nodes,
        [("x", TensorProto.FLOAT, [4])],
        [("y", TensorProto.FLOAT, [4])],
        [
            numpy_helper.from_array(np.float32(1), "one"),
            numpy_helper.from_array(np.array([4]), "sizes"),
        ],
    )
    cleaned, _ = optimized(model, (4,))
    assert operators(cleaned) == ["Add"]


class Shifts(Breaks):
    """A pass that adds one to the output `small`, which is far smaller than the other one."""

    def run(self, model):
        node = next(n for n in model.graph if n.op_type == "Identity")
        node.op_type = "Exp"
        return "Identity to Exp"


@pytest.mark.parametrize("large", [1e12, np.inf, np.nan])
def test_a_large_or_odd_output_hides_no_other_that_is_wrong(large):
    nodes = [
        helper.make_node("Mul", ["x", "large"], ["huge"]),
        helper.make_node("Identity", ["x"], ["small"]),
    ]
    model = graphs.model(
        nodes,
        [("x", TensorProto.FLOAT, [2])],
        [("huge", TensorProto.FLOAT, [2]), ("small", TensorProto.FLOAT, [2])],
        [numpy_helper.from_array(np.float32(large), "large")],
    )
    kept, (report,) = checked(model, [Shifts()])
    assert kept == model
    assert re.match(r"undone: .*: 'small' element", report.summary)


def test_a_pass_that_holds_for_the_exported_sizes_only_is_undone():
    """A row and a column add up to a matrix: at one row a product with the row as bias does too."""
    rng = np.random.default_rng(3)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["column"]),
        helper.make_node("Transpose", ["column"], ["row"], perm=[1, 0]),
        helper.make_node("Add", ["column", "row"], ["y"]),
    ]
    model = graphs.model(
        nodes,
        [("x", TensorProto.FLOAT, ["n", 4])],
        [("y", TensorProto.FLOAT, ["n", "n"])],
        [graphs.weight(rng, "w", 4, 1)],
    )

    class DropsTheRow(Breaks):
        def run(self, model):
            node = next(n for n in model.graph if n.op_type == "Add")
            node.replace_input_with(1, node.inputs[0])
            return "the row for the column"

    assert checked(model, [DropsTheRow()])[1][0].summary.startswith("undone")
    cleaned, _ = checked(model, passes())
    for rows in (1, 2, 5):
        x = rng.standard_normal((rows, 4)).astype(np.float32)
        np.testing.assert_allclose(outputs(cleaned, x)[0], outputs(model, x)[0], rtol=1e-5)


def test_an_operator_nobody_knows_is_named():
    with pytest.raises(UnsupportedOperator, match="Fancy"):
        checked(graphs.with_custom_operator(), passes())


def test_the_same_model_gives_the_same_bytes():
    made = [optimized(graphs.residual_cnn(), (1, 3, 8, 8))[0] for _ in range(2)]
    assert len({m.SerializeToString(deterministic=True) for m in made}) == 1


def weights_of(**arrays):
    return [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]


def floats(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def unchanged(nodes, inputs, outputs, weights, feeds, opset=17):
    """Runs every pass; the model computes the same on all feeds, and the operators are given."""
    ends = [(name, kind, [f"d{axis}" for axis in range(rank)]) for name, kind, rank in outputs]
    model = graphs.model(nodes, inputs, ends, weights, opset)
    working = ir.serde.deserialize_model(model)
    for graph_pass in passes():
        if not graph_pass.requires(working):
            graph_pass.run(working)
    cleaned = ir.serde.serialize_model(working)
    for x in feeds:
        for want, got in zip(outputs_of(model, x), outputs_of(cleaned, x), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
    return operators(cleaned)


def outputs_of(model, x):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})


FLOAT = TensorProto.FLOAT


@pytest.mark.parametrize(
    ("rows", "added", "sizes"),
    [
        ("n", (8, 1), (1, 8)),  # the product of one row becomes eight
        ("n", (5, 6), (1, 5)),
        ("n", (3, 1, 6), (1, 4)),
        (6, (6, 1), (6,)),
        (6, (6, 6), (6,)),
    ],
)
def test_only_a_row_of_the_product_joins_it_in_a_gemm(rows, added, sizes):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Add", ["p", "c"], ["y"]),
    ]
    weights = weights_of(w=floats(4, 6), c=floats(*added))
    feeds = [floats(size, 4) for size in sizes if size in {1, *added}]
    ends = [("y", FLOAT, max(len(added), 2))]
    if len(added) == 2 and added[0] != 1 and isinstance(rows, str):
        feeds = [floats(1, 4), floats(added[0], 4)]
    kept = unchanged(nodes, [("x", FLOAT, [rows, 4])], ends, weights, feeds)
    assert kept == ["MatMul", "Add"]


@pytest.mark.parametrize("shape", [(6,), (1, 6)])
@pytest.mark.parametrize("turned", [(), ("x",), ("w",), ("x", "w")])
def test_a_row_joins_the_product_in_a_gemm(shape, turned):
    sides = {"x": "x", "w": "w"} | {name: f"{name}t" for name in turned}
    nodes = [
        *(helper.make_node("Transpose", [name], [f"{name}t"], perm=[1, 0]) for name in turned),
        helper.make_node("MatMul", [sides["x"], sides["w"]], ["p"]),
        helper.make_node("Add", ["p", "c"], ["y"]),
    ]
    weights = weights_of(w=floats(*((6, 4) if "w" in turned else (4, 6))), c=floats(*shape))
    given = [4, "n"] if "x" in turned else ["n", 4]
    feeds = [floats(*(4 if size == 4 else rows for size in given)) for rows in (1, 3)]
    ends = [("y", FLOAT, 2)]
    assert "MatMul" not in unchanged(nodes, [("x", FLOAT, given)], ends, weights, feeds)


def test_a_row_of_another_open_size_is_no_bias():
    """A column of numbers plus its transpose: a table of all pairs, as in graph attention."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["s"]),
        helper.make_node("MatMul", ["x", "v"], ["d"]),
        helper.make_node("Transpose", ["d"], ["t"], perm=[1, 0]),
        helper.make_node("Add", ["s", "t"], ["y"]),
    ]
    weights = weights_of(w=floats(4, 1), v=floats(4, 1))
    feeds = [floats(rows, 4) for rows in (1, 3, 7)]
    ends = [("y", FLOAT, 2)]
    assert "Gemm" not in unchanged(nodes, [("x", FLOAT, ["n", 4])], ends, weights, feeds)


def test_whole_numbers_are_multiplied_by_matmul():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Add", ["p", "c"], ["y"]),
    ]
    weights = weights_of(w=np.arange(24).reshape(4, 6), c=np.arange(6))
    given, ends = [("x", TensorProto.INT64, ["n", 4])], [("y", TensorProto.INT64, 2)]
    feeds = [np.arange(4 * rows).reshape(rows, 4) + 2**40 for rows in (1, 3)]
    assert unchanged(nodes, given, ends, weights, feeds) == ["MatMul", "Add"]


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
def test_statistics_of_the_batch_are_not_folded(kind):
    rng = np.random.default_rng(0)
    values, names = graphs.batch_norm(rng, "bn", 4)
    outs = ["y", "mean", "variance"]
    nodes = [
        helper.make_node(kind, ["x", "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", *names], outs, training_mode=1),
    ]
    weights = [graphs.weight(rng, "w", 4, 4, 3, 3), *values]
    given, ends = [("x", FLOAT, ["n", 4, 5, 7])], [("y", FLOAT, 4)]
    feeds = [5 * floats(rows, 4, 5, 7) for rows in (1, 3)]
    assert "BatchNormalization" in unchanged(nodes, given, ends, weights, feeds)


def test_a_dropout_that_trains_stays_and_each_by_itself():
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Dropout", ["r", "half", "yes"], ["a"]),
        helper.make_node("Dropout", ["r", "half", "yes"], ["b"]),
        helper.make_node("Sub", ["a", "b"], ["y"]),
    ]
    weights = weights_of(half=np.float32(0.5), yes=np.array(True))
    given, ends = [("x", FLOAT, ["n", 400])], [("y", FLOAT, 2)]
    assert unchanged(nodes, given, ends, weights, []).count("Dropout") == 2


def test_what_is_drawn_is_no_constant_and_never_drawn_once_for_two():
    nodes = [
        helper.make_node("Bernoulli", ["chance"], ["a"]),
        helper.make_node("Bernoulli", ["chance"], ["b"]),
        helper.make_node("Sub", ["a", "b"], ["d"]),
        helper.make_node("Add", ["x", "d"], ["y"]),
    ]
    weights = weights_of(chance=np.full(400, 0.5, np.float32))
    given, ends = [("x", FLOAT, ["n", 400])], [("y", FLOAT, 2)]
    assert unchanged(nodes, given, ends, weights, []).count("Bernoulli") == 2


@pytest.mark.parametrize("zero", [None, 9])
def test_a_pad_joins_a_conv_of_levels_only_where_zero_is_zero(zero):
    rng = np.random.default_rng(3)
    weights = weights_of(
        pads=np.array([0, 0, 1, 2, 0, 0, 0, 1]),
        w=rng.integers(0, 255, (4, 3, 3, 3)).astype(np.uint8),
        z=np.uint8(zero or 0),
    )
    names = ["p", "w", *(["z"] if zero is not None else [])]
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["p"]),
        helper.make_node("ConvInteger", names, ["y"]),
    ]
    given = [("x", TensorProto.UINT8, [1, 3, 7, 9])]
    feeds = [rng.integers(0, 255, (1, 3, 7, 9)).astype(np.uint8)]
    ends = [("y", TensorProto.INT32, 4)]
    assert ("Pad" in unchanged(nodes, given, ends, weights, feeds)) == (zero is not None)


@pytest.mark.parametrize("side", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_padding_by_name_keeps_its_meaning(side):
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["p"]),
        helper.make_node("Conv", ["p", "w"], ["y"], auto_pad=side, strides=[2, 3]),
    ]
    weights = weights_of(pads=np.array([0, 0, 1, 0, 0, 0, 2, 1]), w=floats(4, 3, 2, 3))
    given, ends = [("x", FLOAT, ["n", 3, 7, 8])], [("y", FLOAT, 4)]
    assert "Conv" in unchanged(nodes, given, ends, weights, [floats(2, 3, 7, 8)])
