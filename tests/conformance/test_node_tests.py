"""ONNX's node tests in plans: right, or declined to ONNX Runtime; never wrong, never a crash."""

from collections import Counter

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.conformance.__main__ import general, kind, page
from tests.conformance.children import answers
from tests.conformance.judge import Reference, differ, judged
from tests.conformance.node_tests import verdicts

SAMPLE = 12
"""One in so many of the composed forms of operators that no plan knows."""


@pytest.mark.timeout(1200)
def test_every_node_test_is_right_or_declined(tmp_path):
    found = list(verdicts(str(tmp_path), SAMPLE))
    bad = [(job, said) for job, said in found if kind(said) in {"wrong", "crashed"}]
    assert not bad
    counts = Counter(kind(said) for _, said in found)
    assert counts["right"] > 3000, counts
    assert counts["refused"] <= 1, "a model that ONNX Runtime runs is refused"
    assert sum(bool(said.get("plans")) for _, said in found) > 1200, "plans take part in too few"
    assert "| Softmax |" in page(found)


def test_a_child_that_ends_is_a_finding_and_the_next_job_is_answered(tmp_path):
    jobs = [{"case": "test_relu", "form": "alone"}, {}, {"case": "test_relu", "form": "behind"}]
    found = answers("tests.conformance.worker", str(tmp_path), jobs=jobs, children=1)
    assert [kind(said) for _, said in found] == ["right", "crashed", "right"]


def relu():
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Softmax", ["x"], ["y"])],
        "g",
        [info("x", TensorProto.FLOAT, ["n", 4])],
        [info("y", TensorProto.FLOAT, ["n", 4])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_the_judge_tells_noise_from_faults():
    reference = Reference(relu())
    feed = {"x": np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)}
    want = reference(feed)["y"]
    assert judged(reference, feed, {"y": np.nextafter(want, np.float32(1))}) == ""
    assert "largest error" in judged(reference, feed, {"y": want * np.float32(1.0001)})
    wrong = want.copy()
    wrong[2] = wrong[1]
    assert "largest error" in judged(reference, feed, {"y": wrong})
    wrong[2] = np.nan
    assert "NaN on one side" in judged(reference, feed, {"y": wrong})
    assert "shape" in judged(reference, feed, {"y": want[:2]})
    assert "dtype" in judged(reference, feed, {"y": want.astype(np.float64)})
    assert "outputs" in judged(reference, feed, {"z": want})


@pytest.mark.parametrize(
    ("want", "got", "words"),
    [
        (np.array([1, 2]), np.array([1, 3]), "1 of 2 differ"),
        (np.array([1, 2], np.int32), np.array([1, 2]), "dtype"),
        (np.array(["a"], object), np.array(["b"], object), "1 of 1 differ"),
        ([np.zeros(1)], [np.ones(1)], "largest error"),
        ([np.zeros(1)], [], "another sequence"),
        (None, np.zeros(1), "missing"),
        (np.array([np.inf]), np.array([-np.inf]), "infinities"),
        (np.array([True]), np.array([False]), "1 of 1"),
    ],
)
def test_the_judge_compares_everything(want, got, words):
    assert words in differ(want, got)
    assert differ(want, want) == ""


def test_reasons_are_told_without_names():
    assert general("v7: not float32 [batch, columns]") == general("a, b: not float32 [batch]")
    assert general("A plan flattens only.") == "A plan flattens only"
