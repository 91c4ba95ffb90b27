"""Activations, sums and products with broadcasting against numpy."""

import itertools
import struct

import numpy as np
import pytest
from adlik_kernels import InvalidOperand, add, apply_activation, configure, multiply
from adlik_kernels.codegen.build import load
from adlik_kernels.machine import target
from adlik_kernels.machine.pool import shared
from adlik_kernels.references import activate
from adlik_kernels.templates.small import Grid, Map, small_module
from adlik_kernels.workload import ACTIVATION_NAMES
from hypothesis import given
from hypothesis import strategies as st

from .levels import LEVELS

SHAPES = [
    ((), ()),
    ((5,), (5,)),
    ((5,), (1,)),
    ((3, 37), (37,)),
    ((3, 37), (3, 1)),
    ((3, 37), (1, 1)),
    ((2, 7, 9), (7, 9)),
    ((2, 4, 5, 19), (2, 1, 1, 19)),
    ((2, 3, 4, 5), (3, 1, 1)),
    ((2, 3, 5000), (2, 1, 5000)),
    ((4, 1, 3), (4, 1, 3)),
    ((3, 2, 5, 2, 7), (1, 2, 1, 1, 7)),
    ((3, 2, 5, 2, 7), (1, 2, 1, 1, 1)),
]


def draw(rng, *shape):
    return np.asarray(rng.standard_normal(shape), np.float32)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize(("shape", "smaller"), SHAPES)
def test_broadcasting_is_that_of_numpy(level, shape, smaller):
    rng = np.random.default_rng(0)
    x, y = draw(rng, *shape), draw(rng, *smaller)
    np.testing.assert_array_equal(add(x, y), x + y)
    np.testing.assert_array_equal(multiply(x, y), x * y)


@given(
    axes=st.lists(st.tuples(st.integers(1, 4), st.booleans()), min_size=1, max_size=5),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_broadcast_is_computed_or_refused(axes, seed):
    rng = np.random.default_rng(seed)
    x = draw(rng, *(size for size, _ in axes))
    y = draw(rng, *(size if whole else 1 for size, whole in axes))
    runs = [whole for whole, _ in itertools.groupby(whole for size, whole in axes if size > 1)]
    if len(runs) < 4 or runs == [False, True, False, True]:
        np.testing.assert_array_equal(add(x, y), x + y)
        return
    with pytest.raises(InvalidOperand, match="too many axes"):
        add(x, y)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("name", ACTIVATION_NAMES)
def test_activations_and_the_ends_of_arrays(level, name, guarded):
    x, out = (guarded((3, 31), np.float32) for _ in range(2))
    x[...] = 3 * draw(np.random.default_rng(1), 3, 31)
    assert apply_activation(x, name, out) is out
    np.testing.assert_allclose(out, activate(name, x.astype(np.float64)), rtol=2e-6, atol=6e-7)
    np.testing.assert_allclose(
        multiply(x, out, name), activate(name, (x * out).astype(np.float64)), rtol=2e-6, atol=6e-7
    )


def test_nan_and_infinity_pass():
    x = np.array([np.nan, np.inf, -np.inf, 1.0], np.float32)
    np.testing.assert_array_equal(add(x, x), x + x)
    np.testing.assert_array_equal(apply_activation(x, "relu"), [np.nan, np.inf, 0.0, 1.0])


def test_threads_change_nothing():
    rng = np.random.default_rng(2)
    x, y = draw(rng, 7, 30001), draw(rng, 30001)
    results = []
    for threads in (1, 2):
        configure(threads=threads)
        results.append(add(x, y, "gelu"))
    configure(threads=0)
    np.testing.assert_array_equal(*results)


def test_bad_operands_are_refused():
    x, y = np.zeros((2, 8), np.float32), np.zeros(8, np.float32)
    for operands in (
        (x, y[:7]),
        (x, np.zeros((2,), np.float32)),
        (y, x),
        (x, 1.0),
        (x.astype("f8"), y),
        (x, y.astype("f8")),
        (x[:, ::2], y[:4]),
        (x[:0], y),
        (x, y, "swish"),
        (x, y, None, x),
        (x, y, None, y),
    ):
        for call in (add, multiply):
            with pytest.raises(InvalidOperand):
                call(*operands)
    for operands in ((x, ""), (x, "swish"), (x.T, "relu"), ([1.0], "relu"), (x, "relu", x)):
        with pytest.raises(InvalidOperand):
            apply_activation(*operands)


@pytest.mark.parametrize("operation", ["add", "multiply"])
@pytest.mark.parametrize("pixel", [False, True])
@pytest.mark.parametrize("constant", [False, True])
def test_grids_with_borders_meet_others_of_one_pixel(operation, pixel, constant):
    """What plans use: x * s with one s for each channel of a picture, x + c for all pictures."""
    rng = np.random.default_rng(3)
    source, result = Grid(3, 4, 19, border=1), Grid(3, 4, 19, border=2)
    second = Grid(1, 1, 19) if pixel else Grid(3, 4, 19, border=1)
    work = Map(source, result, second, "relu", operation, constant)
    x, y, out = (
        np.zeros((count, grid.height + 2 * grid.border, grid.width + 2 * grid.border, 19), "f4")
        for count, grid in ((2, source), (1 if constant else 2, second), (2, result))
    )
    inner, middle = x[:, 1:-1, 1:-1], y if pixel else y[:, 1:-1, 1:-1]
    inner[...], middle[...] = draw(rng, *inner.shape), draw(rng, *middle.shape)
    machine = target.host()
    code = load("map", work, lambda: small_module(work, machine.lanes), machine)
    places = (array.ctypes.data for array in (x, out, y))
    shared(1).run(code.address, struct.pack("4q", *places, 2), 1)
    want = np.maximum({"add": np.add, "multiply": np.multiply}[operation](inner, middle), 0)
    np.testing.assert_array_equal(out[:, 2:-2, 2:-2], want)
    assert np.count_nonzero(out) == np.count_nonzero(want)
