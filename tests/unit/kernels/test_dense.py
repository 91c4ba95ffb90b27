"""Dense products against float64, on odd shapes and odd numbers, at every instruction level."""

import numpy as np
import pytest
from adlik_kernels import InvalidOperand, configure, dense, prepare_dense
from adlik_kernels.operators import dense as products
from adlik_kernels.operators.packing import to_bf16
from adlik_kernels.operators.rounding import round_to_bf16
from adlik_kernels.references import dense_reference
from adlik_kernels.schedules.registry import Choice
from adlik_kernels.schedules.schedule import Schedule
from adlik_kernels.workload import ACTIVATION_NAMES
from hypothesis import given, settings
from hypothesis import strategies as st

from .levels import LEVELS

few = settings(max_examples=10, deadline=None)


def draw(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def close(got, want, depth):
    scale = np.sqrt(depth) * 4 + 1
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6 * scale)


@few
@given(
    rows=st.integers(1, 70),
    columns=st.integers(1, 120),
    depth=st.integers(1, 90),
    seed=st.integers(0, 2**32 - 1),
)
def test_random_shapes(rows, columns, depth, seed):
    rng = np.random.default_rng(seed)
    x, w, bias = draw(rng, rows, depth), draw(rng, depth, columns), draw(rng, columns)
    close(dense(x, w), dense_reference(x, w), depth)
    close(dense(x, w, bias, "relu"), dense_reference(x, w, bias, activation="relu"), depth)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("rows", [1, 3, 8, 33])
def test_levels_agree_with_the_reference(level, rows):
    rng = np.random.default_rng(rows)
    x, w, bias = draw(rng, rows, 65), draw(rng, 65, 51), draw(rng, 51)
    residual = draw(rng, rows, 51)
    got = dense(x, w, bias, "relu6", residual=residual)
    close(got, dense_reference(x, w, bias, residual, "relu6"), 65)


@pytest.mark.parametrize("name", ACTIVATION_NAMES)
def test_activations(name):
    x = np.linspace(-95, 95, 3001, dtype=np.float32).reshape(-1, 1)
    w = np.ones((1, 1), np.float32)
    want = dense_reference(x, w, activation=name)
    np.testing.assert_allclose(dense(x, w, activation=name), want, rtol=2e-6, atol=6e-7)


@pytest.mark.parametrize("name", ["", *ACTIVATION_NAMES])
def test_nan_and_infinity_pass_as_in_numpy(name):
    x = np.array([[np.nan], [np.inf], [-np.inf], [0.0], [-0.0]], np.float32)
    want = dense_reference(x, np.ones((1, 1)), activation=name)
    got = dense(x, np.ones((1, 1), np.float32), activation=name or None)
    known = ~np.isnan(want)
    if name in {"silu", "hardswish", "gelu"}:
        known[2] = False  # -inf times 0: numpy says NaN, the kernel may say the limit, 0
    np.testing.assert_array_equal(np.isnan(got[known]), np.isnan(want[known]))
    np.testing.assert_allclose(got[known], want[known], atol=1e-6)
    assert np.isnan(got[0, 0])


def test_nan_stays_in_its_row_and_column():
    rng = np.random.default_rng(5)
    x, w = draw(rng, 20, 30), draw(rng, 30, 40)
    x[7, 3] = np.nan
    got = np.isnan(prepare_dense(w)(x))
    assert got[7].all()
    assert not np.delete(got, 7, axis=0).any()


@pytest.mark.parametrize("rows", [1, 2, 5, 8, 13, 64])
def test_a_prepared_layer_takes_any_rows_and_its_own(rows):
    rng = np.random.default_rng(1)
    w, bias = draw(rng, 96, 200), draw(rng, 200)
    layer = prepare_dense(w, bias, "gelu", rows=(8, 64))
    x = draw(rng, rows, 96)
    out = np.full((rows, 200), np.nan, np.float32)
    assert layer(x, out=out) is out
    close(out, dense_reference(x, w, bias, activation="gelu"), 96)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("parallel", ["rows", "columns", "blocks"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_rows_that_are_copied_first_give_the_same(level, parallel, dtype, guarded, monkeypatch):
    """Exact rows and any rows, over several panels and blocks, and no byte too far is read."""
    rng = np.random.default_rng(6)
    x, out = guarded((45, 71), np.float32), guarded((45, 150), np.float32)
    x[...], w = draw(rng, *x.shape), draw(rng, 71, 150)
    results = {}
    for pack in (False, True):
        schedule = Schedule(4, 1, 1, 0, 4, parallel, "rows", 0, pack)
        monkeypatch.setattr(products, "choose", lambda *_, s=schedule: Choice(s, "record"))
        for threads in (1, 2):
            configure(threads=threads)
            layer = prepare_dense(w, dtype=dtype, rows=(45,))
            results[pack, threads] = layer(x, out=out).copy()
            results[pack, -threads] = layer(x[:13])
    configure(threads=0)
    for rows in (1, 2, -1, -2):
        np.testing.assert_array_equal(results[True, rows], results[False, rows])
    want = dense_reference(x, w)
    np.testing.assert_allclose(results[True, 1], want, atol=0.2 if dtype == "bf16" else 1e-4)


def test_threads_give_identical_results():
    rng = np.random.default_rng(2)
    x, w = draw(rng, 130, 300), draw(rng, 300, 170)
    results = []
    for threads in (1, 2, 3):
        configure(threads=threads)
        results.append(prepare_dense(w)(x))
    configure(threads=0)
    assert (results[0] == results[1]).all()
    assert (results[0] == results[2]).all()


def test_bf16_rounds_its_operands_only():
    rng = np.random.default_rng(3)
    x, w = draw(rng, 9, 33), draw(rng, 33, 50)
    want = dense_reference(bf16(x), bf16(w))
    close(prepare_dense(w, dtype="bf16")(x), want, 33)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
def test_bf16_levels(level):
    rng = np.random.default_rng(3)
    x, w = draw(rng, 20, 64), draw(rng, 64, 40)
    close(prepare_dense(w, dtype="bf16")(x), dense_reference(bf16(x), bf16(w)), 64)


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize("count", [1, 15, 16, 300_001])
def test_rounding_to_bf16_is_that_of_packing(level, count):
    bits = np.random.default_rng(count).integers(0, 2**32, count, dtype=np.uint32)
    bits[: min(count, 4)] = [0x7F800000, 0x7F800001, 0xFFC00000, 0x7F7FFFFF][:count]
    x = bits.view(np.float32)
    np.testing.assert_array_equal(round_to_bf16(x), to_bf16(x))


def bf16(x):
    """Rounds to bfloat16 by another way than the library's: scale the mantissa to 8 bits."""
    mantissa, exponent = np.frexp(x.astype(np.float64))
    return np.ldexp(np.rint(mantissa * 256), exponent - 8)


def good():
    return {
        "x": np.ones((4, 8), np.float32),
        "w": np.ones((8, 5), np.float32),
        "bias": np.ones(5, np.float32),
        "out": np.zeros((4, 5), np.float32),
    }


FAULTS = {
    "x has another depth": ("x", np.ones((4, 7), np.float32)),
    "x has one dimension": ("x", np.ones(8, np.float32)),
    "x is float64": ("x", np.ones((4, 8))),
    "x is big-endian": ("x", np.ones((4, 8), ">f4")),
    "x is a list": ("x", [[1.0] * 8] * 4),
    "x is transposed": ("x", np.ones((8, 4), np.float32).T),
    "x is strided": ("x", np.ones((4, 16), np.float32)[:, ::2]),
    "x has no rows": ("x", np.ones((0, 8), np.float32)),
    "x has no columns": ("x", np.ones((4, 0), np.float32)),
    "x is misaligned": ("x", np.ones(4 * 8 * 4 + 1, np.uint8)[1:].view(np.float32).reshape(4, 8)),
    "bias is too short": ("bias", np.ones(4, np.float32)),
    "bias is a column": ("bias", np.ones((5, 1), np.float32)),
    "out is too small": ("out", np.zeros((3, 5), np.float32)),
    "out is int32": ("out", np.zeros((4, 5), np.int32)),
    "out is Fortran": ("out", np.zeros((4, 5), np.float32, order="F")),
    "activation is unknown": ("activation", "sine"),
    "residual has another shape": ("residual", np.ones((4, 4), np.float32)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_operands_are_refused_before_memory_is_touched(fault):
    operands = good()
    out = operands["out"]
    name, value = FAULTS[fault]
    operands[name] = value
    with pytest.raises(InvalidOperand):
        dense(**operands)
    assert (out == 0).all()


def test_a_read_only_result_is_refused():
    operands = good()
    operands["out"].setflags(write=False)
    with pytest.raises(InvalidOperand, match="read-only"):
        dense(**operands)


@pytest.mark.parametrize("name", ["x", "w", "bias", "residual"])
def test_a_result_that_overlaps_an_operand_is_refused(name):
    memory = np.ones(64, np.float32)
    operands = {**good(), "residual": np.ones((4, 5), np.float32), "out": memory[:20].reshape(4, 5)}
    shape = operands[name].shape
    operands[name] = memory[19 : 19 + int(np.prod(shape))].reshape(shape)
    with pytest.raises(InvalidOperand, match=name):
        dense(**operands)


def test_read_only_inputs_are_fine():
    operands = good()
    operands["x"].setflags(write=False)
    assert (dense(**operands) == 9).all()


@pytest.mark.parametrize("level", LEVELS, indirect=True)
@pytest.mark.parametrize(("rows", "columns", "depth"), [(1, 1, 1), (5, 17, 3), (9, 49, 31)])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_nothing_is_read_or_written_behind_the_arrays(level, rows, columns, depth, dtype, guarded):
    x, residual, out = (
        guarded(shape, np.float32) for shape in ((rows, depth), (rows, columns), (rows, columns))
    )
    rng = np.random.default_rng(0)
    x[:], residual[:] = draw(rng, rows, depth), draw(rng, rows, columns)
    w = draw(rng, depth, columns)
    prepare_dense(w, residual=True, dtype=dtype)(x, residual=residual, out=out)
    want = dense_reference(x, w, residual=residual)
    np.testing.assert_allclose(out, want, atol=0.2 if dtype == "bf16" else 1e-4)
