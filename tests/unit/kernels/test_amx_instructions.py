"""The tile instructions: their emulation against numpy, and the real ones in compiled code."""

import ctypes
import json
import re
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from adlik_kernels.codegen import build
from adlik_kernels.codegen.emit import Emitter, kernel_function
from adlik_kernels.codegen.tile_emulation import define_emulation
from adlik_kernels.codegen.tiles import instruct, number
from adlik_kernels.machine import amx, roofline
from adlik_kernels.machine.pool import shared
from adlik_kernels.machine.target import host, level_of, uncapped
from adlik_kernels.schedules.schedule import Schedule
from adlik_kernels.templates.conv import conv2d_module
from adlik_kernels.templates.dense import dense_module
from adlik_kernels.workload import Conv2d, Dense
from hypothesis import given, settings
from hypothesis import strategies as st
from llvmlite import ir

from .levels import needs
from .machines import MACHINES

TILES = frozenset({"amx-tile", "amx-int8", "amx-bf16"})
RAPIDS = MACHINES["amx"]
"""A processor with AMX that is compiled for, here or not."""


def product_module(name, *, emulated):
    """A kernel that loads a configuration and three tiles, multiplies and stores the sums."""
    module = ir.Module("product")
    e = Emitter(kernel_function(module, "kernel"))
    if emulated:
        define_emulation(module)
    block = e.function.args[2]
    settings, total, left, right, out = (e.argument(block, place) for place in range(5))
    stride = e.word(64)
    instruct(e, "ldtilecfg", [settings], emulated=emulated)
    for tile, source in enumerate((total, left, right)):
        instruct(e, "tileloadd64", [number(tile), source, stride], emulated=emulated)
    instruct(e, name, [number(n) for n in range(3)], emulated=emulated)
    instruct(e, "tilestored64", [number(0), out, stride], emulated=emulated)
    instruct(e, "tilerelease", [], emulated=emulated)
    e.builder.ret_void()
    return module


modes = pytest.mark.parametrize("mode", ["emulated", needs("amx", "instructions")])


def multiply(mode, name, shape, total, left, right):
    """Runs one product of tiles of [rows, k words, columns] and returns all 16 x 16 words."""
    rows, words, columns = shape
    block = np.zeros(64, np.uint8)
    block[0] = 1
    block[16:22:2] = 4 * columns, 4 * words, 4 * columns
    block[48:51] = rows, rows, words
    out = np.full((16, 16), 77, np.uint32)
    loaded = build.load(
        "product",
        (name, mode),
        lambda: product_module(name, emulated=mode == "emulated"),
        host(),
    )
    kernel = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
    places = [array.ctypes.data for array in (block, total, left, right, out)]
    arguments = np.array(places, np.int64)
    kernel(loaded.address)(0, 1, arguments.ctypes.data)
    return out


shapes = st.tuples(st.integers(1, 16), st.integers(1, 16), st.integers(1, 16))


@modes
@settings(max_examples=40, deadline=None)
@given(shape=shapes, seed=st.integers(0, 2**32 - 1))
def test_bytes_are_multiplied_within_the_configuration(mode, shape, seed):
    rng, (rows, words, columns) = np.random.default_rng(seed), shape
    total, left, right = rng.integers(0, 2**32, (3, 16, 16), dtype=np.uint32)
    out = multiply(mode, "tdpbusd", shape, total, left, right)
    x = left.view(np.uint8)[:rows, : 4 * words].astype(np.int64)
    w = right.view(np.int8).reshape(16, 16, 4)[:words, :columns].transpose(0, 2, 1)
    sums = x @ w.reshape(4 * words, columns).astype(np.int64) + total[:rows, :columns]
    want = np.full((16, 16), 77, np.uint32)
    want[:rows, :columns] = sums.astype(np.uint64).astype(np.uint32)
    np.testing.assert_array_equal(out, want)


@modes
@settings(max_examples=40, deadline=None)
@given(shape=shapes, scale=st.integers(-130, 60), seed=st.integers(0, 2**32 - 1))
def test_bfloat16_is_rounded_as_the_processor_does(mode, shape, scale, seed):
    """Even and odd products apart, one rounding each, and nothing below the normal numbers."""
    rng, (rows, words, columns) = np.random.default_rng(seed), shape
    values = rng.standard_normal((3, 16, 32)).astype(np.float32) * np.float32(2.0**scale)
    left, right = ((part.view(np.uint32) >> 16).astype(np.uint16) for part in values[1:])
    total = np.ascontiguousarray(values[0, :, :16])
    args = [array.view(np.uint32) for array in (total, left, right)]
    out = multiply(mode, "tdpbf16ps", shape, *args).view(np.float32)
    x, w = (flushed((half.astype(np.uint32) << 16).view(np.float32)) for half in (left, right))
    w = w.reshape(16, 16, 2)
    want = flushed(total[:rows, :columns])
    halves = np.zeros((2, rows, columns), np.float32)
    for k in range(words):
        for odd in range(2):
            product = x[:rows, 2 * k + odd, None] * w[k, :columns, odd]
            halves[odd] = flushed(halves[odd] + flushed(product))
    want = flushed(want + flushed(halves[0] + halves[1]))
    np.testing.assert_array_equal(out[:rows, :columns], want)


def flushed(values):
    tiny = np.abs(values) < np.finfo(np.float32).tiny
    return np.where(tiny, np.copysign(np.float32(0), values), values)


FAULTS = """
import ctypes, json, os, tempfile
import numpy as np
from adlik_kernels import configure
from adlik_kernels.codegen import build
from adlik_kernels.codegen.emit import Emitter, kernel_function
from adlik_kernels.codegen.tile_emulation import define_emulation
from adlik_kernels.codegen.tiles import instruct, number
from adlik_kernels.machine.target import host
from llvmlite import ir
configure(cache=tempfile.mkdtemp())
TILES = {"none": (1, 4, 8), "17 rows": (1, 17, 8), "other palette": (2, 4, 8)}
signals = {}
for fault in ("none", "no configuration", "17 rows", "other palette", "other k"):
    child = os.fork()
    if child:
        signals[fault] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        continue
    module = ir.Module("fault")
    e = Emitter(kernel_function(module, "kernel"))
    define_emulation(module)
    if fault != "no configuration":
        instruct(e, "ldtilecfg", [e.argument(e.function.args[2], 0)], emulated=True)
    instruct(e, "tilezero", [number(0)], emulated=True)
    if fault == "other k":
        instruct(e, "tdpbusd", [number(n) for n in range(3)], emulated=True)
    e.builder.ret_void()
    settings, shape = np.zeros(64, np.uint8), TILES.get(fault, TILES["none"])
    settings[0], settings[48:51], settings[16:22:2] = shape
    places = np.array([settings.ctypes.data])
    run = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
    run(build.load("fault", fault, lambda: module, host()).address)(0, 1, places.ctypes.data)
    os._exit(0)
print(json.dumps(signals))
"""


def test_emulated_tiles_refuse_what_the_processor_refuses():
    """In children, for a fault ends the process."""
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, check=True)
    signals = json.loads(done.stdout)
    assert signals.pop("none") == 0
    assert len(signals) == 4
    assert set(signals.values()) <= {-signal.SIGILL, -signal.SIGTRAP}


def instructions(module, target=RAPIDS):
    """Counts of tile instructions in a compiled module, by function."""
    text = build.machine_code(str(module), target, optimize=False)
    assert "emulated" not in text
    found, function = {}, ""
    for line in text.splitlines():
        if label := re.match(r"(kernel|tile_\w+):", line):
            function = label[1]
        elif name := re.match(r"\s+(ldtilecfg|tile\w+|tdp\w+)\s*(?=[\s%(]|$)", line):
            counts = found.setdefault(function, {})
            counts[name[1]] = counts.get(name[1], 0) + 1
    return found


@pytest.mark.parametrize(("dtype", "product"), [("int8", "tdpbusd"), ("bf16", "tdpbf16ps")])
def test_compiled_products_have_the_instructions(dtype, product):
    depth = 64 * {"int8": 4, "bf16": 2}[dtype]
    found = instructions(dense_module(Dense(64, 64, depth, dtype), Schedule(32, 2), RAPIDS))
    body = {"tilezero": 4, "tileloadd": 4, product: 4, "tilestored": 4}
    assert found == {"kernel": {"ldtilecfg": 1, "tilerelease": 1}, "tile_32x32_11": body}


def test_tails_have_instructions_and_configurations_of_their_own():
    found = instructions(dense_module(Dense(37, 32, 4 * 37, "int8"), Schedule(32, 2), RAPIDS))
    assert found["kernel"] == {"ldtilecfg": 1, "tilerelease": 1}
    # Whole steps and the tail of k: with it, two tiles less are free and one is loaded again.
    whole = {"tilezero": 4, "tileloadd": 10, "tdpbusd": 8, "tilestored": 4}
    assert found["tile_32x32_11"] == whole
    few = {"ldtilecfg": 2, "tilezero": 2, "tileloadd": 6, "tdpbusd": 4, "tilestored": 2}
    assert found["tile_5x32_11"] == few


@pytest.mark.parametrize(("dtype", "product"), [("int8", "tdpbusd"), ("bf16", "tdpbf16ps")])
def test_compiled_convolutions_have_the_instructions(dtype, product):
    workload = Conv2d(14, 27, 64, 64, (3, 3), padding=(1, 1), dtype=dtype)
    found = instructions(conv2d_module(workload, Schedule(16, 4), RAPIDS))
    body = {"tilezero": 4, "tileloadd": 5, product: 4, "tilestored": 4}
    assert found == {"kernel": {"ldtilecfg": 1, "tilerelease": 1}, "tile_14x64_11": body}


@pytest.mark.parametrize(("dtype", "product"), [("int8", "tdpbusd"), ("bf16", "tdpbf16ps")])
def test_the_peak_is_that_of_tiles(dtype, product):
    found = instructions(roofline._peak_module(dtype, RAPIDS))["kernel"]
    assert found[product] == roofline.TILE_SUMS
    assert found["ldtilecfg"] == found["tilerelease"] == 1


@pytest.mark.parametrize("dtype", ["int8", "bf16"])
def test_a_peak_is_measured_on_tiles(dtype, monkeypatch, emulated_tiles):
    monkeypatch.setattr(roofline, "STEPS", 20)
    monkeypatch.setattr(roofline, "MOMENT", 0.01)
    assert roofline._peak(dtype, emulated_tiles, shared(1)) > 0


def test_below_the_level_and_for_floats_there_are_none():
    lower = RAPIDS.masked_to("avx512")
    for workload, target in ((Dense(64, 64, 64, "int8"), lower), (Dense(64, 64, 64), RAPIDS)):
        assert not instructions(dense_module(workload, Schedule(8, 2), target), target)


@pytest.mark.parametrize("permitted", [True, False])
def test_there_is_no_level_that_the_system_refuses(permitted, monkeypatch):
    monkeypatch.setattr(amx, "amx_permitted", lambda: permitted)
    assert level_of(RAPIDS.features) == "amx"
    assert level_of(amx.without_refused(RAPIDS.features)) == ("amx" if permitted else "avx512")
    assert amx.why_no_amx(RAPIDS.features) == ("" if permitted else "the system does not permit it")
    assert "amx-bf16" in amx.why_no_amx(RAPIDS.features - {"amx-bf16"})


def test_this_machine_says_what_it_has():
    has = uncapped().level == "amx"
    assert has == (uncapped().features >= TILES)
    assert has == (not amx.why_no_amx(amx.found_features()))
    if host().level != "amx":
        assert "amx" not in " ".join(host().features)
    kept = replace(host(), level="amx", features=host().features | TILES).masked_to("avx2")
    assert not kept.features & TILES
