"""Convolutions of blocked layouts: the same numbers as of channels-last ones, elsewhere."""

import numpy as np
import pytest
from adlik_kernels import (
    InvalidOperand,
    Quantization,
    prepare_conv2d,
    prepare_conv2d_int8,
)
from adlik_kernels.references import (
    activate,
    blocked_reference,
    conv2d_reference,
    unblocked_reference,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from .levels import LEVELS

LAYOUTS = [("blocked", "blocked"), ("last", "blocked"), ("blocked", "last")]


def arranged(x, layout):
    return blocked_reference(x) if layout == "blocked" else x


def plain(x):
    return unblocked_reference(x) if x.ndim == 5 else x


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
    blocks=st.integers(1, 3),
)
def test_blocks_hold_the_same_pixels(shape, blocks):
    x = np.arange(np.prod(shape) * 16 * blocks, dtype=np.int64).reshape(*shape, 16 * blocks)
    blocked = blocked_reference(x)
    assert blocked.shape == (shape[0], blocks, *shape[1:], 16)
    assert (blocked[:, blocks - 1, :, :, 3] == x[..., 16 * blocks - 13]).all()
    assert (unblocked_reference(blocked) == x).all()


@settings(max_examples=16, deadline=None)
@given(
    layouts=st.sampled_from(LAYOUTS),
    size=st.tuples(st.integers(3, 9), st.integers(3, 17)),
    channels=st.integers(1, 3),
    filters=st.integers(1, 5),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(*[st.integers(0, 2)] * 4),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=st.integers(1, 2),
)
def test_random_blocked_convolutions(
    layouts, size, channels, filters, kernel, stride, padding, dilation, groups
):
    rng = np.random.default_rng(1)
    dilation = tuple(min(n, max(1, (size[0] - 1) // 2)) for n in dilation)
    channels, filters = 16 * channels, 16 * filters
    x = rng.standard_normal((2, *size, groups * channels)).astype(np.float32)
    w = rng.standard_normal((groups * filters, channels, *kernel)).astype(np.float32)
    sides = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if any(size[i] < dilation[i] * (kernel[i] - 1) + 1 for i in (0, 1)):
        sides["dilation"] = (1, 1)
    layer = prepare_conv2d(w, size, in_layout=layouts[0], out_layout=layouts[1], **sides)
    got = layer(arranged(x, layouts[0]))
    assert got.ndim == (5 if layouts[1] == "blocked" else 4)
    np.testing.assert_allclose(plain(got), conv2d_reference(x, w, **sides), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("layouts", LAYOUTS)
def test_fused_ends_at_all_levels(level, layouts):
    rng = np.random.default_rng(2)
    x = rng.standard_normal((2, 7, 6, 32)).astype(np.float32)
    w = rng.standard_normal((80, 32, 3, 3)).astype(np.float32)
    bias = rng.standard_normal(80).astype(np.float32)
    real = conv2d_reference(x, w, (1, 1), (1, 1)) + bias
    residual = rng.standard_normal(real.shape).astype(np.float32)
    sides = {"padding": (1, 1), "in_layout": layouts[0], "out_layout": layouts[1]}
    layer = prepare_conv2d(w, (7, 6), bias, "hardswish", residual=True, **sides)
    got = layer(arranged(x, layouts[0]), residual=arranged(residual, layouts[1]))
    want = activate("hardswish", real + residual)
    np.testing.assert_allclose(plain(got), want, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("layouts", LAYOUTS)
def test_int8_with_quantized_residuals(level, layouts):
    rng = np.random.default_rng(3)
    x = rng.integers(0, 256, (2, 5, 6, 32)).astype(np.uint8)
    w = rng.integers(-127, 128, (48, 32, 3, 3)).astype(np.int8)
    real = conv2d_reference(x.astype(int) - 100, w, (1, 1), (1, 1)) * 2.0**-12
    residual = rng.integers(0, 256, real.shape).astype(np.uint8)
    real = np.maximum(real + 0.25 * (residual.astype(float) - 90), 0)
    levels = Quantization(2.0**-6, 100, 2.0**-6, 0.5, 8, residual_scale=0.25, residual_zero=90)
    sides = {"padding": (1, 1), "in_layout": layouts[0], "out_layout": layouts[1]}
    layer = prepare_conv2d_int8(w, (5, 6), levels, None, "relu", residual=True, **sides)
    got = plain(layer(arranged(x, layouts[0]), residual=arranged(residual, layouts[1])))
    np.testing.assert_array_equal(got, np.clip(np.rint(real * 2) + 8, 0, 255))


def test_wrong_blocks_are_refused():
    w = np.ones((32, 16, 1, 1), np.float32)
    layer = prepare_conv2d(w, (4, 4), in_layout="blocked", out_layout="blocked")
    x = np.ones((1, 4, 4, 16), np.float32)
    with pytest.raises(InvalidOperand):
        layer(x)
    with pytest.raises(InvalidOperand):
        layer(blocked_reference(x), out=np.zeros((1, 4, 4, 32), np.float32))
    faults = (
        (w[:, :8].copy(), {"in_layout": "blocked"}),
        (w[:20].copy(), {"out_layout": "blocked"}),
        (w, {"in_layout": "first"}),
        (w, {"out_layout": "blocked", "groups": 4}),
    )
    for filters, layouts in faults:
        with pytest.raises(InvalidOperand):
            prepare_conv2d(filters, (4, 4), **layouts)
