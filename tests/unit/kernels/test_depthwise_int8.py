"""Depthwise convolutions of bytes: exact sums, quantized ends, sides, levels, refusals."""

import numpy as np
import pytest
from adlik_kernels import InvalidOperand, Quantization, prepare_depthwise_int8
from adlik_kernels.references import activate, conv2d_reference
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from .levels import LEVELS

EXACT = Quantization(1.0, 0, 1.0)


def operands(seed, shape, window):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, shape).astype(np.uint8)
    return rng, x, rng.integers(-128, 128, (shape[-1], 1, *window)).astype(np.int8)


@settings(max_examples=8, deadline=None)
@given(
    batch=st.integers(1, 2),
    size=st.tuples(st.integers(1, 15), st.integers(1, 15)),
    channels=st.integers(1, 40),
    window=st.tuples(st.integers(1, 6), st.integers(1, 5)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    zero=st.integers(0, 255),
)
def test_random_sizes(batch, size, channels, window, stride, padding, zero):
    """With scales of 1 and a zero of 0 every sum is a whole number, and must be that very one."""
    assume(all(s + 2 * p >= w for s, w, p in zip(size, window, padding, strict=True)))
    _, x, w = operands(1, (batch, *size, channels), window)
    sides = {"stride": stride, "padding": padding}
    got = prepare_depthwise_int8(w, size, EXACT, **sides)(x)
    want = conv2d_reference(x, w, stride, padding, channels)
    np.testing.assert_array_equal(got, want)
    got = prepare_depthwise_int8(w, size, Quantization(1.0, zero, 1.0), **sides)(x)
    want = conv2d_reference(x.astype(np.int64) - zero, w, stride, padding, channels)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
def test_extreme_sums_do_not_saturate(level):
    for weight in (-128, 127):
        x, w = np.full((1, 9, 9, 20), 255, np.uint8), np.full((20, 1, 5, 5), weight, np.int8)
        got = prepare_depthwise_int8(w, (9, 9), EXACT)(x)
        np.testing.assert_array_equal(got, np.full((1, 5, 5, 20), 255 * weight * 25))


@pytest.mark.parametrize("level", LEVELS, indirect=True)
def test_quantized_ends_at_all_levels(level):
    rng, x, w = operands(2, (2, 11, 10, 37), (3, 3))
    bias = rng.standard_normal(37).astype(np.float32)
    scale = rng.uniform(0.001, 0.01, 37).astype(np.float32)
    sides = {"stride": (2, 1), "padding": (1, 1)}
    sums = conv2d_reference(x.astype(np.int64) - 100, w, *sides.values(), 37)
    real = activate("hardswish", sums * (0.02 * scale.astype(float)) + bias)
    plain = Quantization(0.02, 100, scale)
    got = prepare_depthwise_int8(w, (11, 10), plain, bias, "hardswish", **sides)(x)
    np.testing.assert_allclose(got, real, rtol=1e-5, atol=1e-4)
    step = float(real.max() / 200)
    levels = Quantization(0.02, 100, scale, out_scale=step, out_zero=7)
    got = prepare_depthwise_int8(w, (11, 10), levels, bias, "hardswish", **sides)(x)
    difference = np.abs(got.astype(int) - np.clip(np.rint(real / step) + 7, 0, 255))
    assert got.dtype == np.uint8
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize("channels", [3, 16, 21])
def test_nothing_outside_is_touched(channels, guarded):
    _, given_x, w = operands(3, (1, 6, 9, channels), (3, 3))
    x, out = guarded(given_x.shape, np.uint8), guarded(given_x.shape, np.uint8)
    x[...] = given_x
    levels = Quantization(1.0, 0, 1.0, out_scale=300.0, out_zero=128)
    prepare_depthwise_int8(w, (6, 9), levels, padding=(1, 1))(x, out=out)
    real = conv2d_reference(x, w, (1, 1), (1, 1), channels) / 300
    want = np.clip(np.rint(real) + 128, 0, 255)
    assert np.abs(out - want).max() <= 1


def test_bad_operands_are_refused():
    _, x, w = operands(4, (1, 8, 8, 4), (3, 3))
    layer = prepare_depthwise_int8(w, (8, 8), EXACT)
    faults = (
        {"x": x[:, :7]},
        {"x": x.astype(np.int8)},
        {"x": x.transpose(0, 2, 1, 3)},
        {"x": x, "out": np.zeros((1, 6, 6, 4), np.uint8)},
        {"x": x, "out": np.zeros((1, 6, 6, 3), np.float32)},
    )
    for fault in faults:
        with pytest.raises(InvalidOperand):
            layer(**fault)
    wrong = (
        {"w": w.astype(np.float32)},
        {"quantization": Quantization(1.0, 256, 1.0)},
        {"quantization": Quantization(1.0, 0, -1.0)},
        {"bias": np.zeros(5, np.float32)},
        {"size": (2, 8)},
    )
    for fault in wrong:
        with pytest.raises(InvalidOperand):
            prepare_depthwise_int8(**{"w": w, "size": (8, 8), "quantization": EXACT, **fault})
