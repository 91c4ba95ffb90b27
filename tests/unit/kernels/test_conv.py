"""Convolutions against a float64 reference: windows, strides, padding, borders and fused ends."""

import numpy as np
import pytest
from adlik_kernels import InvalidOperand, Quantization, prepare_conv2d, prepare_conv2d_int8
from adlik_kernels.references import activate, conv2d_reference
from adlik_kernels.schedules.conv import cut_k, even_tiles
from adlik_kernels.schedules.schedule import NEXT, Schedule
from adlik_kernels.search.trial import bench
from adlik_kernels.workload import Conv2d
from hypothesis import given, settings
from hypothesis import strategies as st

from .levels import LEVELS


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


@settings(max_examples=12, deadline=None)
@given(
    height=st.integers(5, 12),
    width=st.integers(5, 17),
    channels=st.integers(1, 20),
    filters=st.integers(1, 40),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(*[st.integers(0, 2)] * 4),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
)
def test_sides_of_their_own_and_dilation(
    height, width, channels, filters, kernel, stride, padding, dilation
):
    _, x, w = operands(5, (2, height, width, channels), filters, kernel)
    sides = {"stride": stride, "padding": padding, "dilation": dilation}
    got = prepare_conv2d(w, (height, width), **sides)(x)
    np.testing.assert_allclose(got, conv2d_reference(x, w, **sides), rtol=1e-4, atol=1e-4)


@settings(max_examples=12, deadline=None)
@given(
    groups=st.integers(2, 5),
    channels=st.integers(1, 9),
    filters=st.integers(1, 40),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
)
def test_groups(groups, channels, filters, kernel, stride, dilation):
    rng = np.random.default_rng(7)
    x = rng.standard_normal((2, 7, 9, groups * channels)).astype(np.float32)
    w = rng.standard_normal((groups * filters, channels, *kernel)).astype(np.float32)
    bias = rng.standard_normal(groups * filters).astype(np.float32)
    sides = {
        "stride": (stride, stride),
        "padding": (1, 1),
        "dilation": (dilation, dilation),
        "groups": groups,
    }
    got = prepare_conv2d(w, (7, 9), bias, **sides)(x)
    np.testing.assert_allclose(got, conv2d_reference(x, w, **sides) + bias, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("filters", [3, 37])
def test_int8_groups(level, filters):
    rng = np.random.default_rng(8)
    x = rng.integers(0, 256, (2, 6, 9, 24)).astype(np.uint8)
    w = rng.integers(-127, 128, (3 * filters, 8, 3, 3)).astype(np.int8)
    sides = {"padding": (1, 1), "groups": 3}
    got = prepare_conv2d_int8(w, (6, 9), Quantization(1.0, 77, 1.0), **sides)(x)
    np.testing.assert_array_equal(got, conv2d_reference(x.astype(int) - 77, w, **sides))


def test_groups_share_no_channels():
    x, w = np.full((1, 3, 3, 4), np.inf, np.float32), np.ones((6, 2, 1, 1), np.float32)
    x[..., :2] = 1
    got = prepare_conv2d(w, (3, 3), groups=2)(x)
    assert (got[..., :3] == 2).all()
    assert (got[..., 3:] == np.inf).all()


@pytest.mark.parametrize("level", LEVELS, indirect=True)
def test_int8_sides_of_their_own_and_dilation(level):
    rng = np.random.default_rng(6)
    x = rng.integers(0, 256, (2, 10, 9, 8)).astype(np.uint8)
    w = rng.integers(-127, 128, (21, 8, 3, 2)).astype(np.int8)
    sides = {"stride": (2, 1), "padding": (0, 1, 1, 0), "dilation": (1, 3)}
    got = prepare_conv2d_int8(w, (10, 9), Quantization(1.0, 77, 1.0), **sides)(x)
    np.testing.assert_array_equal(got, conv2d_reference(x.astype(int) - 77, w, **sides))


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize(("window", "stride", "padding"), [(1, 1, 0), (3, 1, 1), (3, 2, 1)])
def test_int8_convolutions(level, window, stride, padding):
    rng = np.random.default_rng(4)
    x = rng.integers(0, 256, (2, 11, 9, 8)).astype(np.uint8)
    w = rng.integers(-127, 128, (21, 8, window, window)).astype(np.int8)
    bias, scale = rng.standard_normal(21).astype("f4"), rng.uniform(0.001, 0.01, 21).astype("f4")
    steps, border = (stride, stride), (padding, padding)
    sums = conv2d_reference(x.astype(np.int64) - 100, w, steps, border)
    real = np.maximum(sums * (0.02 * scale.astype(float)) + bias, 0)
    sides = {"stride": steps, "padding": border}
    plain = Quantization(0.02, 100, scale)
    got = prepare_conv2d_int8(w, (11, 9), plain, bias, "relu", **sides)(x)
    np.testing.assert_allclose(got, real, rtol=1e-5, atol=1e-4)
    step = float(real.max() / 200)
    levels = Quantization(0.02, 100, scale, out_scale=step, out_zero=7)
    got = prepare_conv2d_int8(w, (11, 9), levels, bias, "relu", **sides)(x)
    difference = np.abs(got.astype(int) - np.clip(np.rint(real / step) + 7, 0, 255))
    assert got.dtype == np.uint8
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


def test_memory_of_earlier_calls_keeps_its_border():
    rng = np.random.default_rng(9)
    w = rng.integers(-127, 128, (5, 4, 3, 3)).astype(np.int8)
    layer = prepare_conv2d_int8(w, (5, 6), Quantization(1.0, 77, 1.0), padding=(1, 2))
    for batch in (1, 1, 3, 3, 2):
        x = rng.integers(0, 256, (batch, 5, 6, 4)).astype(np.uint8)
        want = conv2d_reference(x.astype(int) - 77, w, (1, 1), (1, 2))
        np.testing.assert_array_equal(layer(x), want)


def test_int8_channels_fill_words():
    w = np.ones((4, 3, 1, 1), np.int8)
    with pytest.raises(InvalidOperand, match="multiple of 4"):
        prepare_conv2d_int8(w, (5, 5), Quantization(1.0, 0, 1.0))


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize(
    ("layout", "k_block", "order", "prefetch"),
    [("last", 0, "rows", NEXT), ("last", 128, "columns", NEXT), ("blocked", 128, "rows", 8)],
)
def test_schedules_do_not_change_the_result(level, layout, k_block, order, prefetch):
    workload = Conv2d(
        *(6, 11, 128, 80),
        kernel=(3, 2),
        padding=(1, 0),
        in_layout=layout,
        out_layout=layout,
    )
    trial = bench(workload)
    schedule = Schedule(2, 4, 1, k_block, 4, "blocks", order, prefetch)
    trial.out.fill(np.nan)
    trial.call(schedule, 2)()
    assert trial.is_right()


@given(
    levels=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 99)), min_size=1, max_size=4),
    most=st.integers(0, 200),
)
def test_blocks_of_k_cover_all_words_once(levels, most):
    levels = tuple(levels)
    outer, inner = cut_k(levels, most)

    def offsets(loops):
        found = [0]
        for turns, apart in loops:
            found = [start + turn * apart for start in found for turn in range(turns)]
        return found

    assert offsets((*outer, *inner)) == offsets(levels)
    assert inner[-1][1] == levels[-1][1]


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
    for sides in (
        {"padding": (1, 1, 1)},
        {"padding": (-1, 0, 0, 0)},
        {"dilation": (4, 1)},
        {"groups": 4},
    ):
        with pytest.raises(InvalidOperand):
            prepare_conv2d(w, (8, 8), **sides)
