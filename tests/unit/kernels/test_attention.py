"""Attention against a plain float64 softmax, on odd sizes, views and masks, at every level."""

import math

import numpy as np
import pytest
from adlik_kernels import InvalidOperand, attention, configure
from hypothesis import given, settings
from hypothesis import strategies as st

from .levels import LEVELS

KINDS = ((32, ""), (20, "keys"), (7, "scores"), (80, "keys"))
"""Depths of heads with masks: few, for each pair is a kernel of its own."""


def draw(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def reference(q, k, v, heads, mask=None, scale=None):
    """softmax(scale q kᵀ + mask) v in float64; NaN where every key is hidden."""
    batch, tokens, columns = q.shape
    depth = columns // heads

    def apart(x):
        return x.astype(np.float64).reshape(batch, -1, heads, depth).transpose(0, 2, 1, 3)

    with np.errstate(invalid="ignore"):
        scores = apart(q) @ apart(k).transpose(0, 1, 3, 2)
        scores *= 1 / math.sqrt(depth) if scale is None else scale
        if mask is not None:
            scores += mask.reshape(batch, -1, 1 if mask.ndim == 2 else tokens, mask.shape[-1])
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        result = weights @ apart(v)
    return result.transpose(0, 2, 1, 3).reshape(batch, tokens, columns)


def masked(rng, kind, batch, tokens, keys):
    """Numbers to add, with some keys hidden but never all of them."""
    if not kind:
        return None
    shape = (batch, keys) if kind == "keys" else (batch, tokens, keys)
    mask = np.where(rng.random(shape) < 0.3, -np.inf, draw(rng, *shape)).astype(np.float32)
    mask[..., rng.integers(keys)] = 0.0
    return mask


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=4e-6)


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    batch=st.integers(1, 3),
    tokens=st.integers(1, 140),
    keys=st.integers(1, 260),
    heads=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_random_sizes(kind, batch, tokens, keys, heads, seed):
    depth, mask = kind
    rng = np.random.default_rng(seed)
    q, k, v = (draw(rng, batch, rows, heads * depth) for rows in (tokens, keys, keys))
    mask = masked(rng, mask, batch, tokens, keys)
    close(attention(q, k, v, heads, mask), reference(q, k, v, heads, mask))


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize(("depth", "mask"), KINDS[:3])
@pytest.mark.parametrize(("tokens", "keys"), [(1, 1), (16, 16), (37, 203)])
def test_levels_agree_with_the_reference(level, depth, mask, tokens, keys):
    rng = np.random.default_rng(tokens)
    q, k, v = (draw(rng, 2, rows, 2 * depth) for rows in (tokens, keys, keys))
    mask = masked(rng, mask, 2, tokens, keys)
    close(attention(q, k, v, 2, mask), reference(q, k, v, 2, mask))


def test_thirds_of_one_product_need_no_copy():
    rng = np.random.default_rng(1)
    joined = draw(rng, 2, 21, 3 * 64)
    q, k, v = (joined[..., 64 * n : 64 * (n + 1)] for n in range(3))
    want = reference(q, k, v, 2)
    close(attention(q, k, v, 2), want)
    out = np.empty((2, 21, 64), np.float32)
    assert attention(q, k, v, 2, out=out) is out
    close(out, want)
    # Rows from the end, and one batch for all, are views as well.
    close(attention(q[:, ::-1], k, v, 2), want[:, ::-1])
    same = np.broadcast_to(k[:1], k.shape)
    close(attention(q, same, v, 2), reference(q, same, v, 2))


def test_each_head_may_have_a_mask_of_its_own():
    rng = np.random.default_rng(10)
    q, k, v = (draw(rng, 2, rows, 3 * 7) for rows in (19, 23, 23))
    mask = draw(rng, 2, 3, 19, 23)
    close(attention(q, k, v, 3, mask), reference(q, k, v, 3, mask))
    same = np.broadcast_to(mask[:1, :1], mask.shape)
    close(attention(q, k, v, 3, same), reference(q, k, v, 3, same))


def test_threads_change_nothing():
    rng = np.random.default_rng(2)
    q, k, v = (draw(rng, 3, 150, 96) for _ in range(3))
    results = []
    for threads in (1, 2, 3):
        configure(threads=threads)
        results.append(attention(q, k, v, 3))
    configure(threads=0)
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_growing_scores_are_corrected_for():
    """The largest score comes last, block after block, and is far above the first."""
    rng = np.random.default_rng(3)
    q, v = np.ones((1, 3, 32), np.float32), draw(rng, 1, 700, 32)
    k = np.repeat(np.linspace(0, 20, 700, dtype=np.float32), 32).reshape(1, 700, 32)
    np.testing.assert_allclose(attention(q, k, v, 1), reference(q, k, v, 1), rtol=3e-4, atol=1e-4)


def test_large_scores_do_not_overflow():
    rng = np.random.default_rng(4)
    q, k = (30 * draw(rng, 1, 9, 32) for _ in range(2))
    v = draw(rng, 1, 9, 32)
    close(attention(q, k, v, 1, scale=1.0), reference(q, k, v, 1, scale=1.0))


def test_a_query_without_any_key_is_nan_and_others_are_not():
    rng = np.random.default_rng(5)
    q, k, v = (draw(rng, 1, rows, 7) for rows in (5, 300, 300))
    mask = np.zeros((1, 5, 300), np.float32)
    mask[0, 2] = -np.inf
    mask[0, 3, :-1] = -np.inf
    got = attention(q, k, v, 1, mask)
    assert np.isnan(got[0, 2]).all()
    close(np.delete(got, 2, 1), np.delete(reference(q, k, v, 1, mask), 2, 1))
    np.testing.assert_allclose(got[0, 3], v[0, -1], rtol=1e-6)


def test_hidden_keys_have_no_weight_at_all():
    rng = np.random.default_rng(6)
    q, k, v = (draw(rng, 1, 20, 20) for _ in range(3))
    mask = np.zeros((1, 20), np.float32)
    mask[0, 11:] = -np.inf
    v[0, 11:] = 3e38
    want = reference(q, k[:, :11], v[:, :11], 1)
    close(attention(q, k, v, 1, mask), want)
    mask[0, 11:] = np.finfo(np.float32).min
    close(attention(q, k, v, 1, mask), want)


def test_equally_low_scores_weigh_equally():
    """All keys "hidden" by the lowest number, as some models do, are a mean and not NaN."""
    rng = np.random.default_rng(7)
    q, k, v = (draw(rng, 1, 20, 20) for _ in range(3))
    mask = np.full((1, 20), np.finfo(np.float32).min, np.float32)
    want = np.broadcast_to(v.mean(axis=1, keepdims=True), v.shape)
    close(attention(q, k, v, 1, mask), want)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_no_number_stays_in_its_query(bad):
    rng = np.random.default_rng(8)
    q, k, v = (draw(rng, 1, 70, 32) for _ in range(3))
    want = reference(q, k, v, 1)
    q[0, 33, 5] = bad
    got = attention(q, k, v, 1)
    assert np.isnan(got[0, 33]).all()
    close(np.delete(got, 33, 1), np.delete(want, 33, 1))


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize(("depth", "mask"), KINDS[1:3])
@pytest.mark.parametrize(("tokens", "keys"), [(1, 1), (17, 9)])
def test_nothing_is_read_or_written_behind_the_arrays(level, depth, mask, tokens, keys, guarded):
    rng = np.random.default_rng(9)
    q, k, v, out = (guarded((1, n, depth), np.float32) for n in (tokens, keys, keys, tokens))
    for array in (q, k, v):
        array[:] = draw(rng, *array.shape)
    drawn = masked(rng, mask, 1, tokens, keys)
    edge = guarded(drawn.shape, np.float32)
    edge[:] = drawn
    close(attention(q, k, v, 1, edge, out=out), reference(q, k, v, 1, drawn))


def good():
    q = np.zeros((2, 3, 8), np.float32)
    return {"q": q, "k": np.zeros((2, 5, 8), np.float32), "v": np.zeros((2, 5, 8), np.float32)}


@pytest.mark.parametrize(
    "changed",
    [
        {"q": np.zeros((2, 3, 8))},
        {"q": np.zeros((3, 8), np.float32)},
        {"q": [[1.0]]},
        {"q": np.zeros((2, 0, 8), np.float32)},
        {"q": np.zeros((2, 3, 16), np.float32)[..., ::2]},
        {"k": np.zeros((1, 5, 8), np.float32)},
        {"k": np.zeros((2, 5, 4), np.float32)},
        {"v": np.zeros((2, 4, 8), np.float32)},
        {"heads": 3},
        {"heads": 0},
        {"heads": 2.0},
        {"mask": np.zeros((2, 4), np.float32)},
        {"mask": np.zeros((2, 5, 3), np.float32)},
        {"mask": np.zeros((2, 1, 3, 5), np.float32)},
        {"mask": np.zeros((2, 5), bool)},
        {"scale": np.nan},
        {"out": np.zeros((2, 3, 4), np.float32)},
        {"out": np.zeros((2, 3, 16), np.float32)[..., :8]},
    ],
)
def test_bad_operands_are_refused(changed):
    with pytest.raises(InvalidOperand):
        attention(**{**good(), "heads": 2, **changed})


def test_results_over_operands_or_too_deep_heads_are_refused():
    operands = good()
    with pytest.raises(InvalidOperand, match="shares memory"):
        attention(**operands, heads=2, out=operands["q"])
    frozen = np.zeros((2, 3, 8), np.float32)
    frozen.setflags(write=False)
    with pytest.raises(InvalidOperand, match="read-only"):
        attention(**operands, heads=2, out=frozen)
    deep = np.zeros((1, 1, 257), np.float32)
    with pytest.raises(InvalidOperand, match="at most"):
        attention(deep, deep, deep, 1)
