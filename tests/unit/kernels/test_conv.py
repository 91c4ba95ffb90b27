"""Convolutions against a float64 reference: windows, strides, padding, borders and fused ends."""

import numpy as np
import pytest
from adlik_kernels import InvalidOperand, prepare_conv2d
from adlik_kernels.convschedule import even_tiles
from adlik_kernels.workload import activate, conv2d_reference
from hypothesis import given, settings
from hypothesis import strategies as st

LEVELS = ("portable", "avx2", "avx512")


def operands(seed, shape, filters, kernel):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape).astype(np.float32)
    w = rng.standard_normal((filters, shape[-1], *kernel)).astype(np.float32)
    return rng, x, w


@settings(max_examples=12, deadline=None)
@given(
    batch=st.integers(1, 3),
    height=st.integers(3, 17),
    width=st.integers(3, 17),
    channels=st.integers(1, 20),
    filters=st.integers(1, 70),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
def test_random_convolutions(batch, height, width, channels, filters, kernel, stride, padding):
    _, x, w = operands(1, (batch, height, width, channels), filters, kernel)
    got = prepare_conv2d(w, (height, width), stride=stride, padding=padding)(x)
    np.testing.assert_allclose(got, conv2d_reference(x, w, stride, padding), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [((1, 1), 1, 0), ((3, 3), 1, 1), ((7, 7), 2, 3), ((1, 1), 2, 0)],
)
def test_fused_ends_at_all_levels(level, kernel, stride, padding):
    rng, x, w = operands(2, (2, 15, 13, 5), 37, kernel)
    bias = rng.standard_normal(37).astype(np.float32)
    strides, paddings = (stride, stride), (padding, padding)
    real = conv2d_reference(x, w, strides, paddings) + bias
    residual = rng.standard_normal(real.shape).astype(np.float32)
    layer = prepare_conv2d(
        w, (15, 13), bias, "silu", stride=strides, padding=paddings, residual=True
    )
    want = activate("silu", real + residual)
    np.testing.assert_allclose(layer(x, residual=residual), want, rtol=1e-4, atol=2e-4)


@given(width=st.integers(1, 300), most=st.integers(1, 28))
def test_tiles_cover_a_row_and_are_even(width, most):
    tiles = even_tiles(width, most)
    assert sum(tiles) == width
    assert max(tiles) <= most
    assert max(tiles) - min(tiles) <= 1


def test_bad_operands_are_refused():
    _, x, w = operands(3, (1, 8, 8, 4), 6, (3, 3))
    layer = prepare_conv2d(w, (8, 8))
    out = np.zeros((1, 6, 6, 6), np.float32)
    faults = (
        {"x": x[:, :7]},
        {"x": x.astype(np.float64)},
        {"x": x.transpose(0, 2, 1, 3)},
        {"x": x, "residual": out},
        {"x": x, "out": out[..., :5]},
    )
    for fault in faults:
        with pytest.raises(InvalidOperand):
            layer(**fault)
    for size, bias in (((2, 8), None), ((8, 8), np.zeros(5, np.float32))):
        with pytest.raises(InvalidOperand):
            prepare_conv2d(w, size, bias)
