"""Winograd's method against float64: sizes, borders, fused ends, rounding, sharing, refusals."""

import struct
from dataclasses import replace

import numpy as np
import pytest
from adlik_kernels import (
    InvalidOperand,
    InvalidSchedule,
    configuration,
    configure,
    prepare_winograd,
)
from adlik_kernels.machine import pool, target
from adlik_kernels.operators.operands import address, aligned_empty
from adlik_kernels.operators.packing import pad_columns
from adlik_kernels.operators.winograd import pack_winograd, scratch_bytes, winograd_kernel
from adlik_kernels.references import activate, conv2d_reference
from adlik_kernels.schedules.winograd import winograd_default, winograd_pays
from adlik_kernels.templates.winograd import winograd_module
from adlik_kernels.workload import Conv2d
from hypothesis import given, settings
from hypothesis import strategies as st

from .levels import LEVELS

ROUNDING = {2: 1e-6, 4: 1e-5}
"""What `prepare_winograd` promises, in parts of the largest result."""


def operands(seed, shape, filters):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape).astype(np.float32)
    w = rng.standard_normal((filters, shape[-1], 3, 3)).astype(np.float32)
    return rng, x, w


def check_close(got, want, results):
    assert np.abs(got - want).max() <= ROUNDING[results] * np.abs(want).max()


@settings(max_examples=8, deadline=None)
@given(
    results=st.sampled_from([2, 4]),
    batch=st.integers(1, 3),
    height=st.integers(3, 17),
    width=st.integers(3, 17),
    channels=st.integers(1, 40),
    filters=st.integers(1, 70),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
)
def test_random_sizes(results, batch, height, width, channels, filters, padding):
    _, x, w = operands(1, (batch, height, width, channels), filters)
    got = prepare_winograd(w, (height, width), padding=padding, results=results)(x)
    check_close(got, conv2d_reference(x, w, (1, 1), padding), results)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("results", [2, 4])
def test_fused_ends_at_all_levels(level, results):
    rng, x, w = operands(2, (2, 11, 9, 5), 37)
    bias = rng.standard_normal(37).astype(np.float32)
    real = conv2d_reference(x, w, (1, 1), (1, 1)) + bias
    residual = rng.standard_normal(real.shape).astype(np.float32)
    ends = {"padding": (1, 1), "residual": True, "results": results}
    for activation in ("silu", "relu6"):
        layer = prepare_winograd(w, (11, 9), bias, activation, **ends)
        want = activate(activation, real + residual)
        np.testing.assert_allclose(layer(x, residual=residual), want, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("results", [2, 4])
@pytest.mark.parametrize("sign", [0, 1])
def test_rounding_of_deep_sums(results, sign):
    """Positive numbers, as after a ReLU, and ones of both signs."""
    _, x, w = operands(3, (1, 12, 12, 512), 32)
    x = np.abs(x) if sign else x
    check_close(prepare_winograd(w, (12, 12), results=results)(x), conv2d_reference(x, w), results)


class Call:
    """A kernel called as plans do: borders in memory, chunks of its caller's choice."""

    def __init__(self, workload, results, threads):
        host = configuration.target()
        _, self.x, self.w = operands(4, (3, *padded(workload), workload.channels), workload.filters)
        self.workload, self.bias = workload, pad_columns(0.5, workload.filters)
        self.schedule = winograd_default(workload, results, host, threads)
        self.packed = pack_winograd(self.w, self.schedule, host)
        self.size = scratch_bytes(workload, self.schedule, host)
        self.code = winograd_kernel(workload, self.schedule, host).address
        rng, side = np.random.default_rng(5), 2 * workload.residual_border
        shape = (3, workload.out_height + side, workload.out_width + side, workload.filters)
        self.residual = rng.standard_normal(shape).astype(np.float32)

    def __call__(self, out, chunks, scratch=None):
        scratch = aligned_empty(chunks * self.size, np.uint8) if scratch is None else scratch
        scratch[...] = 0xFF  # NaN in each float: nothing that was not written may be used
        arrays = (self.x, self.packed, out, self.bias, self.residual, scratch)
        words = struct.pack("8q", *(address(array) for array in arrays), 0, len(self.x))
        pool.shared(1).run(self.code, words, 1) if chunks == 1 else self._shared(words, chunks)
        return out

    def _shared(self, words, chunks):
        pool.shared(2).run(self.code, words, chunks)


def padded(workload):
    return tuple(
        size + 2 * border
        for size, border in zip((workload.height, workload.width), workload.around, strict=True)
    )


@pytest.mark.parametrize("results", [2, 4])
@pytest.mark.parametrize("size", [(7, 10), (13, 6)])
def test_borders_are_left_alone_and_chunks_change_nothing(results, size):
    workload = Conv2d(
        *size,
        channels=12,
        filters=40,
        kernel=(3, 3),
        padding=(1, 1),
        border=(2, 3),
        out_border=1,
        residual_border=2,
        bias=True,
        residual=True,
    )
    call = Call(workload, results, threads=2)
    call.x[:, :2], call.x[:, -2:], call.x[:, :, :3], call.x[:, :, -3:] = 0, 0, 0, 0
    made = [
        call(np.full((3, size[0] + 2, size[1] + 2, 40), np.float32(7)), chunks)
        for chunks in (1, 4, 5, 64)
    ]
    inside = (slice(None), slice(1, -1), slice(1, -1))
    want = conv2d_reference(call.x[:, 1:-1, 2:-2], call.w) + 0.5 + call.residual[:, 2:-2, 2:-2]
    check_close(made[0][inside], want, results)
    for other in made[1:]:
        np.testing.assert_array_equal(other, made[0])
    made[0][inside] = 7
    assert (made[0] == 7).all()


@pytest.mark.parametrize("results", [2, 4])
@pytest.mark.parametrize("channels", [3, 21])
def test_nothing_outside_is_touched(results, channels, guarded):
    """Every array ends at a page that may not be read."""
    workload = Conv2d(7, 5, channels, 19, kernel=(3, 3), residual=True, activation="relu")
    call = Call(workload, results, threads=1)
    call.x, call.residual = (copied(guarded, array) for array in (call.x, call.residual))
    call.packed = copied(guarded, call.packed)
    out = guarded(call.residual.shape, np.float32)
    call(out, 1, guarded((call.size,), np.uint8))
    want = np.maximum(conv2d_reference(call.x, call.w) + call.residual, 0)
    check_close(out, want, results)


def test_blocks_larger_than_a_picture_are_refused():
    workload = Conv2d(10, 12, 6, 40, kernel=(3, 3))
    host = target.host()
    schedule = winograd_default(workload, 4, host, 1)
    for changes in ({"tiles": 7}, {"groups": 5}):
        with pytest.raises(InvalidSchedule):
            winograd_module(workload, replace(schedule, **changes), host)


def copied(guarded, array):
    place = guarded(array.shape, array.dtype)
    place[...] = array
    return place


@pytest.mark.parametrize("results", [2, 4])
def test_a_nan_stays_in_its_tiles(results):
    _, x, w = operands(6, (1, 16, 16, 4), 20)
    x[0, 8, 8, 2] = np.nan
    got = prepare_winograd(w, (16, 16), padding=(1, 1), results=results)(x)
    is_nan, must = np.isnan(got), np.isnan(conv2d_reference(x, w, (1, 1), (1, 1)))
    assert is_nan[must].all()
    near = np.zeros_like(is_nan)
    near[:, 8 - results : 9 + results, 8 - results : 9 + results] = True
    assert not is_nan[~near].any()


def test_results_do_not_depend_on_threads():
    _, x, w = operands(7, (2, 14, 14, 24), 96)
    made = []
    for threads in (1, 2, 3):
        configure(threads=threads)
        made.append(prepare_winograd(w, (14, 14), padding=(1, 1), results=2)(x))
    configure(threads=0)
    np.testing.assert_array_equal(made[0], made[1])
    np.testing.assert_array_equal(made[0], made[2])


@given(
    size=st.integers(3, 300),
    channels=st.integers(1, 600),
    filters=st.integers(1, 600),
    threads=st.integers(1, 8),
)
def test_any_schedule_covers_its_picture(size, channels, filters, threads):
    workload = Conv2d(size, size, channels, filters, kernel=(3, 3), padding=(1, 1))
    host = target.host()
    for results in (2, 4):
        schedule = winograd_default(workload, results, host, threads)
        panels = -(-filters // (schedule.vectors * host.lanes))
        assert 1 <= schedule.tiles <= (-(-size // results)) ** 2
        assert panels % schedule.groups == 0
        assert scratch_bytes(workload, schedule, host) % 64 == 0
    assert winograd_pays(workload, host, threads) in {0, 2, 4}


def test_only_what_the_method_computes_pays():
    host = target.host()
    large = {"height": 56, "width": 56, "channels": 64, "filters": 64, "padding": (1, 1)}
    assert winograd_pays(Conv2d(**large, kernel=(3, 3)), host, 1) == 4
    assert winograd_pays(Conv2d(**large, kernel=(3, 3), stride=(2, 2)), host, 1) == 0
    assert winograd_pays(Conv2d(**large, kernel=(5, 5)), host, 1) == 0
    assert winograd_pays(Conv2d(**large, kernel=(3, 3), dtype="int8"), host, 1) == 0


def test_bad_operands_are_refused():
    _, x, w = operands(8, (1, 8, 8, 4), 6)
    layer = prepare_winograd(w, (8, 8))
    out = np.zeros((1, 6, 6, 6), np.float32)
    frozen = out.copy()
    frozen.flags.writeable = False
    faults = (
        {"x": x[:, :7]},
        {"x": x.astype(np.float64)},
        {"x": x.transpose(0, 2, 1, 3)},
        {"x": x[:0]},
        {"x": x, "residual": out},
        {"x": x, "out": out[..., :5]},
        {"x": x, "out": frozen},
        {"x": x, "out": x.reshape(-1)[:216].reshape(1, 6, 6, 6)},
    )
    for fault in faults:
        with pytest.raises(InvalidOperand):
            layer(**fault)
    wrong = (
        {"w": w, "size": (2, 8)},
        {"w": w, "size": (8, 8), "bias": np.zeros(5, np.float32)},
        {"w": w, "size": (8, 8), "stride": (2, 1)},
        {"w": w, "size": (8, 8), "results": 3},
        {"w": np.zeros((6, 4, 5, 5), np.float32), "size": (8, 8)},
    )
    for fault in wrong:
        with pytest.raises(InvalidOperand):
            prepare_winograd(**fault)
