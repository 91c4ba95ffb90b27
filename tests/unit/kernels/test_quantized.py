"""Quantization, sums and tables of levels against numpy, at every instruction level."""

import numpy as np
import pytest
from adlik_kernels import InvalidOperand, Levels, add_quantized, dequantize, look_up, quantize
from adlik_kernels.codegen.build import load
from adlik_kernels.configuration import target as configured_target
from adlik_kernels.machine.pool import shared
from adlik_kernels.operators.operands import address
from adlik_kernels.templates.grids import Grid
from adlik_kernels.templates.quantized import (
    AddQuantized,
    Dequantize,
    LookUp,
    Quantize,
    quantized_module,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from .levels import LEVELS

LOWEST = {"uint8": 0, "int8": -128}
SPECIAL = [np.nan, np.inf, -np.inf, 1e30, -1e30, 0.0, -0.0, 1.25, 1.75, -1.25]
some = settings(max_examples=40, deadline=None)


def reals(count, seed=0):
    """Numbers of all sizes, halves between levels and numbers that are none."""
    rng = np.random.default_rng(seed)
    x = (40 * rng.standard_normal(count)).astype(np.float32)
    halves = rng.random(count) < 0.3
    x[halves] = rng.integers(-300, 300, halves.sum()) * np.float32(0.25)
    x[: len(SPECIAL)] = SPECIAL[:count]
    return rng.permutation(x)


def plain_quantize(x, scale, zero, dtype):
    low = LOWEST[dtype]
    with np.errstate(invalid="ignore"):
        counted = np.rint(x / np.float32(scale)) + zero
    return np.clip(np.nan_to_num(counted, nan=low), low, low + 255).astype(dtype)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_levels_of_any_number_of_numbers(level, dtype):
    for count in (1, 2, 15, 16, 17, 63, 64, 65, 127, 129, 200, 1000):
        x = reals(count, count)
        zero = LOWEST[dtype] + 117
        q = quantize(x, 0.5, zero, dtype)
        np.testing.assert_array_equal(q, plain_quantize(x, 0.5, zero, dtype))
        real = np.float32(0.5) * (q.astype(np.float32) - zero)
        np.testing.assert_array_equal(dequantize(q, 0.5, zero), real)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_scales_along_an_axis(level, axis, dtype):
    rng = np.random.default_rng(1)
    x = reals(5 * 7 * 37).reshape(5, 7, 37)
    scale = rng.uniform(0.1, 2, x.shape[axis]).astype(np.float32)
    zero = (LOWEST[dtype] + rng.integers(0, 256, x.shape[axis])).astype(dtype)
    across = [1, 1, 1]
    across[axis] = -1
    scales, zeros = scale.reshape(across), zero.astype(np.int64).reshape(across)
    q = quantize(x, scale, zero, dtype, axis)
    np.testing.assert_array_equal(q, plain_quantize(x, scales, zeros, dtype))
    real = scales * (q.astype(np.float32) - zeros.astype(np.float32))
    np.testing.assert_array_equal(dequantize(q, scale, zero, axis), real)


@some
@given(
    count=st.integers(1, 5000),
    scale=st.floats(1e-3, 1e3),
    zero=st.integers(0, 255),
    seed=st.integers(0, 2**32 - 1),
)
def test_levels_survive_the_way_there_and_back(count, scale, zero, seed):
    q = np.random.default_rng(seed).integers(0, 256, count).astype(np.uint8)
    real = dequantize(q, scale, zero)
    np.testing.assert_array_equal(quantize(real, scale, zero), q)
    np.testing.assert_array_equal(real < 0, q < zero)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("relu", [False, True])
def test_sums_of_levels(level, relu):
    rng = np.random.default_rng(2)
    x, y, made = Levels(0.021, 10), Levels(0.05, 100), Levels(0.06, 40)
    for count in (1, 70, 3001):
        a, b = rng.integers(0, 256, (2, count)).astype(np.uint8)
        exact = x.scale * (a.astype(float) - x.zero) + y.scale * (b.astype(float) - y.zero)
        steps = (np.maximum(exact, 0) if relu else exact) / made.scale
        want = np.clip(np.rint(steps) + made.zero, 0, 255)
        got = add_quantized(a, b, (x, y, made), relu=relu)
        # Sums that lie between two levels may become either.
        near = np.abs(steps - np.floor(steps) - 0.5) < 1e-4
        np.testing.assert_array_equal(got[~near], want[~near])
        assert np.abs(got - want).max() <= 1


@pytest.mark.parametrize("level", LEVELS, indirect=True)
def test_tables(level):
    rng = np.random.default_rng(3)
    table = rng.integers(0, 256, 256).astype(np.uint8)
    np.testing.assert_array_equal(look_up(np.arange(256, dtype=np.uint8), table), table)
    for count in (1, 31, 64, 500):
        x = rng.integers(0, 256, count).astype(np.uint8)
        np.testing.assert_array_equal(look_up(x, table), table[x])


def bordered(shape, border, dtype, value):
    height, width, channels = shape
    return np.full((2, height + 2 * border, width + 2 * border, channels), value, dtype)


def inner(array, border):
    return array[:, border : array.shape[1] - border, border : array.shape[2] - border]


def run(workload, *words):
    machine = configured_target()
    loaded = load("test", workload, lambda: quantized_module(workload, machine), machine)
    shared(2).run(loaded.address, np.array(words, np.int64).tobytes(), 3)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("each", ["array", "number"])
def test_from_grid_to_grid(level, each):
    shape = (3, 5, 21)
    first, second = Grid(*shape, 1), Grid(*shape, 2)
    x, q, back = (
        bordered(shape, border, dtype, 9)
        for border, dtype in ((1, np.float32), (2, np.uint8), (1, np.float32))
    )
    inner(x, 1)[...] = reals(2 * 3 * 5 * 21).reshape(2, *shape)
    count = 21 if each == "number" else 1
    scale = np.linspace(0.2, 0.9, count, dtype=np.float32)
    zero = np.arange(100, 100 + count, dtype=np.int32)
    rest = (0, 2, address(scale), address(zero))
    run(Quantize(first, second, "uint8", each), address(x), address(q), *rest)
    want = plain_quantize(inner(x, 1), scale, zero, "uint8")
    np.testing.assert_array_equal(inner(q, 2), want)
    run(Dequantize(second, first, "uint8", each), address(q), address(back), *rest)
    real = scale * (want.astype(np.float32) - zero.astype(np.float32))
    np.testing.assert_array_equal(inner(back, 1), real)
    for array, border in ((q, 2), (back, 1)):
        inner(array, border)[...] = 9
        assert (array == 9).all()


@pytest.mark.parametrize("level", LEVELS, indirect=True)
def test_sums_and_tables_from_grid_to_grid(level):
    shape, rng = (3, 5, 21), np.random.default_rng(4)
    first, second = Grid(*shape, 1), Grid(*shape)
    x, y, out = (bordered(shape, border, np.uint8, 9) for border in (1, 0, 1))
    inner(x, 1)[...], y[...] = rng.integers(0, 256, (2, 2, *shape))
    ratios, zeros = np.float32([1, 2]), np.int32([3, 4, 5, 5])
    words = address(x), address(out), address(y), 2, address(ratios), address(zeros)
    run(AddQuantized(first, second, first), *words)
    total = (inner(x, 1).astype(int) - 3) + 2 * (y.astype(int) - 4)
    np.testing.assert_array_equal(inner(out, 1), np.clip(total + 5, 5, 255))
    table = rng.integers(0, 256, 256).astype(np.uint8)
    run(LookUp(first, first), address(x), address(out), address(table), 2)
    np.testing.assert_array_equal(inner(out, 1), table[inner(x, 1)])
    inner(out, 1)[...] = 9
    assert (out == 9).all()


def test_shared_calls_say_the_same():
    x = reals(300_001)
    np.testing.assert_array_equal(quantize(x, 0.25, 3), plain_quantize(x, 0.25, 3, "uint8"))


def test_what_does_not_fit_is_refused():
    x, q = np.zeros((4, 4), np.float32), np.zeros((4, 4), np.uint8)
    one, table = Levels(1.0, 0), np.zeros(256, np.uint8)
    read_only = np.zeros((4, 4), np.uint8)
    read_only.setflags(write=False)
    faults = [
        lambda: quantize(x.astype(np.float64), 1.0, 0),
        lambda: quantize(x[:, ::2], 1.0, 0),
        lambda: quantize([1.0], 1.0, 0),
        lambda: quantize(x[:0], 1.0, 0),
        lambda: quantize(x, 1.0, 0, "int16"),
        lambda: quantize(x, 0.0, 0),
        lambda: quantize(x, np.inf, 0),
        lambda: quantize(x, 1e-60, 0),
        lambda: quantize(x, 1.0, 256),
        lambda: quantize(x, 1.0, 200, "int8"),
        lambda: quantize(x, 1.0, 0.5),
        lambda: quantize(x, [1.0, 2.0], 0),
        lambda: quantize(x, [1.0, 2.0], 0, axis=1),
        lambda: quantize(x, 1.0, 0, axis=2),
        lambda: quantize(x, 1.0, 0, out=read_only),
        lambda: quantize(x, 1.0, 0, out=q[:2]),
        lambda: quantize(x, 1.0, 0, out=x.reshape(-1).view(np.uint8)[:16].reshape(4, 4)),
        lambda: dequantize(x, 1.0, 0),
        lambda: dequantize(q.astype(np.int32), 1.0, 0),
        lambda: add_quantized(q, q[:2], (one, one, one)),
        lambda: add_quantized(q, q.copy(), (one, one, one), out=q),
        lambda: look_up(q, table[:255]),
        lambda: look_up(q, q.reshape(-1)),
        lambda: look_up(q, table, out=q),
        lambda: look_up(q, table, out=table[:16].reshape(4, 4)),
        lambda: Levels(0.0, 0),
        lambda: Levels(1.0, -1),
    ]
    for number, call in enumerate(faults):
        with pytest.raises(InvalidOperand):
            pytest.fail(f"fault {number} passed: {call()}")
