"""A lower precision is measured: each output as what it is."""

from __future__ import annotations

import numpy as np
import pytest
from adlik_proof.figures import DETECTIONS, EXACT, NUMBERS, SCORES, Pair, summarize

from tests.unit.proof.models import mlp, normal


def figures_of(expected, found, *, is_real=True, axes=None, scores=None):
    pairs = [Pair("sample 0", expected, found, scores=scores or {})]
    return summarize(pairs, axes or {}, is_real=is_real).outputs


def test_a_regression_is_held_to_its_own_spread():
    y = (1000 + normal(50, 1)).astype(np.float32)
    (near,) = figures_of({"y": y}, {"y": y + normal(50, 1, seed=2, scale=0.01)})
    (far,) = figures_of({"y": y}, {"y": np.full_like(y, y.mean())})
    assert near.kind == far.kind == NUMBERS
    assert near.r2 > 0.999
    assert far.r2 == pytest.approx(0, abs=1e-3)
    assert far.cosine > 0.999999  # which is why a cosine is no judge
    assert "in place of" in far.worst


def test_expected_accuracy_weighs_by_the_references_own_probability():
    p = np.array([[0.9, 0.1], [0.55, 0.45], [0.5, 0.5], [0.8, 0.2]] * 5, np.float32)
    other = p.copy()
    other[1::4] = [0.4, 0.6]  # unsure ones fall the other way
    (found,) = figures_of({"p": p}, {"p": other})
    assert found.kind == SCORES
    assert found.agreement == pytest.approx(0.75)
    assert found.expected_accuracy == pytest.approx((0.9 + 0.45 + 0.5 + 0.8) / 2.75, rel=1e-5)
    assert found.interval[0] <= found.expected_accuracy <= found.interval[1]


def test_agreement_counts_where_the_reference_is_sure():
    logits = np.zeros((40, 6), np.float32)
    logits[:20, 0] = 5  # sure of these, of the others not at all
    other = logits.copy()
    other[20:, 3] = 1
    (found,) = figures_of({"y": logits}, {"y": other})
    assert (found.sure, found.sure_agreement) == (20, 1.0)
    other[:10, 4] = 9
    assert figures_of({"y": logits}, {"y": other})[0].sure_agreement == 0.5


def detector(seed=0, boxes=400):
    """[1, 4 + 3, boxes]: a few objects in pixels, hardly a score elsewhere."""
    random = np.random.default_rng(seed)
    table = np.zeros((1, 7, boxes), np.float32)
    table[0, :2] = random.uniform(50, 590, (2, boxes))
    table[0, 2:4] = random.uniform(20, 80, (2, boxes))
    table[0, 4:] = random.uniform(0, 0.02, (3, boxes))
    for at in range(0, boxes, 40):
        table[0, 4 + at % 3, at] = 0.9
    return table


def test_a_detector_is_judged_by_its_objects():
    table = detector()
    (same,) = figures_of({"y": table}, {"y": table})
    assert (same.kind, same.objects_kept) == (DETECTIONS, 1.0)
    assert same.objects == 10
    silent = table.copy()
    silent[0, 4:] *= 0.1
    assert figures_of({"y": table}, {"y": silent})[0].objects_kept == 0.0
    shifted = table.copy()
    shifted[0, :2] += 40
    assert figures_of({"y": table}, {"y": shifted})[0].objects_kept < 0.5


def test_scores_beside_boxes_in_pixels_are_a_kind_of_their_own():
    table = detector()
    other = table.copy()
    other[0, 4:] = 0
    (found,) = figures_of({"y": table}, {"y": other})
    assert found.cosine > 0.999
    assert found.r2 < 0.1


def test_boxes_and_scores_may_be_two_outputs():
    table = np.swapaxes(detector(), 1, 2)
    parts = {"boxes": table[..., :4], "scores": table[..., 4:]}
    silent = {**parts, "scores": parts["scores"] * 0.1}
    kinds = [f.kind for f in figures_of(parts, parts)]
    assert kinds == [DETECTIONS, DETECTIONS]
    assert [f.objects_kept for f in figures_of(parts, silent)] == [0.0, 0.0]


def test_a_column_that_is_lost_shows():
    y = normal(100, 20)
    other = y.copy()
    other[:, 7] = 0
    (found,) = figures_of({"y": y}, {"y": other}, is_real=False)
    assert found.r2 > 0.9
    assert found.column_r2 < 0.1


def test_one_run_that_is_lost_among_many_shows():
    runs = [normal(1, 20, seed=n) for n in range(60)]
    found = [*runs[:-1], -runs[-1]]
    pairs = [Pair(f"sample {n}", {"y": a}, {"y": b}) for n, (a, b) in enumerate(zip(runs, found))]  # noqa: B905
    (figures,) = summarize(pairs, {}, is_real=False).outputs
    assert figures.r2 > 0.9
    assert figures.run_share < 0
    whole = [Pair("", {"y": np.arange(8)}, {"y": np.arange(8) + (n == 3)}) for n in range(60)]
    (figures,) = summarize(whole, {}, is_real=False).outputs
    assert figures.exact_share > 0.98
    assert figures.run_share == 0


def test_a_constant_is_held_to_its_size():
    y = np.full((30, 1), 4.0, np.float32)
    assert figures_of({"y": y}, {"y": y * np.float32(1.001)})[0].r2 > 0.99
    assert figures_of({"y": y}, {"y": y * np.float32(1.5)})[0].r2 < 0


def test_indices_are_weighed_by_what_they_chose():
    scores = np.array([[2.0, 1.9, -9], [5.0, -9, -9]] * 8, np.float32)
    best, other = {"i": np.array([0, 0] * 8)}, {"i": np.array([1, 0] * 8)}
    (found,) = figures_of(best, other, axes={"i": 1}, scores={"i": scores})
    assert (found.kind, found.exact_share) == (EXACT, 0.5)
    assert 0.9 < found.expected_accuracy < 1


def test_made_up_inputs_have_no_classes(findings_of):
    found = findings_of(mlp(), is_exact=False)
    assert [f.kind for f in found.figures] == [NUMBERS]
    real = findings_of(mlp(), is_exact=False, x=normal(40, 16))
    assert [f.kind for f in real.figures] == [SCORES]


def test_a_lower_precision_must_be_finite_and_of_the_right_form(findings_of):
    def infinite(_inputs, outputs):
        return {"y": outputs["y"] / 0}

    with np.errstate(divide="ignore", invalid="ignore"):
        assert "NaN or infinite" in findings_of(mlp(), infinite, is_exact=False).faults[0].text
    halves = findings_of(mlp(), lambda _i, o: {"y": o["y"].astype("f2")}, is_exact=False)
    assert "datatype float16" in halves.faults[0].text


def test_labels_count_what_is_right(findings_of):
    def shuffled(_inputs, outputs):
        return {"y": outputs["y"][:, ::-1]}

    x = normal(40, 16)
    found = findings_of(mlp(), shuffled, is_exact=False, x=x, labels=np.zeros(40, np.int64))
    assert found.accuracy.rows == 20  # the other half calibrates
    assert found.accuracy.right != found.accuracy.reference_right
