"""Layer normalisation and softmax of rows against float64."""

import numpy as np
import pytest
from adlik_kernels import InvalidOperand, configure, layer_norm, softmax
from hypothesis import given, settings
from hypothesis import strategies as st

from .levels import LEVELS

COLUMNS = (1, 7, 64, 100, 384)
few = settings(max_examples=15, deadline=None)


def draw(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def normalised(x, scale, bias=None, epsilon=1e-5, residual=None):
    total = x.astype(np.float64) + (0 if residual is None else residual)
    apart = total - total.mean(-1, keepdims=True)
    result = apart / np.sqrt((apart**2).mean(-1, keepdims=True) + epsilon) * scale
    return result if bias is None else result + bias


def shares(x):
    with np.errstate(invalid="ignore"):
        weights = np.exp(x.astype(np.float64) - x.max(-1, keepdims=True))
        return weights / weights.sum(-1, keepdims=True)


@few
@given(
    rows=st.lists(st.integers(1, 6), max_size=2),
    columns=st.sampled_from(COLUMNS),
    bias=st.booleans(),
    residual=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_rows_of_any_shape_are_normalised(rows, columns, bias, residual, seed):
    rng = np.random.default_rng(seed)
    x, scale = draw(rng, *rows, columns), draw(rng, columns)
    shift = draw(rng, columns) if bias else None
    other = draw(rng, *rows, columns) if residual else None
    want = normalised(x, scale, shift, residual=other)
    np.testing.assert_allclose(layer_norm(x, scale, shift, residual=other), want, atol=2e-5)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("columns", [5, 130])
@pytest.mark.parametrize("residual", [False, True])
def test_levels_normalise_alike_and_touch_nothing_else(level, columns, residual, guarded):
    rng = np.random.default_rng(columns)
    x, other, out = (guarded((4, columns), np.float32) for _ in range(3))
    scale, bias = (guarded((columns,), np.float32) for _ in range(2))
    for array in (x, other, scale, bias):
        array[...] = draw(rng, *array.shape)
    added = other if residual else None
    want = normalised(x, scale, bias, 1e-12, added)
    assert layer_norm(x, scale, bias, 1e-12, residual=added, out=out) is out
    np.testing.assert_allclose(out, want, atol=2e-5)


def test_a_large_mean_costs_no_accuracy():
    rng = np.random.default_rng(0)
    x = draw(rng, 3, 384) + np.float32(1000)
    ones = np.ones(384, np.float32)
    np.testing.assert_allclose(layer_norm(x, ones), normalised(x, ones), atol=2e-4)


def test_equal_numbers_become_the_bias():
    bias = np.arange(64, dtype=np.float32)
    got = layer_norm(np.full((2, 64), 3.5, np.float32), np.ones(64, np.float32), bias)
    np.testing.assert_array_equal(got, np.broadcast_to(bias, (2, 64)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("call", [lambda x: layer_norm(x, np.ones(64, np.float32)), softmax])
def test_what_is_no_number_stays_in_its_row(call, bad):
    x = draw(np.random.default_rng(1), 3, 64)
    want = call(x)
    x[1, 40] = bad
    got = call(x)
    assert np.isnan(got[1, 40])
    np.testing.assert_array_equal(got[[0, 2]], want[[0, 2]])


@few
@given(
    rows=st.lists(st.integers(1, 6), max_size=2),
    columns=st.sampled_from(COLUMNS),
    spread=st.sampled_from([0.1, 3.0, 100.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_softmax_of_rows_of_any_shape(rows, columns, spread, seed):
    x = draw(np.random.default_rng(seed), *rows, columns) * np.float32(spread)
    np.testing.assert_allclose(softmax(x), shares(x), rtol=5e-6, atol=1e-37)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("columns", [1, 3, 33, 130])
def test_levels_agree_on_softmax_and_touch_nothing_else(level, columns, guarded):
    x, out = (guarded((3, columns), np.float32) for _ in range(2))
    x[...] = draw(np.random.default_rng(columns), 3, columns)
    assert softmax(x, out) is out
    np.testing.assert_allclose(out, shares(x), rtol=5e-6)


def test_hidden_numbers_have_no_share_and_nothing_but_them_is_nan():
    x = draw(np.random.default_rng(2), 2, 50)
    x[0, ::2] = -np.inf
    x[1] = -np.inf
    got = softmax(x)
    assert (got[0, ::2] == 0).all()
    np.testing.assert_allclose(got[0, 1::2], shares(x[:1, 1::2])[0], rtol=5e-6)
    assert np.isnan(got[1]).all()


def test_threads_change_nothing():
    rng = np.random.default_rng(3)
    x, scale = draw(rng, 1000, 384), draw(rng, 384)
    results = []
    for threads in (1, 2):
        configure(threads=threads)
        results.append((layer_norm(x, scale, residual=x), softmax(x)))
    configure(threads=0)
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


def test_bad_operands_are_refused():
    x, scale = np.zeros((2, 8), np.float32), np.zeros(8, np.float32)
    bad = [
        {"x": x.astype("f8")},
        {"x": np.float32(1)},
        {"x": np.zeros((), np.float32)},
        {"x": np.zeros((0, 8), np.float32)},
        {"x": np.zeros((2, 16), np.float32)[:, ::2]},
        {"scale": np.zeros(7, np.float32)},
        {"bias": np.zeros((1, 8), np.float32)},
        {"epsilon": -1.0},
        {"epsilon": float("nan")},
        {"residual": np.zeros((1, 8), np.float32)},
        {"out": x},
        {"out": np.zeros((2, 7), np.float32)},
    ]
    for changed in bad:
        with pytest.raises(InvalidOperand):
            layer_norm(**{"x": x, "scale": scale, **changed})
    for operands in ((x.astype("f8"),), (x.T,), (x[:0],), ([1.0],), (x, x), (x, scale)):
        with pytest.raises(InvalidOperand):
            softmax(*operands)
