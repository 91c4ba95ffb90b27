"""AMX kernels, run on emulated tiles and, where there are any, on the machine's own."""

import random
import struct
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from adlik_kernels import (
    InvalidSchedule,
    Quantization,
    configuration,
    prepare_conv2d_int8,
    prepare_dense_int8,
)
from adlik_kernels.codegen.tiles import EMULATED, TILES, TileLayout, uses_tiles
from adlik_kernels.machine.pool import shared
from adlik_kernels.machine.target import host
from adlik_kernels.operators.conv import along_k, conv2d_kernel, padded_copy
from adlik_kernels.operators.dense import dense_kernel
from adlik_kernels.operators.operands import address
from adlik_kernels.operators.packing import (
    from_bf16,
    pack_groups,
    pack_weights,
    pad_columns,
    to_bf16,
)
from adlik_kernels.references import activate, blocked_reference, conv2d_reference, dense_reference
from adlik_kernels.schedules.schedule import NEXT, Schedule
from adlik_kernels.schedules.space import Space
from adlik_kernels.workload import Conv2d, Dense
from hypothesis import given, settings
from hypothesis import strategies as st

from .levels import needs

TARGETS = {
    "emulated": replace(host(), level="amx", features=host().features | {EMULATED}),
    "instructions": host(),
}
modes = pytest.mark.parametrize("mode", ["emulated", needs("amx", "instructions")])
seeds = st.integers(0, 2**32 - 1)


@contextmanager
def on(mode):
    """Makes operators compile for emulated tiles, or for this machine's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(configuration, "target", lambda: TARGETS[mode])
        yield


def operands(rng, dtype, x_shape, w_shape):
    """Random x and w as kernels read them, and their values."""
    if dtype == "int8":
        x = rng.integers(0, 256, x_shape).astype(np.uint8)
        w = rng.integers(-128, 128, w_shape).astype(np.int8)
        return x, w, x, w
    x, w = (to_bf16(rng.standard_normal(shape).astype("f4")) for shape in (x_shape, w_shape))
    return x, w, from_bf16(x), from_bf16(w)


def run(kernel, x, packed, out, count, *, columns=0, chunks=3, bias=None, residual=None):
    columns = columns or out.shape[-1]
    constants = (pad_columns(0.0 if bias is None else bias, columns), pad_columns(1.0, columns))
    nothing = np.zeros(4, np.float32)
    places = (x, packed, out, constants[0], nothing if residual is None else residual)
    places = (*places, constants[1], nothing)
    shared(2).run(kernel.address, struct.pack("8q", *map(address, places), count), chunks)


@modes
@pytest.mark.parametrize("dtype", ["int8", "bf16"])
@settings(max_examples=6, deadline=None)
@given(
    rows=st.integers(1, 80),
    columns=st.integers(1, 100),
    words=st.integers(1, 100),
    any_rows=st.booleans(),
    threads=st.integers(1, 2),
    seed=seeds,
)
def test_random_products(mode, dtype, rows, columns, words, any_rows, threads, seed):
    rng, target = np.random.default_rng(seed), TARGETS[mode]
    depth = words * {"int8": 4, "bf16": 2}[dtype]
    workload = Dense(rows, columns, depth, dtype)
    schedule = Space(workload, target, threads).sample(random.Random(seed))
    kernel = dense_kernel(replace(workload, rows=0) if any_rows else workload, schedule, target)
    x, w, real_x, real_w = operands(rng, dtype, (rows, depth), (depth, columns))
    out = np.full((rows, columns), np.nan, np.float32)
    run(kernel, x, pack_weights(w, 16 * schedule.vectors, dtype), out, rows)
    want = dense_reference(real_x, real_w)
    if dtype == "int8":
        np.testing.assert_array_equal(out, want.astype(np.float32))
    else:
        np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-5 * np.sqrt(depth))


@modes
@pytest.mark.parametrize("dtype", ["int8", "bf16"])
@settings(max_examples=8, deadline=None)
@given(
    size=st.tuples(st.integers(5, 14), st.integers(5, 72)),
    channels=st.one_of(st.just(16), st.integers(1, 20).map(lambda n: 4 * n)),
    filters=st.one_of(st.sampled_from([16, 48]), st.integers(1, 35)),
    groups=st.sampled_from([1, 1, 2]),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    blocked=st.tuples(st.booleans(), st.booleans()),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(st.integers(0, 1), st.integers(0, 1)),
    seed=seeds,
)
def test_random_convolutions(
    mode, dtype, size, channels, filters, groups, dilation, blocked, kernel, stride, padding, seed
):
    rng, target = np.random.default_rng(seed), TARGETS[mode]
    into, out_of = (
        "blocked" if wanted and count % 16 == 0 else "last"
        for wanted, count in zip(blocked, (channels, filters), strict=True)
    )
    workload = Conv2d(
        *size,
        groups * channels,
        groups * filters,
        kernel,
        stride,
        padding,
        dtype=dtype,
        dilation=dilation,
        groups=groups,
        in_layout=into,
        out_layout=out_of,
    )
    schedule = Space(workload, target, 2).sample(random.Random(seed))
    shapes = ((2, *size, groups * channels), (groups * filters, channels, *kernel))
    x, w, real_x, real_w = operands(rng, dtype, *shapes)
    want = conv2d_reference(real_x, real_w, stride, padding, groups, dilation=dilation)
    want = blocked_reference(want) if out_of == "blocked" else want
    x = padded_copy(x, padding)
    x = blocked_reference(x) if into == "blocked" else x
    out = np.full(want.shape, np.nan, np.float32)
    packed = pack_groups(along_k(w, into), 16 * schedule.vectors, dtype, groups)
    columns = groups * filters
    run(conv2d_kernel(workload, schedule, target), x, packed, out, 2, columns=columns)
    if dtype == "int8":
        np.testing.assert_array_equal(out, want.astype(np.float32))
    else:
        np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-4)


@modes
@pytest.mark.parametrize(
    ("block", "k_block"),
    [((48, 1), 0), ((16, 4), 0), ((29, 2), 128), ((5, 3), 0)],
)
def test_fused_ends_and_blocks_of_k(mode, block, k_block):
    rng, depth = np.random.default_rng(1), 2 * 299
    workload = Dense(95, 75, depth, "bf16", bias=True, residual=True, activation="silu")
    schedule = Schedule(*block, k_block=k_block, row_tiles=1)
    x, w, real_x, real_w = operands(rng, "bf16", (95, depth), (depth, 75))
    bias, residual = (rng.standard_normal(shape).astype("f4") for shape in ((75,), (95, 75)))
    out = np.full((95, 75), np.nan, np.float32)
    packed = pack_weights(w, 16 * schedule.vectors, "bf16")
    kernel = dense_kernel(workload, schedule, TARGETS[mode])
    run(kernel, x, packed, out, 95, bias=bias, residual=residual)
    want = dense_reference(real_x, real_w, bias, residual, "silu")
    np.testing.assert_allclose(out, want, rtol=1e-4, atol=1e-3)


@modes
def test_layers_are_requantized(mode):
    rng = np.random.default_rng(7)
    x, w, *_ = operands(rng, "int8", (37, 66), (66, 45))
    bias, scale = rng.standard_normal(45).astype("f4"), rng.uniform(0.001, 0.01, 45).astype("f4")
    real = dense_reference(x.astype(np.int64) - 128, w) * (0.02 * scale.astype(float)) + bias
    real = activate("relu", real)
    step = float(real.max() / 90)
    levels = Quantization(0.02, 128, scale, out_scale=step, out_zero=100)
    with on(mode):
        got = prepare_dense_int8(w, levels, bias, "relu", rows=(37,))(x)
        pixels = x[:35].reshape(1, 5, 7, 66)[..., :64].copy()
        filters = np.ascontiguousarray(w[:64].T.reshape(45, 64, 1, 1))
        same = prepare_conv2d_int8(filters, (5, 7), levels, bias, "relu")(pixels)
        dense = prepare_dense_int8(w[:64].copy(), levels, bias, "relu", rows=(35,))
        again = dense(pixels.reshape(35, 64))
    difference = np.abs(got.astype(int) - np.clip(np.rint(real / step) + 100, 0, 255))
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01
    np.testing.assert_array_equal(same.reshape(35, 45), again)


@modes
@pytest.mark.parametrize("activation", [None, "relu6", "sigmoid"])
@pytest.mark.parametrize("layout", ["last", "blocked"])
@pytest.mark.parametrize("sums", [(0.0, 0), (0.04, 120)])
def test_levels_are_those_of_vectors(mode, activation, layout, sums):
    """The end is the vectors' own, so that every level is the same, and so is what tails write."""
    rng = np.random.default_rng(11)
    filters, shape = 48 if layout == "blocked" else 75, (2, 5, 19)
    w = rng.integers(-128, 128, (filters, 16, 3, 3)).astype(np.int8)
    bias = rng.standard_normal(filters).astype("f4")
    scale = rng.uniform(0.0002, 0.002, filters).astype("f4")
    levels = Quantization(0.02, 131, scale, 0.03, 60, 0.02, 90, *sums)
    x = rng.integers(0, 256, (*shape, 16)).astype(np.uint8)
    residual = rng.integers(0, 256, (*shape, filters)).astype(np.uint8)
    residual = blocked_reference(residual) if layout == "blocked" else residual
    sides = {"padding": (1, 1), "out_layout": layout, "residual": True}

    def computed():
        layer = prepare_conv2d_int8(w, (5, 19), levels, bias, activation, **sides)
        return layer(x, residual=residual)

    want = computed()
    with on(mode):
        got = computed()
    np.testing.assert_array_equal(got, want)
    assert len(np.unique(got)) > 20


@modes
@pytest.mark.parametrize(("rows", "columns", "words"), [(1, 1, 1), (19, 17, 3), (33, 49, 71)])
@pytest.mark.parametrize("dtype", ["int8", "bf16"])
def test_nothing_is_read_or_written_behind_the_arrays(mode, dtype, rows, columns, words, guarded):
    rng, target, depth = np.random.default_rng(0), TARGETS[mode], 4 * words
    workload = Dense(rows, columns, depth, dtype, residual=dtype == "bf16")
    schedule = Space(workload, target, 2).default()
    x, w, real_x, real_w = operands(rng, dtype, (rows, depth), (depth, columns))
    packed = pack_weights(w, 16 * schedule.vectors, dtype)
    arrays = (x, packed, np.zeros((rows, columns), "f4"), np.ones((rows, columns), "f4"))
    held = [guarded(array.shape, array.dtype) for array in arrays]
    for place, array in zip(held, arrays, strict=True):
        place[:] = array
    x, packed, out, residual = held
    run(dense_kernel(workload, schedule, target), x, packed, out, rows, residual=residual)
    want = dense_reference(real_x, real_w, residual=residual if dtype == "bf16" else None)
    np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-3)


@modes
def test_results_do_not_depend_on_chunks(mode):
    workload, target = Dense(90, 100, 400, "bf16"), TARGETS[mode]
    rng = np.random.default_rng(3)
    x, w, *_ = operands(rng, "bf16", (90, 400), (400, 100))
    results = []
    for parallel, chunks in (("rows", 1), ("rows", 3), ("columns", 2), ("blocks", 5)):
        schedule = Schedule(32, 2, row_tiles=1, parallel=parallel)
        out = np.empty((90, 100), np.float32)
        packed = pack_weights(w, 32, "bf16")
        run(dense_kernel(workload, schedule, target), x, packed, out, 90, chunks=chunks)
        results.append(out)
    assert all((result == results[0]).all() for result in results[1:])


@given(rows=st.integers(1, 48), vectors=st.integers(1, 4), tail=st.integers(0, 15))
def test_layouts_give_every_tile_one_use(rows, vectors, tail):
    layout = TileLayout(rows, vectors, tail)
    covered = {row for start in layout.starts for row in range(start, start + layout.height)}
    assert covered == set(range(rows))
    if layout.tiles > TILES:
        return
    parts, columns = range(layout.parts), range(vectors)
    sums = {layout.sums(part, column) for part in parts for column in columns}
    of_x, of_w = ({layout.of_x(p) for p in parts}, {layout.of_w(c) for c in columns})
    tails = {layout.tail_of_x, layout.tail_of_w} if tail else set()
    used = sums | of_x | of_w | tails
    assert len(sums) + len(of_x) + len(of_w) + len(tails) == len(used)
    assert used <= set(range(TILES))


@pytest.mark.parametrize("workload", [
    Dense(8, 1000, 300, "int8"),
    Dense(512, 512, 512, "bf16"),
    Conv2d(14, 14, 64, 64, (3, 3), padding=(1, 1), dtype="int8"),
    Conv2d(7, 7, 20, 30, dtype="int8"),
])  # fmt: skip
@pytest.mark.parametrize("threads", [1, 2])
def test_the_space_of_schedules_knows_tiles(workload, threads):
    space = Space(workload, TARGETS["emulated"], threads)
    assert not space.fault(space.default())
    found = list(space)
    assert found
    assert all(schedule.unroll == 1 and not schedule.prefetch for schedule in found)
    for schedule in (Schedule(14, 2, unroll=4, prefetch=8), Schedule(48, 4), Schedule(64, 8)):
        assert space.fault(schedule)
        assert not space.fault(space.repaired(schedule))
    with pytest.raises(InvalidSchedule):
        dense_kernel(Dense(0, 256, 66, "int8"), Schedule(48, 2), TARGETS["emulated"])
    window = Conv2d(8, 9, 64, 64, (3, 3), dtype="bf16")
    for wrong in (Schedule(16, 2, k_block=128), Schedule(16, 2, prefetch=NEXT)):
        with pytest.raises(InvalidSchedule, match="AMX"):
            conv2d_kernel(window, wrong, TARGETS["emulated"])


def test_floats_are_left_to_vectors():
    target = TARGETS["emulated"]
    assert uses_tiles("int8", target)
    assert not uses_tiles("fp32", target)
    assert not uses_tiles("int8", replace(target, level="avx512"))
    assert not uses_tiles("bf16", replace(target, features=frozenset({"amx-tile", "amx-int8"})))
