"""Rows looked up and joined in bags against numpy."""

import numpy as np
import pytest
from adlik_kernels import InvalidOperand, configure, embedding, embedding_bag
from hypothesis import given, settings
from hypothesis import strategies as st

from .levels import LEVELS

COLUMNS = (1, 20, 64, 400)


def draw(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def joined(table, indices, offsets, weights=None, mode="sum"):
    result = np.zeros((len(offsets), table.shape[1]))
    for number, (start, stop) in enumerate(zip(offsets, [*offsets[1:], None], strict=True)):
        rows = table[indices[start:stop]].astype(np.float64)
        if weights is not None:
            rows = rows * weights[start:stop, None]
        if len(rows):
            result[number] = {"sum": rows.sum, "mean": rows.mean, "max": rows.max}[mode](axis=0)
    return result


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any),
    columns=st.sampled_from(COLUMNS),
    mode=st.sampled_from(["sum", "mean", "max", "weighted"]),
    dtype=st.sampled_from([np.int32, np.int64]),
    seed=st.integers(0, 2**32 - 1),
)
def test_bags_of_any_size(sizes, columns, mode, dtype, seed):
    rng = np.random.default_rng(seed)
    table, lookups = draw(rng, 37, columns), sum(sizes)
    indices = rng.integers(0, 37, lookups).astype(dtype)
    offsets = np.cumsum([0, *sizes[:-1]]).astype(dtype)
    weights = draw(rng, lookups) if mode == "weighted" else None
    mode = "sum" if mode == "weighted" else mode
    got = embedding_bag(table, indices, offsets, weights, mode)
    np.testing.assert_allclose(got, joined(table, indices, offsets, weights, mode), atol=1e-5)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("columns", [5, 97])
def test_levels_agree_and_nothing_else_is_touched(level, dtype, columns, guarded):
    rng = np.random.default_rng(columns)
    table, out = guarded((9, columns), np.float32), guarded((3, columns), np.float32)
    table[...] = draw(rng, 9, columns)
    indices, offsets = guarded((21,), dtype), guarded((3,), dtype)
    indices[...], offsets[...] = rng.integers(0, 9, 21), (0, 4, 4)
    indices[-1] = 8
    assert embedding_bag(table, indices, offsets, out=out) is out
    np.testing.assert_allclose(out, joined(table, indices, offsets), atol=1e-5)
    rows = guarded((21, columns), np.float32)
    assert embedding(table, indices, rows) is rows
    np.testing.assert_array_equal(rows, table[indices])


def test_indices_of_any_shape_are_looked_up():
    rng = np.random.default_rng(0)
    table = draw(rng, 50, 64)
    for shape in ((), (1,), (4, 7), (2, 3, 5)):
        indices = np.asarray(rng.integers(0, 50, shape))
        np.testing.assert_array_equal(embedding(table, indices), table[indices])


def test_bags_of_one_size_need_no_offsets():
    rng = np.random.default_rng(1)
    table, indices = draw(rng, 50, 64), rng.integers(0, 50, (6, 5))
    weights = draw(rng, 6, 5)
    want = (table[indices].astype(np.float64) * weights[..., None]).sum(axis=1)
    np.testing.assert_allclose(embedding_bag(table, indices, None, weights), want, atol=1e-5)


def test_a_nan_is_the_maximum_of_its_bag_alone():
    table = draw(np.random.default_rng(2), 4, 20)
    table[1, 3] = np.nan
    indices = np.array([0, 1, 2, 0, 2, 1, 0])
    got = embedding_bag(table, indices, np.array([0, 3, 5]), mode="max")
    want = np.zeros_like(got)
    want[[0, 2], 3] = np.nan
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))


def test_threads_change_nothing():
    rng = np.random.default_rng(3)
    table, indices = draw(rng, 1000, 64), rng.integers(0, 1000, 9000)
    offsets = np.sort(np.r_[0, rng.integers(0, 9000, 300)])
    results = []
    for threads in (1, 2):
        configure(threads=threads)
        results.append((embedding_bag(table, indices, offsets), embedding(table, indices)))
    configure(threads=0)
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("wrong", [-1, 10, "lowest", "highest"])
@pytest.mark.parametrize("place", [0, 12, 40])
def test_indices_that_are_no_row_are_refused(dtype, wrong, place):
    table, indices = np.ones((10, 4), np.float32), np.zeros(41, dtype)
    info = np.iinfo(dtype)
    indices[place] = {"lowest": info.min, "highest": info.max}.get(wrong, wrong)
    out = np.full((41, 4), 5.0, np.float32)
    with pytest.raises(InvalidOperand, match=f"index {indices[place]} is no row"):
        embedding(table, indices, out)
    with pytest.raises(InvalidOperand, match="is no row"):
        embedding_bag(table, indices, np.zeros(1, dtype), out=out[:1])
    assert (out == 5.0).all()


@pytest.mark.parametrize("offsets", [[1, 3], [0, 8], [0, 3, 2], [-1, 2], [0, -1]])
def test_offsets_that_make_no_bags_are_refused(offsets):
    table, indices = np.ones((10, 4), np.float32), np.zeros(7, np.int64)
    with pytest.raises(InvalidOperand, match="into bags"):
        embedding_bag(table, indices, np.array(offsets))


def test_bad_operands_are_refused():
    table, indices = np.ones((10, 4), np.float32), np.zeros(6, np.int64)
    good = {"table": table, "indices": indices, "offsets": np.zeros(1, np.int64)}
    bad = [
        {"table": table.astype("f8")},
        {"table": table.T},
        {"table": table[0]},
        {"indices": indices.astype(np.uint64)},
        {"indices": indices.astype("f4")},
        {"indices": indices[::2]},
        {"indices": indices[:0]},
        {"indices": [0, 1]},
        {"offsets": None},
        {"offsets": np.zeros(1, np.int32)},
        {"offsets": np.zeros(0, np.int64)},
        {"indices": indices.reshape(2, 3)},
        {"weights": np.ones(5, np.float32)},
        {"weights": np.ones(6, np.float32), "mode": "mean"},
        {"mode": "product"},
        {"out": np.ones((2, 4), np.float32)},
        {"out": table[:1]},
    ]
    for changed in bad:
        with pytest.raises(InvalidOperand):
            embedding_bag(**{**good, **changed})
