"""Boxes, rankings and batches against plain references."""

import numpy as np
import pytest
from adlik_kernels import InvalidOperand, detect, gather, scatter, softmax_top_k, suppress
from hypothesis import given, settings
from hypothesis import strategies as st

some = settings(max_examples=25, deadline=None)


def prediction(seed, objects, candidates=500, classes=7):
    """Boxes in clusters, so that there is something to suppress."""
    rng = np.random.default_rng(seed)
    table = np.zeros((4 + classes, candidates), np.float32)
    table[:2] = rng.uniform(0, 640, (2, candidates))
    table[2:4] = rng.uniform(8, 200, (2, candidates))
    table[4:] = rng.uniform(0, 0.2, (classes, candidates))
    for _ in range(objects):
        where = rng.integers(0, candidates, 10)
        box = np.array([*rng.uniform(50, 590, 2), *rng.uniform(30, 200, 2)])
        table[:4, where] = box[:, None] * (1 + 0.05 * rng.standard_normal((4, 10)))
        table[4 + rng.integers(classes), where] = rng.uniform(0.3, 0.95, 10)
    return table


def plain_detect(table, confidence, overlap, limit):
    scores = table[4:].max(axis=0)
    chosen = [n for n in np.argsort(-scores, kind="stable") if scores[n] > confidence]
    kept = []
    for n in chosen:
        if len(kept) < limit and all(plain_overlap(table, n, m) <= overlap for m in kept):
            kept.append(n)
    return kept


def plain_overlap(table, n, m):
    if table[4:, n].argmax() != table[4:, m].argmax():
        return 0.0
    (x, y, w, h), (u, v, a, b) = table[:4, n].astype(float), table[:4, m].astype(float)
    across = min(x + w / 2, u + a / 2) - max(x - w / 2, u - a / 2)
    down = min(y + h / 2, v + b / 2) - max(y - h / 2, v - b / 2)
    shared = max(across, 0) * max(down, 0)
    return shared / (w * h + a * b - shared)


@some
@given(seed=st.integers(0, 10**6), objects=st.integers(0, 12), limit=st.sampled_from([3, 300]))
def test_detections_are_those_of_a_plain_loop(seed, objects, limit):
    table = prediction(seed, objects)
    found = detect(table, limit=limit)
    kept = plain_detect(table, 0.25, 0.45, limit)
    np.testing.assert_array_equal(found.classes, table[4:, kept].argmax(axis=0))
    np.testing.assert_array_equal(found.scores, table[4:, kept].max(axis=0))
    centre = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    np.testing.assert_allclose(centre, table[:2, kept].T, atol=1e-3)


def test_the_other_layout_says_the_same():
    table = prediction(3, 8)
    other = np.concatenate([table[:4], np.full((1, 500), 1, np.float32), table[4:]]).T
    one, two = detect(table), detect(np.ascontiguousarray(other), layout="yolov5")
    assert len(one) > 0
    np.testing.assert_array_equal(one.boxes, two.boxes)
    np.testing.assert_array_equal(one.classes, two.classes)


def test_nan_scores_are_never_kept():
    table = prediction(1, 5)
    table[4:] = np.nan
    assert len(detect(table)) == 0


def test_only_boxes_of_one_class_suppress_each_other():
    boxes = np.array([[0, 0, 10, 10]] * 3, np.float32)
    scores = np.array([0.5, 0.9, 0.9], np.float32)
    assert suppress(boxes, scores, np.array([0, 0, 1], np.int32)).tolist() == [1, 2]


@pytest.mark.parametrize(
    "arguments",
    [
        {"prediction": np.zeros((4, 10), np.float32)},
        {"prediction": np.zeros((10, 5), np.float32), "layout": "yolov5"},
        {"prediction": np.zeros((6, 10), np.float64)},
        {"prediction": np.zeros((1, 6, 10), np.float32)},
        {"prediction": np.zeros((6, 10), np.float32), "layout": "ssd"},
        {"prediction": np.zeros((6, 10), np.float32), "overlap": 1.5},
        {"prediction": np.zeros((6, 10), np.float32), "limit": 0},
    ],
)
def test_bad_predictions_are_refused(arguments):
    with pytest.raises(InvalidOperand):
        detect(**arguments)


@some
@given(
    rows=st.integers(1, 5),
    classes=st.integers(1, 300),
    spread=st.sampled_from([0.1, 3.0, 60.0]),
    seed=st.integers(0, 10**6),
    data=st.data(),
)
def test_rankings_are_those_of_a_softmax(rows, classes, spread, seed, data):
    k = data.draw(st.integers(1, classes))
    logits = (np.random.default_rng(seed).standard_normal((rows, classes)) * spread).astype("f4")
    values, places = softmax_top_k(logits, k)
    exact = np.exp(logits.astype(float) - logits.max(axis=1, keepdims=True).astype(float))
    exact /= exact.sum(axis=1, keepdims=True)
    want = np.argsort(-logits, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(places, want)
    np.testing.assert_allclose(values, np.take_along_axis(exact, want, 1), rtol=3e-6, atol=1e-30)


def test_equal_logits_keep_their_order():
    values, places = softmax_top_k(np.zeros((1, 200), np.float32), 3)
    assert places.tolist() == [[0, 1, 2]]
    np.testing.assert_allclose(values, 1 / 200, rtol=1e-6)


def test_nan_makes_its_row_nan():
    logits = np.zeros((2, 40), np.float32)
    logits[1, 7] = np.nan
    values, _ = softmax_top_k(logits, 2)
    assert np.isnan(values[1]).all()
    assert not np.isnan(values[0]).any()


@pytest.mark.parametrize("k", [0, 6])
def test_k_out_of_range_is_refused(k):
    with pytest.raises(InvalidOperand):
        softmax_top_k(np.zeros((2, 5), np.float32), k)


@some
@given(
    counts=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    spare=st.integers(0, 4),
    dtype=st.sampled_from(["f4", "i8", "u1"]),
)
def test_scatter_undoes_gather(counts, spare, dtype):
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 100, (count, 3, 2)).astype(dtype) for count in counts]
    batch = gather(parts, rows=sum(counts) + spare)
    assert len(batch) == sum(counts) + spare
    assert not batch[sum(counts) :].any()
    for part, back in zip(parts, scatter(batch, counts), strict=True):
        assert (part == back).all()
        assert not np.shares_memory(back, batch)


def test_batches_that_do_not_fit_are_refused():
    part = np.zeros((2, 3), np.float32)
    for parts, rows in (([], 0), ([part, part[:, :2]], 0), ([part, part], 3)):
        with pytest.raises(InvalidOperand):
            gather(parts, rows=rows)
    with pytest.raises(InvalidOperand):
        gather([part, part.astype("f8")])
    for counts in ([3], [-1, 1]):
        with pytest.raises(InvalidOperand):
            scatter(part, counts)
