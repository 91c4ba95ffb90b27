"""Depthwise convolutions against a float64 reference: sizes, sides, borders, levels, refusals."""

import struct

import numpy as np
import pytest
from adlik_kernels import InvalidOperand, configuration, prepare_depthwise
from adlik_kernels.codegen.build import load
from adlik_kernels.machine import pool
from adlik_kernels.operators.operands import address
from adlik_kernels.operators.packing import pad_columns
from adlik_kernels.references import activate, conv2d_reference
from adlik_kernels.schedules.depthwise import DepthwiseSchedule, depthwise_default
from adlik_kernels.templates.depthwise import Depthwise, depthwise_module, runs_of
from adlik_kernels.templates.small import Grid
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from .levels import LEVELS
from .machines import MACHINES

sides = {
    "batch": st.integers(1, 3),
    "size": st.tuples(st.integers(1, 19), st.integers(1, 19)),
    "channels": st.integers(1, 40),
    "window": st.tuples(st.integers(1, 5), st.integers(1, 5)),
    "stride": st.tuples(st.integers(1, 3), st.integers(1, 3)),
    "padding": st.tuples(st.integers(0, 3), st.integers(0, 3)),
}


def fits(size, window, padding):
    return all(s + 2 * p >= w for s, w, p in zip(size, window, padding, strict=True))


def operands(seed, shape, window):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape).astype(np.float32)
    return rng, x, rng.standard_normal((shape[-1], 1, *window)).astype(np.float32)


@settings(max_examples=12, deadline=None)
@given(**sides)
def test_random_sizes(batch, size, channels, window, stride, padding):
    assume(fits(size, window, padding))
    _, x, w = operands(1, (batch, *size, channels), window)
    got = prepare_depthwise(w, size, stride=stride, padding=padding)(x)
    want = conv2d_reference(x, w, stride, padding, channels)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("stride", [1, 2])
def test_fused_ends_at_all_levels(level, stride):
    rng, x, w = operands(2, (2, 16, 11, 21), (3, 3))
    bias = rng.standard_normal(21).astype(np.float32)
    steps = {"stride": (stride, stride), "padding": (1, 1)}
    real = conv2d_reference(x, w, *steps.values(), 21) + bias
    for activation in ("relu6", "silu"):
        got = prepare_depthwise(w, (16, 11), bias, activation, **steps)(x)
        np.testing.assert_allclose(got, activate(activation, real), rtol=1e-4, atol=1e-4)


def run(workload, schedule, arrays, chunks):
    machine = configuration.target()
    facts = (workload, schedule)
    code = load("depthwise", facts, lambda: depthwise_module(workload, machine, schedule), machine)
    x, out, w, bias = arrays
    words = struct.pack("5q", address(x), address(out), address(w), len(x), address(bias))
    pool.shared(2).run(code.address, words, chunks)


@settings(max_examples=12, deadline=None)
@given(
    rows=st.integers(1, 5),
    pixels=st.integers(1, 9),
    border=st.integers(0, 2),
    padding=st.integers(0, 2),
    stride=st.integers(1, 2),
    chunks=st.integers(1, 7),
)
def test_any_tile_and_any_border(rows, pixels, border, padding, stride, chunks):
    """A border is read as zeros if it is there, and the result's is left alone."""
    size, channels = (9, 12), 19
    _, x, w = operands(3, (2, *size, channels), (3, 3))
    want = conv2d_reference(x, w, (stride, stride), (padding, padding), channels) + 0.5
    height, width = want.shape[1:3]
    x = np.pad(x, ((0, 0), (border, border), (border, border), (0, 0)))
    out = np.full((2, height + 2, width + 2, channels), np.float32(7))
    workload = Depthwise(
        Grid(*size, channels, border),
        Grid(height, width, channels, 1),
        window=(3, 3),
        stride=(stride, stride),
        padding=(padding, padding),
        activation="",
    )
    packed = np.ascontiguousarray(w[:, 0].transpose(1, 2, 0))
    schedule = DepthwiseSchedule(min(rows, height), pixels)
    run(workload, schedule, (x, out, packed, pad_columns(0.5, channels)), chunks)
    inside = (slice(None), slice(1, -1), slice(1, -1))
    np.testing.assert_allclose(out[inside], want, rtol=1e-4, atol=1e-4)
    out[inside] = 7
    assert (out == 7).all()


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize(("size", "channels"), [((7, 7), 33), ((4, 9), 3)])
def test_nothing_outside_is_touched(level, size, channels, guarded):
    """x and the result end at a page that may not be read."""
    _, given_x, w = operands(4, (1, *size, channels), (3, 3))
    x, out = (guarded(given_x.shape, np.float32) for _ in range(2))
    x[...] = given_x
    prepare_depthwise(w, size, padding=(1, 1))(x, out=out)
    want = conv2d_reference(x, w, (1, 1), (1, 1), channels)
    np.testing.assert_allclose(out, want, rtol=1e-4, atol=1e-4)


def test_a_nan_reaches_its_window_alone():
    _, x, w = operands(5, (1, 12, 12, 20), (3, 3))
    x[0, 5, 6, 3] = np.nan
    got = prepare_depthwise(w, (12, 12), padding=(1, 1))(x)
    want = conv2d_reference(x, w, (1, 1), (1, 1), 20)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))


@given(**sides, pixels=st.integers(1, 14))
def test_runs_cover_a_row(batch, size, channels, window, stride, padding, pixels):
    assume(fits(size, window, padding))
    width = (size[1] + 2 * padding[1] - window[1]) // stride[1] + 1
    shape = (window, stride, padding)
    workload = Depthwise(Grid(*size, channels), Grid(1, width, channels), *shape, "")
    covered = 0
    for tiles in runs_of(workload, pixels):
        assert tiles.first == covered
        covered += tiles.pixels * tiles.count
        start = tiles.first * stride[1] - padding[1]
        assert all(0 <= start + column < size[1] for column in tiles.columns)
    assert covered == width


def test_a_tile_is_no_higher_than_the_picture():
    for machine in MACHINES.values():
        for height in range(1, 20):
            for touched in (1000, 10**9):
                tile = depthwise_default((height, 9), touched, (1, 1), machine)
                assert 1 <= tile.rows <= height


def test_bad_operands_are_refused():
    _, x, w = operands(6, (1, 8, 8, 4), (3, 3))
    layer = prepare_depthwise(w, (8, 8))
    frozen = np.zeros((1, 6, 6, 4), np.float32)
    frozen.flags.writeable = False
    faults = (
        {"x": x[:, :7]},
        {"x": x.astype(np.float64)},
        {"x": x.transpose(0, 2, 1, 3)},
        {"x": x[:0]},
        {"x": x, "out": frozen},
        {"x": x, "out": frozen[..., :3]},
        {"x": x, "out": x.reshape(-1)[:144].reshape(1, 6, 6, 4)},
    )
    for fault in faults:
        with pytest.raises(InvalidOperand):
            layer(**fault)
    wrong = (
        {"w": w, "size": (2, 8)},
        {"w": w, "size": (8, 8), "bias": np.zeros(5, np.float32)},
        {"w": w, "size": (8, 8), "stride": (0, 1)},
        {"w": w, "size": (8, 8), "activation": "step"},
        {"w": np.zeros((4, 2, 3, 3), np.float32), "size": (8, 8)},
    )
    for fault in wrong:
        with pytest.raises(InvalidOperand):
            prepare_depthwise(**fault)
