"""int8 products: exact sums at every instruction level, and results within one level of float64."""

import numpy as np
import pytest
from adlik_kernels import InvalidOperand, Quantization, prepare_dense_int8
from adlik_kernels.references import activate, dense_reference
from hypothesis import given, settings
from hypothesis import strategies as st

from .levels import LEVELS


def operands(seed, rows, columns, depth):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (rows, depth)).astype(np.uint8)
    w = rng.integers(-128, 128, (depth, columns)).astype(np.int8)
    return rng, x, w


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("depth", [1, 3, 4, 130])
def test_sums_are_exact_even_at_the_extremes(level, depth):
    x = np.full((3, depth), 255, np.uint8)
    w = np.full((depth, 20), -128, np.int8)
    got = prepare_dense_int8(w, Quantization(1.0, 0, 1.0))(x)
    assert (got == -255 * 128 * depth).all()


@settings(max_examples=10, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 70),
    depth=st.integers(1, 90),
    zero=st.integers(0, 255),
    seed=st.integers(0, 2**32 - 1),
)
def test_random_shapes_and_zeros(rows, columns, depth, zero, seed):
    rng, x, w = operands(seed, rows, columns, depth)
    scale = rng.uniform(0.001, 0.01, columns).astype(np.float32)
    bias = rng.standard_normal(columns).astype(np.float32)
    got = prepare_dense_int8(w, Quantization(0.02, zero, scale), bias)(x)
    real = dense_reference(x.astype(np.int64) - zero, w) * (0.02 * scale.astype(np.float64)) + bias
    np.testing.assert_allclose(got, real, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("activation", ["", "relu", "silu"])
def test_requantized_results_are_within_one_level(level, activation):
    rng, x, w = operands(7, 37, 45, 66)
    scale = rng.uniform(0.001, 0.01, 45).astype(np.float32)
    bias = rng.standard_normal(45).astype(np.float32)
    real = dense_reference(x.astype(np.int64) - 128, w) * (0.02 * scale.astype(np.float64)) + bias
    real = activate(activation, real)
    step = float(np.abs(real).max() / 90)
    quantization = Quantization(0.02, 128, scale, out_scale=step, out_zero=100)
    got = prepare_dense_int8(w, quantization, bias, activation or None, rows=(37,))(x)
    want = np.clip(np.rint(real / step) + 100, 0, 255)
    assert got.dtype == np.uint8
    difference = np.abs(got.astype(int) - want)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


def test_results_saturate():
    w = np.array([[1, -1]], np.int8)
    layer = prepare_dense_int8(w, Quantization(1.0, 0, 1.0, out_scale=0.1, out_zero=10))
    assert layer(np.array([[200]], np.uint8)).tolist() == [[255, 0]]


@pytest.mark.parametrize(
    "quantization",
    [
        Quantization(1.0, 256, 1.0),
        Quantization(1.0, -1, 1.0),
        Quantization(0.0, 0, 1.0),
        Quantization(float("nan"), 0, 1.0),
        Quantization(1.0, 0, np.ones(3, np.float32)),
        Quantization(1.0, 0, 1.0, out_scale=-1.0),
    ],
)
def test_bad_scales_and_zeros_are_refused(quantization):
    with pytest.raises(InvalidOperand):
        prepare_dense_int8(np.ones((4, 2), np.int8), quantization)


def test_float_activations_are_refused():
    layer = prepare_dense_int8(np.ones((4, 2), np.int8), Quantization(1.0, 0, 1.0))
    with pytest.raises(InvalidOperand, match="uint8"):
        layer(np.ones((1, 4), np.float32))
