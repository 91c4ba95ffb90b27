"""What the machine can do at most: products a second, bytes a second and waits by cache, the TLB.

Williams, Waterman and Patterson, "Roofline: An Insightful Visual Performance Model" (2009). It is
measured once and kept in the cache folder; speeds are then given as a part of it.
"""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from llvmlite import ir

from adlik_kernels import configuration
from adlik_kernels.codegen.build import load, write_atomically
from adlik_kernels.codegen.emit import I32, POINTER, VOID, Emitter, kernel_function, vector
from adlik_kernels.codegen.isa import DTYPES, GROUP, dot_of
from adlik_kernels.codegen.micro import micro_kernels
from adlik_kernels.codegen.tiles import (
    EMULATED,
    PRODUCTS,
    STEP,
    TILE_BYTES,
    TILE_ROWS,
    TileLayout,
    instruct,
    number,
    uses_tiles,
)
from adlik_kernels.machine.latency import Translation, latencies, translation
from adlik_kernels.machine.pool import Pool
from adlik_kernels.machine.target import Target, cores, machine
from adlik_kernels.operators.operands import address, aligned_empty
from adlik_kernels.workload import Dense

SUMS = 12
"""Independent sums: enough to hide the latency of a multiply-add, few enough for 16 registers."""

TILE_SUMS = 6
"""The same on AMX: all tiles but one of x and one of w."""

STEPS = 20_000
MOMENT = 0.12
"""Seconds spent on each figure, if they are enough for the least number of calls."""

LEAST = 8

FORMAT = 2
"""Version of the kept figures."""


@dataclass(frozen=True, slots=True)
class Roofline:
    """Measured limits of a machine, all threads together.

    Attributes:
        machine: The processor's own name.
        target: LLVM's name of the processor and the instruction level.
        threads: Threads that shared the work.
        operations: Multiplications and additions a second, by element type.
        bandwidth: Bytes read a second, by where they lie: "l1", "l2", "l3", "memory".
        latency: Seconds of a load that waits for the one before, by where it lies; beyond the TLB
            it contains the translation of its address.
        translation: The TLB of one core.
    """

    machine: str
    target: str
    threads: int
    operations: dict[str, float]
    bandwidth: dict[str, float]
    latency: dict[str, float]
    translation: Translation

    def reads(self, size: int, target: Target) -> float:
        """Returns bytes read a second from the nearest cache that holds so many bytes.

        Args:
            size: Bytes that are read again and again, of all threads together.
            target: The machine.
        """
        own = self.threads
        places = (("l1", own * target.l1_bytes), ("l2", own * target.l2_bytes))
        held = (*places, ("l3", target.l3_bytes))
        place = next((name for name, room in held if 2 * size <= room), "memory")
        return self.bandwidth[place]

    def to_json(self) -> str:
        """Returns the figures as they are kept."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Roofline | None:
        """Reads what `to_json` wrote; None if another version of this module did."""
        values = json.loads(text)
        if values.pop("format", 1) != FORMAT:
            return None
        return cls(translation=Translation(**values.pop("translation")), **values)


def roofline(threads: int) -> Roofline:
    """Returns the limits of this machine for a number of threads, measuring them on first use."""
    target = configuration.target()
    path = configuration.configured().cache / f"roofline-{target.key}-{threads}.json"
    kept = Roofline.from_json(path.read_text()) if path.exists() else None
    if kept is not None:
        return kept
    found = measure_roofline(target, threads)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, found.to_json().encode())
    return found


def measure_roofline(target: Target, threads: int) -> Roofline:
    """Measures the limits of a machine, on a pinned thread of its own: some seconds."""
    with ThreadPoolExecutor(1) as alone:
        return alone.submit(_measure, target, threads).result()


def _measure(target: Target, threads: int) -> Roofline:
    pool = Pool(threads)
    if hasattr(os, "sched_getaffinity") and threads <= cores():
        pool.pin(sorted(os.sched_getaffinity(0))[:threads])
    operations = {dtype: _peak(dtype, target, pool) for dtype in DTYPES}
    sizes = {
        "l1": target.l1_bytes // 2,
        "l2": target.l2_bytes // 2,
        "l3": target.l3_bytes // 2 // threads,
        "memory": 2 * target.l3_bytes,
    }
    bandwidth = {name: _reads(size, target, pool) for name, size in sizes.items()}
    waits = latencies(sizes, target, pool)
    tlb = translation(target, pool)
    pool.close()
    return Roofline(machine(), target.key, threads, operations, bandwidth, waits, tlb)


def _peak(dtype: str, target: Target, pool: Pool) -> float:
    code = load("peak", dtype, lambda: _peak_module(dtype, target), target).address
    sink = aligned_empty((pool.threads, TILE_ROWS * TILE_BYTES // 4), np.float32)
    sink[:] = 0
    arguments = struct.pack("q", address(sink))
    sums, words = SUMS, target.lanes
    if uses_tiles(dtype, target):
        sums, words = TILE_SUMS, TILE_ROWS * TILE_ROWS * STEP
    each = 2 * GROUP[dtype] * words * sums * STEPS
    return pool.threads * each / _shortest(lambda: pool.run(code, arguments, pool.threads))


def _reads(size: int, target: Target, pool: Pool) -> float:
    code = load("reads", "reads", lambda: _reads_module(target), target).address
    sink = aligned_empty((pool.threads, 64), np.float32)
    step = 4 * target.lanes * SUMS
    whole = max(size // step, 1) * step
    data = aligned_empty((pool.threads, whole), np.uint8)
    data[:] = 0
    repeats = max((1 << 21) // whole, 1)
    arguments = struct.pack("4q", address(sink), address(data), whole, repeats)
    seconds = _shortest(lambda: pool.run(code, arguments, pool.threads))
    return pool.threads * whole * repeats / seconds


def _shortest(call: Callable[[], None]) -> float:
    """The shortest time of a call: the one that nothing disturbed."""
    call()
    best, end, calls = float("inf"), time.perf_counter() + MOMENT, 0
    while calls < LEAST or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best, calls = min(best, time.perf_counter() - start), calls + 1
    return best


def _peak_module(dtype: str, target: Target) -> Any:
    """Dot products on registers alone."""
    if uses_tiles(dtype, target):
        return _tile_peak_module(dtype, target)
    module = ir.Module("peak")
    e = Emitter(kernel_function(module, "kernel"))
    chunk, _, arguments = e.function.args
    sink = e.at(e.argument(arguments, 0), e.mul(chunk, 256))
    dot, lanes = dot_of(dtype, target), target.lanes
    word = e.load(sink, I32)
    spread = dot.spread(e, word)
    opened = dot.open(e, e.load(sink, vector(I32, lanes)))
    kind = vector(dot.accumulator, lanes)
    sums = [e.variable(kind, ir.Constant(kind, [0] * lanes)) for _ in range(SUMS)]
    with e.loop(0, STEPS):
        for slot in sums:
            e.builder.store(dot.step(e, e.builder.load(slot), spread, opened), slot)
    for slot in sums:
        e.builder.call(_sink(module, kind), [e.builder.load(slot), sink])
    e.builder.ret_void()
    return module


def _tile_peak_module(dtype: str, target: Target) -> Any:
    """Products of tiles alone."""
    module = ir.Module("peak")
    e = Emitter(kernel_function(module, "kernel"))
    chunk, _, arguments = e.function.args
    sink = e.at(e.argument(arguments, 0), e.mul(chunk, TILE_ROWS * TILE_BYTES))
    layout = TileLayout(TILE_ROWS, TILE_SUMS)
    columns, depth = TILE_ROWS * TILE_SUMS, STEP * GROUP[dtype]
    workload = Dense(TILE_ROWS, columns, depth, dtype)
    micro = micro_kernels(workload, (TILE_ROWS, TILE_SUMS), STEP, target)
    emulated = EMULATED in target.features
    of_x, of_w = number(layout.of_x(0)), number(layout.of_w(0))
    micro.begin(e)
    for tile in (of_x, of_w):
        instruct(e, "tileloadd64", [tile, sink, e.word(TILE_BYTES)], emulated=emulated)
    with e.loop(0, STEPS):
        for vector_number in range(TILE_SUMS):
            sums = number(layout.sums(0, vector_number))
            instruct(e, PRODUCTS[dtype], [sums, of_x, of_w], emulated=emulated)
    micro.end(e)
    e.builder.ret_void()
    return module


def _reads_module(target: Target) -> Any:
    """Loads of whole vectors, `repeats` times over `size` bytes of each chunk's own."""
    module = ir.Module("reads")
    e = Emitter(kernel_function(module, "kernel"))
    chunk, _, arguments = e.function.args
    size, repeats = (e.argument(arguments, n, pointer=False) for n in (2, 3))
    sink = e.at(e.argument(arguments, 0), e.mul(chunk, 256))
    data = e.at(e.argument(arguments, 1), e.mul(chunk, size))
    kind, width = vector(I32, target.lanes), 4 * target.lanes
    sums = [e.variable(kind, ir.Constant(kind, [0] * target.lanes)) for _ in range(SUMS)]
    with e.loop(0, repeats), e.loop(0, size, width * SUMS) as offset:
        for number, slot in enumerate(sums):
            found = e.load(e.at(data, e.add(offset, width * number)), kind, align=width)
            e.builder.store(e.builder.xor(e.builder.load(slot), found), slot)
    for slot in sums:
        e.builder.call(_sink(module, kind), [e.builder.load(slot), sink])
    e.builder.ret_void()
    return module


def _sink(module: Any, kind: Any) -> Any:
    """A function that LLVM may not see into, so that it keeps what is given to it."""
    found = module.globals.get("sink")
    if found is None:
        found = ir.Function(module, ir.FunctionType(VOID, [kind, POINTER]), "sink")
        found.linkage = "internal"
        found.attributes.add("noinline")
        inner = Emitter(found)
        inner.store(found.args[0], found.args[1])
        inner.builder.ret_void()
    return found
