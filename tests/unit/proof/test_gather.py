"""Inputs that could show a fault: sizes, values by role, samples, and what is safe to try."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from adlik_proof import evidence, evidence_file
from adlik_proof.draws import find_drawer
from adlik_proof.probe import ANSWERED, CRASHED, REFUSED, try_apart
from adlik_proof.reference import Reference
from adlik_proof.roles import roles_of

from tests.unit.proof.models import EFFORT, I64, NODE, TEXT, F, mlp, model, normal, saved


def sizes_of(known, axis=0):
    return {run.inputs["x"].shape[axis] for run in known.of_kind(evidence.DRAWN)}


def test_open_sizes_take_several_values_and_axes_of_one_name_are_equal(known_of):
    made = model(
        [NODE("MatMul", ["x", "w"], ["z"]), NODE("Mul", ["z", "m"], ["y"])],
        [("x", F, ["batch", "seq", 8]), ("m", F, ["batch", "seq", 1])],
        [("y", F, ["batch", "seq", 4])],
        {"w": normal(8, 4)},
    )
    known = known_of(made)
    assert {1, 3} <= sizes_of(known)
    assert max(sizes_of(known)) >= 5
    assert {1, 3} <= sizes_of(known, 1)
    assert max(sizes_of(known, 1)) >= 9
    assert all(run.inputs["x"].shape[:2] == run.inputs["m"].shape[:2] for run in known.runs)
    assert any(len(set(run.inputs["x"].shape[:2])) == 2 for run in known.of_kind(evidence.DRAWN))
    assert known.independent


@pytest.mark.parametrize(
    ("node", "weights"),
    [
        (NODE("Conv", ["x", "w"], ["y"], strides=[2]), {"w": normal(4, 3, 5)}),
        (NODE("Reshape", ["x", "s"], ["y"]), {"s": np.array([0, 3, 2, -1])}),
        (NODE("Pad", ["x", "p"], ["y"], mode="reflect"), {"p": np.array([0, 0, 3, 0, 0, 3])}),
        (NODE("Reshape", ["x", "s"], ["y"]), {"s": np.array([0, 3, 32, -1])}),
    ],
    ids=["window", "halves", "reflection", "thirty-seconds"],
)
def test_sizes_are_found_by_what_the_model_accepts(known_of, node, weights):
    rank = 3 if node.op_type != "Reshape" else 4
    made = model(
        [node], [("x", F, ["n", 3, "length"])], [("y", F, [None] * rank)], weights
    )  # fmt: skip
    known = known_of(made)
    assert not known.missing
    assert len(sizes_of(known, 2)) >= 3


def test_two_names_for_one_length_change_together(known_of):
    made = model(
        [NODE("Add", ["x", "z"], ["y"])],
        [("x", F, ["n", "left"]), ("z", F, ["n", "right"])],
        [("y", F, ["n", "left"])],
    )
    known = known_of(made)
    assert len(sizes_of(known, 1)) >= 3


def test_unnamed_axes_may_be_rows_or_not(known_of):
    """A state whose second axis is the batch, beside a sequence of at least 64 steps."""
    made = model(
        [
            NODE("Unsqueeze", ["x", "one"], ["channel"]),
            NODE("Conv", ["channel", "w"], ["steps"], strides=[64]),
            NODE("ReduceMean", ["steps"], ["mean"], axes=[2], keepdims=0),
            NODE("Unsqueeze", ["mean", "zero"], ["update"]),
            NODE("Concat", ["state", "update"], ["y"], axis=0),
        ],
        [("x", F, [None, None]), ("state", F, [2, None, 5])],
        [("y", F, [3, None, 5])],
        {"w": normal(5, 1, 64), "one": np.array([1]), "zero": np.array([0])},
    )
    known = known_of(made)
    assert not known.missing
    drawn = known.of_kind(evidence.DRAWN)
    assert all(len(run.inputs["x"]) == run.inputs["state"].shape[1] for run in drawn)


def test_indices_stay_within_what_is_indexed(known_of):
    made = model(
        [
            NODE("Cast", ["x"], ["ids"], to=I64),
            NODE("Unsqueeze", ["ids", "one"], ["column"]),
            NODE("Gather", ["table", "column"], ["rows"]),
            NODE("Gather", ["nodes", "edge"], ["ends"]),
            NODE("ReduceSum", ["rows"], ["total"], keepdims=0),
            NODE("Add", ["ends", "total"], ["y"]),
        ],
        [("x", F, ["n"]), ("nodes", F, ["v", 3]), ("edge", I64, ["e"])],
        [("y", F, ["e", 3])],
        {"table": normal(7, 2), "one": np.array([1])},
    )
    known = known_of(made)
    for run in known.of_kind(evidence.DRAWN):
        assert run.inputs["x"].max(initial=0) < 7
        assert run.inputs["edge"].max(initial=0) < len(run.inputs["nodes"])
    assert {float(v) for run in known.runs for v in run.inputs["x"].ravel()} >= {0.0, 3.0, 6.0}


def test_numbers_that_the_model_compares_with_are_tried():
    made = model(
        [NODE("Equal", ["rate", "k"], ["is"]), NODE("Cast", ["is"], ["y"], to=F)],
        [("rate", I64, [])],
        [("y", F, [])],
        {"k": np.int64(16000)},
    )
    assert roles_of(made)["rate"].constants == [16000.0]


def test_sizes_and_shapes_as_inputs_are_made_up_as_such(known_of):
    made = model(
        [NODE("Reshape", ["x", "shape"], ["y"])],
        [("x", F, [1, 12]), ("shape", I64, [2])],
        [("y", F, ["a", "b"])],
    )
    known = known_of(made)
    assert not known.missing
    assert all(run.inputs["shape"].min() == -1 for run in known.of_kind(evidence.DRAWN))


def test_a_trip_count_is_never_large(known_of):
    """A loop of a billion turns would take the process with it."""
    body = onnx.helper.make_graph(
        [NODE("Identity", ["go"], ["on"]), NODE("Add", ["sum", "step"], ["next"])],
        "body",
        [
            onnx.helper.make_tensor_value_info("turn", I64, []),
            onnx.helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, []),
            onnx.helper.make_tensor_value_info("sum", F, [3]),
        ],
        [
            onnx.helper.make_tensor_value_info("on", onnx.TensorProto.BOOL, []),
            onnx.helper.make_tensor_value_info("next", F, [3]),
        ],
    )
    made = model(
        [NODE("Loop", ["turns", "", "x"], ["y"], body=body)],
        [("x", F, [3]), ("turns", I64, [])],
        [("y", F, [3])],
        {"step": np.ones(3, np.float32)},
    )
    known = known_of(made)
    assert not known.missing
    assert max(int(run.inputs["turns"]) for run in known.runs) <= 3


def test_texts_that_differ_are_made_up_and_those_the_model_knows(known_of):
    nodes = [
        NODE(
            "LabelEncoder", ["x"], ["y"], domain="ai.onnx.ml",
            keys_strings=["known"], values_int64s=[1], default_int64=0,
        )
    ]  # fmt: skip
    known = known_of(model(nodes, [("x", TEXT, ["n", 9])], [("y", I64, ["n", 9])]))
    texts = {text for run in known.runs for text in run.inputs["x"].ravel()}
    assert {"known", ""} < texts
    assert any(not text.isascii() for text in texts)


def test_values_come_at_several_scales_and_many_rows(known_of):
    known = known_of(mlp())
    drawn = [np.abs(r.inputs["x"]).max() for r in known.of_kind(evidence.DRAWN)]
    assert max(drawn) > 30
    assert min(drawn) < 0.2
    assert max(len(run.inputs["x"]) for run in known.of_kind(evidence.CROWD)) > 100
    special = known.of_kind(evidence.NONFINITE)
    odd = [{str(v) for v in run.inputs["x"].ravel() if not np.isfinite(v)} for run in special]
    # One kind at a time: an infinity would hide what becomes of a NaN.
    assert all(len(kinds) == 1 for kinds in odd)
    assert set.union(*odd) == {"nan", "inf", "-inf"}
    assert all(not np.isfinite(run.inputs["x"][-1]).all() for run in special)
    assert any(run.inputs["x"].size == 0 for run in known.of_kind(evidence.EMPTY))


def test_samples_are_used_as_they_are_several_together_and_not_those_that_calibrate(known_of):
    x = np.arange(40 * 16, dtype=np.float32).reshape(40, 16)
    known = known_of(mlp(), x=x)
    alone, together = known.of_kind(evidence.SAMPLE), known.of_kind(evidence.COMPANY)
    assert {tuple(run.inputs["x"].ravel()) for run in alone} <= {tuple(row) for row in x}
    assert len(alone) == 20
    assert {len(run.inputs["x"]) for run in together} == {3, 5}
    np.testing.assert_array_equal(known.timed["x"], alone[0].inputs["x"])


def test_samples_are_also_run_at_other_scales(known_of):
    known = known_of(mlp(), x=100 + normal(40, 16))
    largest = [np.abs(run.inputs["x"]).max() for run in known.of_kind(evidence.DRAWN)]
    assert max(largest) > 2000


def test_an_index_into_what_is_computed_is_bounded_as_well(known_of):
    made = model(
        [NODE("MatMul", ["x", "w"], ["z"]), NODE("Gather", ["z", "edges"], ["y"])],
        [("x", F, ["nodes", 6]), ("edges", I64, ["e"])],
        [("y", F, ["e", 8])],
        {"w": normal(6, 8)},
    )
    drawn = known_of(made).of_kind(evidence.DRAWN)
    assert any(run.inputs["edges"].max(initial=0) > 1 for run in drawn)


def test_gaps_are_ordinary_where_a_model_fills_them(known_of):
    made = model(
        [NODE("IsNaN", ["x"], ["gap"]), NODE("Where", ["gap", "zero", "x"], ["y"])],
        [("x", F, ["n", 4])],
        [("y", F, ["n", 4])],
        {"zero": np.float32(0)},
    )
    assert any(np.isnan(run.inputs["x"]).any() for run in known_of(made).of_kind(evidence.DRAWN))


def test_numbers_near_multiples_of_a_divisor_are_tried(known_of):
    made = model(
        [NODE("Div", ["x", "hour"], ["y"])], [("x", I64, ["n"])], [("y", I64, ["n"])],
        {"hour": np.int64(3_600_000)},
    )  # fmt: skip
    drawn = np.concatenate([r.inputs["x"] for r in known_of(made).of_kind(evidence.DRAWN)])
    assert set(np.abs(drawn[np.abs(drawn) > 3_000_000]) % 3_600_000) & {0, 1, 3_599_999}


def test_speed_is_measured_at_sizes_that_are_used(known_of):
    made = model(
        [NODE("Conv", ["x", "w"], ["y"])], [("x", F, ["n", 3, "h", "w_"])],
        [("y", F, ["n", 4, "a", "b"])], {"w": normal(4, 3, 3, 3)},
    )  # fmt: skip
    assert known_of(made).timed["x"].shape == (1, 3, 224, 224)
    tokens = model(
        [NODE("MatMul", ["x", "w"], ["y"])],
        [("x", F, ["n", "seq", 8])],
        [("y", F, ["n", "seq", 4])],
        {"w": normal(8, 4)},
    )
    assert known_of(tokens).timed["x"].shape == (1, 128, 8)
    named = dataclasses.replace(EFFORT, sizes={"seq": 50})
    assert known_of(tokens, named).timed["x"].shape == (1, 50, 8)


def test_nothing_that_runs_is_said_and_not_raised(known_of):
    """Log of a sum of whole numbers as a size: nothing made up fits."""
    made = model(
        [
            NODE("ReduceSum", ["x"], ["sum"], keepdims=1),
            NODE("Sub", ["sum", "k"], ["size"]),
            NODE("Expand", ["one", "size"], ["y"]),
        ],
        [("x", I64, [1])],
        [("y", F, ["n"])],
        {"k": np.array([10**6]), "one": np.ones(1, np.float32)},
    )
    known = known_of(made)
    assert "no inputs could be made up" in known.missing
    assert "'x' INT64 [1]" in known.missing


def test_a_model_that_draws_at_random_is_told_and_not_judged(known_of):
    made = model(
        [NODE("RandomNormalLike", ["x"], ["noise"]), NODE("Add", ["x", "noise"], ["y"])],
        [("x", F, ["n", 4])],
        [("y", F, ["n", 4])],
    )
    assert "other answers each time (y)" in known_of(made).missing


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (NODE("ReduceMean", ["x"], ["m"], axes=[0]), "differ"),
        (NODE("CumSum", ["x", "zero"], ["m"]), "in place of"),
    ],
)
def test_rows_that_depend_on_their_company_are_found(known_of, node, said):
    made = model(
        [node, NODE("Sub", ["x", "m"], ["d"]), NODE("Cast", ["d"], ["y"], to=I64)],
        [("x", F, ["n", 4])],
        [("y", I64, ["n", 4])],
        {"zero": np.int64(0)},
    )
    known = known_of(made)
    assert not known.independent
    assert said in known.dependence


@pytest.mark.parametrize(
    ("first", "second", "output"),
    [("n", "m", "n"), ("n", "n", "m"), ("n", 1, "n"), (None, None, None)],
)
def test_rows_without_one_name_are_not_batched(known_of, first, second, output):
    made = model(
        [NODE("Add", ["x", "z"], ["y"])],
        [("x", F, [first, 4]), ("z", F, [second, 4])],
        [("y", F, [output, 4])],
    )
    known = known_of(made)
    assert not known.independent
    assert "first ax" in known.dependence


GRU = model(
    [NODE("GRU", ["x", "w", "r"], ["o", "y"], hidden_size=4)],
    [("x", F, ["time", "batch", 3])],
    [("y", F, [1, "batch", 4])],
    {"w": normal(1, 12, 3), "r": normal(1, 12, 4)},
)


def test_what_ends_the_process_is_tried_apart_and_refused(tmp_path, known_of):
    """ONNX Runtime aborts on recurrent layers without steps; whatever it does is no surprise."""
    path = saved(GRU, tmp_path)
    runs = [{"x": normal(*shape)} for shape in ((2, 1, 3), (0, 1, 3), (2, 2, 3), (2, 1, 5))]
    became = try_apart(path, runs)
    assert (became[0], became[2], became[3]) == (ANSWERED, ANSWERED, REFUSED)
    known = known_of(GRU)
    if became[1] == CRASHED:
        assert list(known.unrunnable) == [evidence.EMPTY]
    assert all(run.inputs["x"].size for run in known.runs) or became[1] != CRASHED


def test_evidence_is_the_same_each_time_and_survives_its_file(tmp_path):
    path = saved(mlp(), tmp_path)
    reference = Reference(path, 1)
    first, second = (find_drawer(reference, {}, 60.0) for _ in range(2))
    for one, other in zip(first.draws(), second.draws(), strict=True):
        np.testing.assert_array_equal(one.inputs["x"], other.inputs["x"])


def test_evidence_survives_its_file(tmp_path, known_of):
    known = known_of(mlp(), x=normal(20, 16), labels=np.arange(20))
    evidence_file.save(known, tmp_path / "evidence.npz")
    found = evidence_file.load(tmp_path / "evidence.npz")
    assert [run.kind for run in found.runs] == [run.kind for run in known.runs]
    for run, other in zip(known.runs, found.runs, strict=True):
        np.testing.assert_array_equal(run.expected["y"], other.expected["y"])
        assert run.label == other.label
    for group, outputs in known.noise.items():
        np.testing.assert_array_equal(outputs["y"].rms, found.noise[group]["y"].rms)
    assert found.independent == known.independent
