"""Changes of layout against numpy's, on odd shapes, at every instruction level."""

import itertools

import numpy as np
import pytest
from adlik_kernels import (
    InvalidOperand,
    dequantize_to_channels_first,
    from_blocked,
    quantize_to_channels_last,
    to_blocked,
    to_channels_first,
    to_channels_last,
    transpose,
)
from adlik_kernels.codegen.build import load
from adlik_kernels.configuration import target as configured_target
from adlik_kernels.machine import target
from adlik_kernels.machine.pool import shared
from adlik_kernels.operators.operands import address
from adlik_kernels.templates.grids import Grid
from adlik_kernels.templates.layouts import Blocked, Layout, layout_module
from hypothesis import given, settings
from hypothesis import strategies as st

LEVELS = target.LEVELS[: target.LEVELS.index(target.host().level) + 1]
SHAPES = [(2, 3, 5, 7), (1, 1, 4, 4), (1, 2, 9, 9), (1, 16, 4, 8), (3, 33, 1, 2), (1, 5, 1, 1)]
LARGER = [(1, 3, 33, 40), (1, 21, 20, 17), (2, 64, 6, 6)]
CODE = 4
"""Examples that compile: each takes a while."""


def draw(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    if dtype == np.uint8:
        return rng.integers(0, 256, shape).astype(np.uint8)
    return (60 * rng.standard_normal(shape)).astype(np.float32)


def levels_of(x, scale, zero):
    counted = np.rint(x / np.float32(scale)) + zero
    return np.clip(np.nan_to_num(counted, nan=0), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("dtype", [np.float32, np.uint8])
@pytest.mark.parametrize("shape", SHAPES + LARGER)
def test_there_and_back(level, dtype, shape):
    x = draw(shape, dtype)
    last = to_channels_last(x)
    np.testing.assert_array_equal(last, x.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(to_channels_first(last), x)


@settings(max_examples=CODE, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, most) for most in (3, 70, 12, 30)]),
    quantized=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_random_shapes(shape, quantized, seed):
    x = draw(shape, np.uint8 if quantized else np.float32, seed)
    last = to_channels_last(x)
    np.testing.assert_array_equal(last, x.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(to_channels_first(last), x)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 20, 9, 9)])
def test_quantized_on_the_way(level, shape):
    x = draw(shape, np.float32)
    x.flat[:4] = np.nan, np.inf, -np.inf, 0.75
    q = quantize_to_channels_last(x, 0.5, 117)
    np.testing.assert_array_equal(q, levels_of(x, 0.5, 117).transpose(0, 2, 3, 1))
    real = np.float32(0.3) * (q.transpose(0, 3, 1, 2).astype(np.float32) - 9)
    np.testing.assert_array_equal(dequantize_to_channels_first(q, 0.3, 9), real)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("channels", [3, 16, 37])
def test_blocks_of_channels(level, channels):
    x = draw((2, 5, 7, channels), np.float32)
    blocks = -(-channels // 16)
    padded = np.zeros((2, 5, 7, 16 * blocks), np.float32)
    padded[..., :channels] = x
    made = to_blocked(x)
    np.testing.assert_array_equal(
        made, padded.reshape(2, 5, 7, blocks, 16).transpose(0, 3, 1, 2, 4)
    )
    np.testing.assert_array_equal(from_blocked(made, channels), x)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("shape", [(9, 70), (3, 17, 20), (1, 5, 33, 18), (1, 4, 1, 6)])
def test_any_order_of_axes(level, shape):
    x = draw(shape, np.float32)
    for axes in itertools.permutations(range(len(shape))):
        got = transpose(x, axes)
        assert got.flags.c_contiguous
        np.testing.assert_array_equal(got, x.transpose(axes))


@settings(max_examples=30, deadline=None)
@given(
    shape=st.lists(st.integers(1, 40), min_size=2, max_size=4),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_order_of_random_axes(shape, seed):
    x = draw(shape, np.float32, seed)
    axes = np.random.default_rng(seed).permutation(len(shape))
    np.testing.assert_array_equal(transpose(x, [int(n) for n in axes]), x.transpose(axes))


def run(workload, x, out, *rest):
    """A plan's way to a kernel: addresses in a block of words."""
    machine = configured_target()
    loaded = load("test", workload, lambda: layout_module(workload, machine.lanes), machine)
    words = np.array([address(x), address(out), 0, len(x), *rest], np.int64)
    shared(2).run(loaded.address, words.tobytes(), 3)


def bordered(x, border, value):
    width = ((0, 0), (border, border), (border, border), (0, 0))
    return np.pad(x, width, constant_values=value)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("channels", [3, 20])
def test_borders_stay_as_they_are(level, channels):
    x = draw((2, channels, 5, 19), np.float32)
    grid, out = Grid(5, 19, channels, 2), np.full((2, 9, 23, channels), 77, np.float32)
    run(Layout(grid, to_last=True), x, out)
    np.testing.assert_array_equal(out, bordered(x.transpose(0, 2, 3, 1), 2, 77))
    back = np.empty_like(x)
    run(Layout(grid, to_last=False), out, back)
    np.testing.assert_array_equal(back, x)
    levels, scale, zero = np.full(out.shape, 7, np.uint8), np.float32([0.5]), np.int32([7])
    work = Layout(grid, to_last=True, last="uint8")
    run(work, x, levels, address(scale), address(zero))
    want = bordered(levels_of(x, 0.5, 7).transpose(0, 2, 3, 1), 2, 7)
    np.testing.assert_array_equal(levels, want)


def test_borders_of_blocks_stay_as_they_are():
    x = draw((2, 4, 5, 20), np.float32)
    out = np.full((2, 2, 6, 7, 16), 5, np.float32)
    run(Blocked(Grid(4, 5, 20), 1, to_blocked=True), x, out)
    np.testing.assert_array_equal(out[:, :, 1:-1, 1:-1], to_blocked(x))
    out[:, :, 1:-1, 1:-1] = 5
    assert (out == 5).all()


CALLS = {
    "to_channels_last": to_channels_last,
    "to_channels_first": to_channels_first,
    "quantize": lambda x, **out: quantize_to_channels_last(x, 0.5, 0, **out),
    "to_blocked": to_blocked,
    "transpose": lambda x, **out: transpose(x, (0, 2, 3, 1), **out),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_does_not_fit_is_refused(name):
    x = np.zeros((1, 4, 4, 4), np.float32)
    call = CALLS[name]
    result = call(x)
    read_only = np.zeros_like(result)
    read_only.setflags(write=False)
    memory = np.zeros(x.size + result.size, np.float32)
    shared_x = memory[: x.size].reshape(x.shape)
    shared_out = memory.view(result.dtype)[x.size - 1 : x.size - 1 + result.size]
    faults = [
        (x.astype(np.float64), {}),
        (x[..., ::2], {}),
        (x[0, 0], {"out": result}) if name == "transpose" else (x[0], {}),
        (x[:0], {}),
        ([1.0], {}),
        (x, {"out": result.reshape(-1)[:1]}),
        (x, {"out": read_only}),
        (shared_x, {"out": shared_out.reshape(result.shape)}),
    ]
    for operand, out in faults:
        with pytest.raises(InvalidOperand):
            call(operand, **out)


def test_axes_and_blocks_that_do_not_fit_are_refused():
    x = np.zeros((2, 3), np.float32)
    for axes in ((0,), (0, 0), (0, 2), (-1, 0)):
        with pytest.raises(InvalidOperand, match="axes"):
            transpose(x, axes)
    with pytest.raises(InvalidOperand, match="blocks"):
        from_blocked(np.zeros((1, 2, 1, 1, 16), np.float32), 33)
    with pytest.raises(InvalidOperand, match="scales"):
        quantize_to_channels_last(np.zeros((1, 1, 1, 1), np.float32), 0.0, 0)
