"""Pooling against plain loops over windows, at every instruction level."""

import numpy as np
import pytest
from adlik_kernels import InvalidOperand, Levels, average_pool, global_average_pool, max_pool
from adlik_kernels.codegen.build import load
from adlik_kernels.configuration import target as configured_target
from adlik_kernels.machine.pool import shared
from adlik_kernels.operators.operands import address
from adlik_kernels.templates.grids import Grid
from adlik_kernels.templates.pooling import Pool, pool_module
from hypothesis import given, settings
from hypothesis import strategies as st

from .levels import LEVELS

CASES = [
    # shape, window, stride, padding
    ((2, 9, 11, 3), (3, 3), (2, 2), (1, 1)),
    ((1, 8, 8, 64), (2, 2), (2, 2), (0, 0)),
    ((1, 9, 10, 37), (5, 5), (1, 1), (2, 2)),
    ((1, 17, 9, 70), (3, 2), (1, 3), (0, 1)),
    ((2, 12, 13, 6), (9, 9), (3, 2), (4, 3)),
    ((1, 4, 4, 1), (1, 1), (2, 2), (0, 0)),
]
ACROSS = pytest.mark.parametrize(("shape", "window", "stride", "padding"), CASES)


def windows(x, window, stride, padding, reduce):
    """float64 [batch, rows, columns, channels] of `reduce` over each window inside the picture."""
    batch, height, width, channels = x.shape
    rows = (height + 2 * padding[0] - window[0]) // stride[0] + 1
    columns = (width + 2 * padding[1] - window[1]) // stride[1] + 1
    out = np.empty((batch, rows, columns, channels))
    for row in range(rows):
        for column in range(columns):
            top, left = row * stride[0] - padding[0], column * stride[1] - padding[1]
            inside = x[:, max(top, 0) : top + window[0], max(left, 0) : left + window[1]]
            with np.errstate(invalid="ignore"):  # the mean of both infinities
                out[:, row, column] = reduce(inside.astype(np.float64), axis=(1, 2))
    return out


def draw(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    if dtype == np.uint8:
        return rng.integers(0, 256, shape).astype(np.uint8)
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@ACROSS
def test_pools_are_those_of_plain_loops(level, shape, window, stride, padding):
    sides = {"stride": stride, "padding": padding}
    x, q = draw(shape, np.float32), draw(shape, np.uint8)
    x.flat[:: x.size // 3] = np.nan, np.inf, -np.inf, np.nan
    for given_, dtype in ((x, np.float32), (q, np.uint8)):
        want = windows(given_, window, stride, padding, np.max)
        np.testing.assert_array_equal(max_pool(given_, window, **sides), want.astype(dtype))
    want = windows(x, window, stride, padding, np.mean)
    np.testing.assert_allclose(average_pool(x, window, **sides), want, rtol=1e-5, atol=1e-6)
    exact = windows(q, window, stride, padding, np.mean)
    np.testing.assert_array_equal(average_pool(q, window, **sides), np.rint(exact))


@settings(max_examples=6, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, most) for most in (2, 15, 15, 40)]),
    window=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    seed=st.integers(0, 2**32 - 1),
)
def test_random_windows(shape, window, stride, seed):
    window = min(window[0], shape[1]), min(window[1], shape[2])
    padding = tuple(int(n) for n in np.random.default_rng(seed).integers(0, window))
    x, q = draw(shape, np.float32, seed), draw(shape, np.uint8, seed)
    sides = {"stride": stride, "padding": padding}
    got = max_pool(x, window, **sides)
    np.testing.assert_array_equal(got, windows(x, window, stride, padding, np.max))
    want = np.rint(windows(q, window, stride, padding, np.mean))
    np.testing.assert_array_equal(average_pool(q, window, **sides), want)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("shape", [(2, 7, 7, 20), (1, 20, 33, 5), (1, 1, 1, 130)])
def test_global_means(level, shape):
    x, q = draw(shape, np.float32), draw(shape, np.uint8)
    want = x.mean(axis=(1, 2), dtype=np.float64)
    np.testing.assert_allclose(global_average_pool(x), want, rtol=1e-5, atol=1e-6)
    sums = np.rint(q.mean(axis=(1, 2), dtype=np.float64))
    np.testing.assert_array_equal(global_average_pool(q), sums)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
def test_means_are_requantized(level):
    q = draw((1, 9, 9, 19), np.uint8)
    levels = Levels(0.5, 30), Levels(0.25, 100)
    exact = windows(q, (3, 3), (2, 2), (1, 1), np.mean)
    want = np.clip(np.rint(2 * (exact - 30)) + 100, 0, 255)
    got = average_pool(q, (3, 3), stride=(2, 2), padding=(1, 1), levels=levels)
    np.testing.assert_array_equal(got, want)
    assert 0 < (want == 255).mean() < 1
    means = 2 * (q.mean(axis=(1, 2), dtype=np.float64) - 30) + 100
    np.testing.assert_array_equal(
        global_average_pool(q, levels=levels), np.rint(means).clip(0, 255)
    )


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("kind", ["max", "mean"])
def test_borders_are_neither_read_nor_written(level, dtype, kind):
    shape, sides = (2, 6, 21, 18), ((3, 3), (2, 1), (1, 1))
    x = draw(shape, np.dtype(dtype))
    wide = ((0, 0), (2, 2), (2, 2), (0, 0))
    source = np.pad(x, wide, constant_values=250)
    work = Pool(Grid(6, 21, 18, 2), Grid(3, 21, 18, 1), kind, *sides, dtype)
    out = np.full((2, 5, 23, 18), 9, dtype)
    machine = configured_target()
    loaded = load("test", work, lambda: pool_module(work, machine.lanes), machine)
    ratio, zeros = np.float32([1]), np.int32([0, 0])
    words = [address(source), address(out), 0, 2, address(ratio), address(zeros)]
    shared(2).run(loaded.address, np.array(words, np.int64).tobytes(), 3)
    pooled = (max_pool if kind == "max" else average_pool)(x, (3, 3), stride=(2, 1), padding=(1, 1))
    want = np.pad(pooled, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=9)
    np.testing.assert_array_equal(out, want)


def test_what_does_not_fit_is_refused():
    x = np.zeros((1, 4, 4, 2), np.float32)
    out = np.zeros((1, 2, 2, 2), np.float32)
    out.setflags(write=False)
    memory = np.zeros(40, np.float32)
    inside = {"out": memory[31:39].reshape(1, 2, 2, 2)}
    faults = [
        (x.astype(np.float64), (2, 2), {}),
        (x[..., ::2], (2, 2), {}),
        (x[0], (2, 2), {}),
        ("x", (2, 2), {}),
        (x, (5, 2), {}),
        (x, (0, 2), {}),
        (x, (2, 2), {"stride": (0, 1)}),
        (x, (2, 2), {"padding": (2, 0)}),
        (x, (2, 2), {"padding": (-1, 0)}),
        (x, (2, 2), {"out": out}),
        (memory[:32].reshape(x.shape), (2, 2), inside),
    ]
    for operand, window, rest in faults:
        for pool in (max_pool, average_pool):
            with pytest.raises(InvalidOperand):
                pool(operand, window, **rest)
    with pytest.raises(InvalidOperand, match="levels"):
        global_average_pool(x, levels=(Levels(1.0, 0), Levels(1.0, 0)))
