"""Transposed convolutions against a float64 reference: steps, paddings, borders, fused ends."""

import struct

import numpy as np
import pytest
from adlik_kernels import InvalidOperand, configuration, prepare_conv2d_transposed
from adlik_kernels.machine import pool
from adlik_kernels.operators.operands import address
from adlik_kernels.operators.packing import pad_columns
from adlik_kernels.operators.transposed import pack_transposed, transposed_kernel
from adlik_kernels.references import activate, conv2d_transposed_reference
from adlik_kernels.templates.phases import Transposed2d, phase_pairs
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from .levels import LEVELS

sides = {
    "size": st.tuples(st.integers(1, 9), st.integers(1, 9)),
    "channels": st.integers(1, 20),
    "filters": st.integers(1, 70),
    "kernel": st.tuples(st.integers(1, 5), st.integers(1, 5)),
    "stride": st.tuples(st.integers(1, 4), st.integers(1, 4)),
    "padding": st.tuples(st.integers(0, 2), st.integers(0, 2)),
    "more": st.tuples(st.integers(0, 3), st.integers(0, 3)),
}


def workload_of(size, channels, filters, kernel, stride, padding, more):
    """A workload, if it has a result."""
    assume(all(m < s for m, s in zip(more, stride, strict=True)))
    lengths = zip(size, kernel, stride, padding, more, strict=True)
    assume(all((n - 1) * s - 2 * p + k + m > 0 for n, k, s, p, m in lengths))
    return Transposed2d(*size, channels, filters, kernel, stride, padding, more)


def operands(seed, shape, filters, kernel):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape).astype(np.float32)
    return rng, x, rng.standard_normal((shape[-1], filters, *kernel)).astype(np.float32)


def test_the_reference_spreads_windows():
    x = np.array([1.0, 10.0]).reshape(1, 1, 2, 1)
    w = np.array([1.0, 2.0, 3.0]).reshape(1, 1, 1, 3)
    got = conv2d_transposed_reference(x, w, (1, 2), (0, 1), (0, 1))
    np.testing.assert_array_equal(got.ravel(), [2, 13, 20, 30])


@settings(max_examples=12, deadline=None)
@given(batch=st.integers(1, 3), **sides)
def test_random_sizes(batch, size, channels, filters, kernel, stride, padding, more):
    workload_of(size, channels, filters, kernel, stride, padding, more)
    _, x, w = operands(1, (batch, *size, channels), filters, kernel)
    shape = {"stride": stride, "padding": padding, "output_padding": more}
    got = prepare_conv2d_transposed(w, size, **shape)(x)
    want = conv2d_transposed_reference(x, w, *shape.values())
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@given(**sides)
def test_phases_make_every_pixel_and_tap_once(**shape):
    workload = workload_of(**shape)
    made = np.zeros(workload.result, int)
    seen = np.zeros(workload.kernel, int)
    for down, across in phase_pairs(workload):
        (below, beside), rows, columns = workload.stride, down.first_pixel, across.first_pixel
        last = (rows + below * (down.count - 1), columns + beside * (across.count - 1))
        made[rows : last[0] + 1 : below, columns : last[1] + 1 : beside] += 1
        seen[down.first_tap :: below, across.first_tap :: beside] += 1
    assert (made == 1).all()
    assert seen.max() <= 1  # padding may cut off all that a tap would reach


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize(("window", "stride", "padding"), [(4, 2, 1), (2, 2, 0), (2, 3, 0)])
def test_fused_ends_at_all_levels(level, window, stride, padding):
    """Also where the window is shorter than the step, so that pixels see no number of x at all."""
    rng, x, w = operands(2, (2, 6, 5, 7), 37, (window, window))
    bias = rng.standard_normal(37).astype(np.float32)
    shape = {"stride": (stride, stride), "padding": (padding, padding)}
    real = conv2d_transposed_reference(x, w, *shape.values()) + bias
    for activation in ("relu", "silu"):
        got = prepare_conv2d_transposed(w, (6, 5), bias, activation, **shape)(x)
        np.testing.assert_allclose(got, activate(activation, real), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("chunks", [1, 3, 50])
def test_borders_are_left_alone(chunks):
    shape = {"stride": (2, 3), "padding": (1, 0), "output_padding": (1, 2)}
    workload = Transposed2d(5, 4, 6, 40, (3, 4), **shape, border=(2, 3), out_border=2)
    _, inner, w = operands(3, (2, 5, 4, 6), 40, (3, 4))
    x = np.pad(inner, ((0, 0), (2, 2), (3, 3), (0, 0)))
    machine = configuration.target()
    code = transposed_kernel(workload, (6, 2), machine)
    packed = pack_transposed(w, workload, 2 * machine.lanes)
    height, width = workload.result
    out = np.full((2, height + 4, width + 4, 40), np.float32(7))
    arrays = (x, packed, out, pad_columns(0.0, 40))
    words = struct.pack("8q", *(address(array) for array in arrays), 0, 0, 0, 2)
    pool.shared(2).run(code.address, words, chunks)
    inside = (slice(None), slice(2, -2), slice(2, -2))
    want = conv2d_transposed_reference(inner, w, *shape.values())
    np.testing.assert_allclose(out[inside], want, rtol=1e-4, atol=1e-4)
    out[inside] = 7
    assert (out == 7).all()


def test_nothing_outside_is_touched(guarded):
    _, given_x, w = operands(4, (1, 5, 4, 3), 19, (1, 2))
    x, out = guarded((1, 5, 4, 3), np.float32), guarded((1, 9, 8, 19), np.float32)
    x[...] = given_x
    prepare_conv2d_transposed(w, (5, 4), stride=(2, 2))(x, out=out)
    want = conv2d_transposed_reference(x, w, (2, 2))
    np.testing.assert_allclose(out, want, rtol=1e-4, atol=1e-5)


def test_bad_operands_are_refused():
    _, x, w = operands(5, (1, 6, 6, 4), 5, (3, 3))
    layer = prepare_conv2d_transposed(w, (6, 6), stride=(2, 2))
    frozen = np.zeros((1, 13, 13, 5), np.float32)
    frozen.flags.writeable = False
    faults = (
        {"x": x[:, :5]},
        {"x": x.astype(np.float64)},
        {"x": x.transpose(0, 2, 1, 3)},
        {"x": x[:0]},
        {"x": x, "out": frozen},
        {"x": x, "out": np.zeros((1, 12, 13, 5), np.float32)},
    )
    for fault in faults:
        with pytest.raises(InvalidOperand):
            layer(**fault)
    wrong = (
        {"bias": np.zeros(4, np.float32)},
        {"stride": (5, 1)},
        {"stride": (0, 1)},
        {"padding": (-1, 0)},
        {"padding": (9, 9)},
        {"stride": (2, 2), "output_padding": (2, 0)},
        {"activation": "step"},
    )
    for fault in wrong:
        with pytest.raises(InvalidOperand):
            prepare_conv2d_transposed(w, (6, 6), **fault)
