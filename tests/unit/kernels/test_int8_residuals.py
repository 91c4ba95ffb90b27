"""Quantized residual blocks: a uint8 residual added before activation and requantization."""

import numpy as np
import pytest
from adlik_kernels import (
    InvalidOperand,
    Quantization,
    prepare_conv2d_int8,
    prepare_dense_int8,
)
from adlik_kernels.references import activate, conv2d_reference
from hypothesis import given, settings
from hypothesis import strategies as st

from .levels import LEVELS


def dense_case(rng, rows, columns, depth):
    x = rng.integers(0, 256, (rows, depth)).astype(np.uint8)
    w = rng.integers(-127, 128, (depth, columns)).astype(np.int8)
    bias = rng.standard_normal(columns).astype(np.float32)
    residual = rng.integers(0, 256, (rows, columns)).astype(np.uint8)
    real = (x.astype(float) - 9) @ w.astype(float) * np.float32(0.01) * np.float32(0.02) + bias
    return x, w, bias, residual, real


def check_levels(got, real, scale, zero):
    want = np.clip(np.rint(real / np.float64(np.float32(scale))) + zero, 0, 255)
    difference = np.abs(got.astype(int) - want)
    assert got.dtype == np.uint8
    assert difference.max() <= 1
    assert (difference > 0).sum() <= max(1, 0.01 * got.size)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("activation", ["", "relu", "relu6", "sigmoid"])
@pytest.mark.parametrize("zero", [0, 60])
def test_dense_adds_levels_before_the_activation(level, activation, zero):
    rng = np.random.default_rng(1)
    x, w, bias, residual, real = dense_case(rng, 19, 53, 31)
    scale = 0.03 if activation != "sigmoid" else 1 / 255
    levels = Quantization(0.01, 9, 0.02, scale, zero, residual_scale=0.04, residual_zero=130)
    layer = prepare_dense_int8(w, levels, bias, activation or None, residual=True)
    real = activate(activation, real + np.float32(0.04) * (residual.astype(float) - 130))
    check_levels(layer(x, residual=residual), real, scale, zero)


@settings(max_examples=12, deadline=None)
@given(
    height=st.integers(3, 9),
    width=st.integers(3, 17),
    channels=st.integers(1, 4),
    filters=st.integers(1, 70),
    window=st.sampled_from([1, 3]),
    zero=st.integers(0, 255),
    quantized=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_convolutions_add_levels(height, width, channels, filters, window, zero, quantized, seed):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (2, height, width, 4 * channels)).astype(np.uint8)
    w = rng.integers(-127, 128, (filters, 4 * channels, window, window)).astype(np.int8)
    sums = conv2d_reference(x.astype(int) - 5, w, (1, 1), (window // 2,) * 2)
    real = sums * (np.float64(np.float32(0.01)) * np.float32(0.02))
    residual = rng.integers(0, 256, sums.shape).astype(np.uint8)
    real = np.maximum(real + np.float32(0.04) * (residual.astype(float) - zero), 0)
    output = (0.02, 3) if quantized else (0.0, 0)
    levels = Quantization(0.01, 5, 0.02, *output, residual_scale=0.04, residual_zero=zero)
    layer = prepare_conv2d_int8(
        w, (height, width), levels, None, "relu", padding=(window // 2,) * 2, residual=True
    )
    got = layer(x, residual=residual)
    if quantized:
        check_levels(got, real, 0.02, 3)
    else:
        np.testing.assert_allclose(got, real, rtol=1e-5, atol=1e-4)


def test_a_float_residual_of_a_quantized_result():
    rng = np.random.default_rng(2)
    x, w, bias, _, real = dense_case(rng, 11, 37, 20)
    residual = rng.standard_normal(real.shape).astype(np.float32)
    levels = Quantization(0.01, 9, 0.02, 0.03, 40)
    layer = prepare_dense_int8(w, levels, bias, residual=True)
    check_levels(layer(x, residual=residual), real + residual, 0.03, 40)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
def test_tails_write_nothing_beside_the_result(level):
    rng = np.random.default_rng(3)
    x, w, bias, residual, _ = dense_case(rng, 1, 21, 8)
    levels = Quantization(0.01, 9, 0.02, 0.03, residual_scale=0.04)
    layer = prepare_dense_int8(w, levels, bias, "relu", residual=True)
    held = np.full((3, 21), 77, np.uint8)
    layer(x, residual=residual, out=held[1:2])
    assert (held[[0, 2]] == 77).all()
    assert (held[1] != 77).any()


def test_nan_becomes_the_lowest_level():
    levels = Quantization(1.0, 0, 1.0, 1.0, 12)
    for activation, lowest in ((None, 0), ("relu", 12)):
        layer = prepare_dense_int8(
            np.ones((4, 3), np.int8), levels, None, activation, residual=True
        )
        residual = np.full((2, 3), np.nan, np.float32)
        assert (layer(np.ones((2, 4), np.uint8), residual=residual) == lowest).all()


def test_residuals_of_the_wrong_type_are_refused():
    x, w = np.ones((2, 4), np.uint8), np.ones((4, 3), np.int8)
    levels = Quantization(1.0, 0, 1.0, 1.0, residual_scale=0.5)
    layer = prepare_dense_int8(w, levels, residual=True)
    for residual in (None, np.ones((2, 3), np.float32), np.ones((2, 4), np.uint8)):
        with pytest.raises(InvalidOperand):
            layer(x, residual=residual)
    for scale, zero in ((-1.0, 0), (float("nan"), 0), (1.0, 256)):
        wrong = Quantization(1.0, 0, 1.0, 1.0, residual_scale=scale, residual_zero=zero)
        with pytest.raises(InvalidOperand):
            prepare_dense_int8(w, wrong, residual=True)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("activation", ["", "relu", "gelu"])
@pytest.mark.parametrize("output", [(0.03, 40), (0.0, 0)])
@pytest.mark.parametrize("quantized", [False, True])
def test_sums_are_rounded_before_the_residual(level, activation, output, quantized):
    rng = np.random.default_rng(4)
    x, w, bias, residual, real = dense_case(rng, 19, 53, 31)
    added = (0.04, 130) if quantized else (0.0, 0)
    if not quantized:
        residual = rng.standard_normal(real.shape).astype(np.float32)
    levels = Quantization(0.01, 9, 0.02, *output, *added, sum_scale=0.05, sum_zero=117)
    layer = prepare_dense_int8(w, levels, bias, activation or None, residual=True)
    step = np.float64(np.float32(0.05))
    real = step * (np.clip(np.rint(real / step) + 117, 0, 255) - 117)
    other = np.float32(0.04) * (residual.astype(float) - 130) if quantized else residual
    want = activate(activation, real + other)
    got = layer(x, residual=residual)
    if output[0]:
        want = np.float32(0.03) * (np.clip(np.rint(want / np.float32(0.03)) + 40, 0, 255) - 40)
        got = np.float32(0.03) * (got.astype(float) - 40)
    # Where a sum lies between two levels, single precision may choose the other one.
    far = np.abs(got - want) > 1e-4
    assert far.sum() <= 0.01 * far.size
    assert np.abs(got - want).max() < 0.05 + 0.031
