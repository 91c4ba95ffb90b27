"""The first look at a pushed model finds what serving must know, as all of the evidence does."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from adlik_common.errors import InvalidSamples
from adlik_proof import evidence
from adlik_proof.first_look import look
from adlik_proof.probe import CRASHED, try_apart
from adlik_proof.reference import Reference

from tests.unit.proof.models import EFFORT, NODE, F, mlp, model, normal, saved


def with_mean(share: float) -> onnx.ModelProto:
    """Adds a share of the mean over all rows to each row."""
    nodes = [
        NODE("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1),
        NODE("Mul", ["m", "share"], ["part"]),
        NODE("Add", ["x", "part"], ["y"]),
    ]
    weights = {"share": np.array(share, np.float32)}
    return model(nodes, [("x", F, ["n", 4])], [("y", F, ["n", 4])], weights)


def looked_at(made, folder, **samples):
    archive = None
    if samples:
        archive = folder / "samples.npz"
        np.savez(archive, **samples)
    return look(Reference(saved(made, folder), 1), archive, EFFORT)


@pytest.mark.parametrize("samples", [{}, {"x": normal(12, 4)}], ids=["made up", "samples"])
@pytest.mark.parametrize(
    ("share", "independent"), [(0.0, True), (1.0, False), (0.02, False), (0.0005, False)]
)
def test_rows_that_look_at_each_other_are_met(tmp_path, share, independent, samples):
    found = looked_at(with_mean(share), tmp_path, **samples)
    assert found.independent == independent
    assert ("together with others" in found.dependence) == (not independent)


def test_float_noise_is_no_dependence(tmp_path):
    """Products of other heights are added in another order."""
    wide = model(
        [NODE("MatMul", ["x", "w"], ["h"]), NODE("Tanh", ["h"], ["y"])],
        [("x", F, ["n", 513])],
        [("y", F, ["n", 257])],
        {"w": normal(513, 257)},
    )
    assert looked_at(wide, tmp_path).independent
    assert looked_at(mlp(), tmp_path).independent


def test_what_ends_the_process_is_refused(tmp_path):
    made = model(
        [NODE("GRU", ["x", "w", "r"], ["o", "y"], hidden_size=4)],
        [("x", F, ["time", "batch", 3])],
        [("y", F, [1, "batch", 4])],
        {"w": normal(1, 12, 3), "r": normal(1, 12, 4)},
    )
    ends = CRASHED in try_apart(saved(made, tmp_path), [{"x": normal(0, 2, 3)}])
    assert list(looked_at(made, tmp_path).unrunnable) == ([evidence.EMPTY] if ends else [])


def test_labelled_samples_all_count(tmp_path):
    few = looked_at(mlp(), tmp_path, x=normal(60, 16))
    labelled = looked_at(mlp(), tmp_path, x=normal(60, 16), labels=np.arange(60) % 10)
    assert len(few.runs) < len(labelled.runs) == 30
    assert all(run.label is not None for run in labelled.runs)


def test_samples_that_a_model_refuses_are_named(tmp_path):
    made = model(
        [NODE("Reshape", ["x", "shape"], ["y"])],
        [("x", F, ["n", "t"])],
        [("y", F, ["n", 2, 4])],
        {"shape": np.array([-1, 2, 4], np.int64)},
    )
    with pytest.raises(InvalidSamples, match="does not run on sample"):
        looked_at(made, tmp_path, x=normal(12, 7))
