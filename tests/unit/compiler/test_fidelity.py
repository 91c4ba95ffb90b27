"""Comparisons equal the formulas written out in numpy."""

from __future__ import annotations

import numpy as np
import pytest
from adlik_compiler.fidelity import Comparison, class_scores, cosine
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

vectors = hnp.arrays(np.float64, 7, elements=st.floats(-1e6, 1e6))


def compared(pairs, labels=None):
    comparison = Comparison()
    for at, (left, right) in enumerate(pairs):
        comparison.add(left, right, None if labels is None else labels[at])
    return comparison


@given(vectors)
def test_a_vector_is_like_itself_and_unlike_its_opposite(vector):
    assert cosine(vector, vector) == pytest.approx(1.0)
    if np.linalg.norm(vector) > 1e-100:
        assert cosine(vector, -vector) == pytest.approx(-1.0)


@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_errors_and_cosine_are_means_over_samples_of_all_float_outputs(seed, runs):
    random = np.random.default_rng(seed)
    pairs, cosines, errors = [], [], []
    for _ in range(runs):
        left = {"a": random.random((1, 4), np.float32), "b": random.random(3, np.float32)}
        right = {
            k: v + np.float32(0.1) * random.random(v.shape, np.float32) for k, v in left.items()
        }
        pairs.append(({**left, "i": np.array([1])}, {**right, "i": np.array([2])}))
        u = np.concatenate([left["a"].ravel(), left["b"]]).astype(np.float64)
        v = np.concatenate([right["a"].ravel(), right["b"]]).astype(np.float64)
        cosines.append(u @ v / np.sqrt(u @ u) / np.sqrt(v @ v))
        errors.append(np.abs(u - v))
    comparison = compared(pairs)
    assert comparison.cosine == pytest.approx(np.mean(cosines))
    assert comparison.mean_abs_error == pytest.approx(np.mean(errors))
    assert comparison.max_abs_error == np.max(errors)


def test_classes_and_accuracy_are_counted():
    scores = np.eye(4, dtype=np.float32)
    reference = [{"y": scores[[at]]} for at in (0, 1, 2, 3)]
    candidate = [{"y": scores[[at]]} for at in (0, 1, 2, 0)]
    comparison = compared(zip(reference, candidate, strict=True), labels=[0, 1, 3, 3])
    assert comparison.top1_agreement == 0.75
    assert comparison.reference_accuracy == 0.75
    assert comparison.accuracy == 0.5


def test_without_labels_or_scores_there_is_no_accuracy():
    comparison = compared([({"y": np.ones((1, 2, 3))}, {"y": np.ones((1, 2, 3))})])
    assert comparison.top1_agreement is None
    assert comparison.accuracy is None
    assert class_scores({"y": np.ones((5, 1))}) is None
    assert class_scores({"y": np.ones((5, 2), np.int64)}) is None


def test_only_what_the_candidate_alone_breaks_counts_as_not_finite():
    left = {"y": np.array([[1.0, -np.inf, 2.0, 3.0]])}
    right = {"y": np.array([[1.0, -np.inf, np.nan, np.inf]])}
    comparison = compared([(left, right)])
    assert comparison.not_finite == 2
    assert comparison.cosine == 1.0


def test_runs_without_a_finite_number_are_no_likeness():
    good, other = {"y": np.array([[1.0, 2.0]])}, {"y": np.array([[2.0, -1.0]])}
    none = {"y": np.array([[np.nan, np.nan]])}
    nothing = compared([(none, good), (none, none)])
    assert (nothing.compared, nothing.cosine, nothing.top1_agreement) == (0, 0.0, None)
    half = compared([(none, good), (good, other)])
    assert half.compared == 2
    assert half.cosine == pytest.approx(0.0)
    assert half.top1_agreement == 0.0


def test_whole_numbers_are_compared_where_there_is_nothing_else():
    same, other = {"y": np.array([[1, 2]])}, {"y": np.array([[2, -1]])}
    assert compared([(same, same)]).cosine == pytest.approx(1.0)
    assert compared([(same, other)]).cosine == pytest.approx(0.0)


@pytest.mark.parametrize("found", [{"z": np.ones((1, 2))}, {"y": np.ones((2, 1))}])
def test_other_names_or_shapes_are_a_mismatch(found):
    comparison = compared([({"y": np.ones((1, 2))}, found)])
    assert "y" in comparison.mismatch
    assert comparison.cosine == 0.0
