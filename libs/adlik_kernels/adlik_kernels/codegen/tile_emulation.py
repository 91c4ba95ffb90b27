"""AMX in software: functions that do what the tile instructions do, for machines without them.

They run AMX kernels in tests, all but the instructions themselves, and nowhere else. Written after
the operation sections of Intel's "Software Developer's Manual", volume 2, with its faults: what the
processor refuses ends the process here as well. A thread's tiles live in a table of the module,
under the thread's own number, so that kernels are the same with and without the emulation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from adlik_kernels.codegen.emit import (
    F32,
    I8,
    I16,
    I32,
    I64,
    POINTER,
    VOID,
    Emitter,
    Value,
    splat,
    splat_constant,
    vector,
)
from adlik_kernels.codegen.isa import PairwiseMultiplyAdd, WideningMultiplyAdd
from adlik_kernels.codegen.tiles import TILE_BYTES, TILE_ROWS, TILES

LANES = 16
WORDS = vector(I32, LANES)
ZEROS = ir.Constant(WORDS, [0] * LANES)

_THREADS = 64
"""Threads that may be inside kernels of one module at the same time."""

_OWNER, _CONFIGURATION, _TILES = 0, 64, 128
_TILE = TILE_ROWS * TILE_BYTES
_STATE = _TILES + TILES * _TILE
"""Bytes of a thread's state: whose it is, the configuration, the tiles."""


def define_emulation(module: Any) -> None:
    """Adds the emulated instructions to a module, once: private functions named `emulated_*`."""
    if "emulated_ldtilecfg" in module.globals:
        return
    table = ir.GlobalVariable(module, ir.ArrayType(I8, _THREADS * _STATE), "emulated_states")
    table.linkage, table.align = "internal", TILE_BYTES
    table.initializer = ir.Constant(table.value_type, None)
    find = _private(module, "emulated_state", POINTER, [])
    _write_find(Emitter(find), table)
    writers: dict[str, tuple[list[Any], Callable[..., None]]] = {
        "ldtilecfg": ([POINTER], lambda e, source: _configure(e, source, table)),
        "tilerelease": ([], _release),
        "tilezero": ([I8], lambda e, tile: _clear(e, _Tile(e, tile).data, 0)),
        "tileloadd64": ([I8, POINTER, I64], _load),
        "tilestored64": ([I8, POINTER, I64], _store),
        "tdpbusd": ([I8, I8, I8], lambda e, *tiles: _multiply(e, tiles, _Bytes())),
        "tdpbf16ps": ([I8, I8, I8], lambda e, *tiles: _multiply(e, tiles, _Pairs())),
    }
    for name, (kinds, write) in writers.items():
        e = Emitter(_private(module, f"emulated_{name}", VOID, kinds))
        write(e, *e.function.args)
        e.builder.ret_void()


def _private(module: Any, name: str, result: Any, kinds: list[Any]) -> Any:
    function = ir.Function(module, ir.FunctionType(result, kinds), name)
    function.linkage = "internal"
    function.attributes.add("nounwind")
    function.attributes.add("noinline")
    return function


def _write_find(e: Emitter, table: Any) -> None:
    """Returns the state of the calling thread, or nothing."""
    mine = _thread(e)
    with e.loop(0, _THREADS) as place:
        state = e.at(table, e.mul(place, _STATE))
        owner = e.builder.load_atomic(e.at(state, _OWNER), "monotonic", 8, typ=I64)
        with e.when(e.builder.icmp_signed("==", owner, mine)):
            e.builder.ret(state)
    e.builder.ret(ir.Constant(POINTER, None))


def _configure(e: Emitter, source: Value, table: Any) -> None:
    """Takes a state if the thread has none, checks and keeps the configuration, clears all."""
    kept = e.variable(POINTER, _found(e))
    missing = ir.Constant(POINTER, None)
    with e.loop(0, _THREADS) as place, e.when(_same(e, e.builder.load(kept), missing)):
        state = e.at(table, e.mul(place, _STATE))
        taken = e.builder.cmpxchg(
            e.at(state, _OWNER), e.word(0), _thread(e), "acq_rel", "monotonic"
        )
        with e.when(e.builder.extract_value(taken, 1)):
            e.builder.store(state, kept)
    state = e.builder.load(kept)
    _refuse(e, _same(e, state, missing))
    content = e.load(source, WORDS)
    e.store(content, e.at(state, _CONFIGURATION))
    palette = e.load(source, I8)
    _refuse(e, e.builder.icmp_unsigned("!=", palette, ir.Constant(I8, 1)))
    with e.loop(0, TILES) as tile:
        rows, row_bytes = _shape(e, state, tile)
        _refuse(e, e.less(TILE_ROWS, rows))
        _refuse(e, e.less(TILE_BYTES, row_bytes))
        none = [e.builder.icmp_signed("==", size, e.word(0)) for size in (rows, row_bytes)]
        _refuse(e, e.builder.xor(*none))
        _clear(e, e.at(state, e.add(e.mul(tile, _TILE), _TILES)), 0)


def _release(e: Emitter) -> None:
    state = _found(e)
    with e.when(e.builder.icmp_unsigned("!=", state, ir.Constant(POINTER, None))):
        e.builder.atomic_rmw("xchg", e.at(state, _OWNER), e.word(0), "release")


def _load(e: Emitter, tile: Value, source: Value, stride: Value) -> None:
    """Rows from memory; what the configuration leaves out is zero."""
    to = _Tile(e, tile)
    _clear(e, to.data, 0)
    with e.loop(0, to.rows) as row:
        arguments = [e.at(source, e.mul(row, stride)), ir.Constant(I32, 1), to.mask, ZEROS]
        words = e.intrinsic(f"llvm.masked.load.v{LANES}i32.p0", WORDS, arguments)
        e.store(words, to.at(row), TILE_BYTES)


def _store(e: Emitter, tile: Value, target: Value, stride: Value) -> None:
    """Configured rows and bytes to memory, and no more."""
    source = _Tile(e, tile)
    with e.loop(0, source.rows) as row:
        words = e.load(source.at(row), WORDS, TILE_BYTES)
        place = e.at(target, e.mul(row, stride))
        arguments = [words, place, ir.Constant(I32, 1), source.mask]
        e.intrinsic(f"llvm.masked.store.v{LANES}i32.p0", VOID, arguments)


def _multiply(e: Emitter, numbers: tuple[Value, ...], product: _Bytes | _Pairs) -> None:
    total, left, right = (_Tile(e, tile) for tile in numbers)
    b = e.builder
    for tiles in ((total, left), (total, right), (left, right)):
        pair = (tile.number for tile in tiles)
        _refuse(e, b.icmp_unsigned("==", *pair))
    _refuse(e, b.icmp_signed("!=", total.rows, left.rows))
    _refuse(e, b.icmp_signed("!=", total.row_bytes, right.row_bytes))
    _refuse(e, b.icmp_signed("!=", left.row_bytes, e.mul(right.rows, 4)))
    with e.loop(0, total.rows) as row:
        sums = product.begin(e, e.load(total.at(row), WORDS, TILE_BYTES))
        with e.loop(0, right.rows) as k:
            word = e.load(e.at(left.at(row), e.mul(k, 4)), I32, 4)
            product.step(e, sums, word, e.load(right.at(k), WORDS, TILE_BYTES))
        found = b.select(total.mask, product.end(e, sums), ZEROS)
        e.store(found, total.at(row), TILE_BYTES)
    _clear(e, total.data, total.rows)


class _Bytes:
    """TDPBUSD: sums of four products of unsigned by signed bytes, in 32 bits."""

    DOT = PairwiseMultiplyAdd(LANES, fused=False)

    def begin(self, e: Emitter, total: Value) -> list[Any]:
        return [e.variable(WORDS, total)]

    def step(self, e: Emitter, sums: list[Any], word: Value, words: Value) -> None:
        left, right = self.DOT.spread(e, word), self.DOT.open(e, words)
        e.builder.store(self.DOT.step(e, e.builder.load(sums[0]), left, right), sums[0])

    def end(self, e: Emitter, sums: list[Any]) -> Value:
        return e.builder.load(sums[0])


class _Pairs:
    """TDPBF16PS: even and odd products apart, then added; numbers below the normal ones are 0."""

    DOT, FLOATS = WideningMultiplyAdd(LANES, fused=False), vector(F32, LANES)

    def begin(self, e: Emitter, total: Value) -> list[Any]:
        zero = ir.Constant(self.FLOATS, [0.0] * LANES)
        start = e.variable(self.FLOATS, e.builder.bitcast(total, self.FLOATS))
        return [start, e.variable(self.FLOATS, zero), e.variable(self.FLOATS, zero)]

    def step(self, e: Emitter, sums: list[Any], word: Value, words: Value) -> None:
        left, right = self.DOT.spread(e, word), self.DOT.open(e, words)
        for slot, of_x, of_w in zip(sums[1:], left, right, strict=True):
            # A product of two bfloat16 is exact, so that this is the instruction's fused rounding.
            product = e.builder.fmul(_flushed(e, of_x), _flushed(e, of_w))
            total = e.builder.fadd(product, e.builder.load(slot))
            e.builder.store(_flushed(e, total), slot)

    def end(self, e: Emitter, sums: list[Any]) -> Value:
        start, even, odd = (_flushed(e, e.builder.load(slot)) for slot in sums)
        both = _flushed(e, e.builder.fadd(even, odd))
        return e.builder.bitcast(_flushed(e, e.builder.fadd(start, both)), WORDS)


class _Tile:
    """One tile of the calling thread; using it without a configuration is refused."""

    def __init__(self, e: Emitter, number: Value) -> None:
        self.e, self.number = e, number
        state, place = _found(e), e.builder.zext(number, I64)
        _refuse(e, _same(e, state, ir.Constant(POINTER, None)))
        self.rows, self.row_bytes = _shape(e, state, place)
        _refuse(e, e.less(self.rows, 1))
        self.data = e.at(state, e.add(e.mul(place, _TILE), _TILES))
        used = splat(e, e.builder.trunc(e.div(self.row_bytes, 4), I32), LANES)
        self.mask = e.builder.icmp_unsigned("<", ir.Constant(WORDS, list(range(LANES))), used)

    def at(self, row: Value) -> Value:
        """Where a row is kept."""
        return self.e.at(self.data, self.e.mul(row, TILE_BYTES))


def _found(e: Emitter) -> Value:
    return e.builder.call(e.module.globals["emulated_state"], [])


def _thread(e: Emitter) -> Value:
    return e.intrinsic("pthread_self", I64, [])


def _same(e: Emitter, left: Value, right: Value) -> Value:
    return e.builder.icmp_unsigned("==", left, right)


def _shape(e: Emitter, state: Value, tile: Value) -> tuple[Value, Value]:
    """Rows of a tile, and bytes of a row."""
    rows = e.load(e.at(state, e.add(tile, _CONFIGURATION + 48)), I8)
    row_bytes = e.load(e.at(state, e.add(e.mul(tile, 2), _CONFIGURATION + 16)), I16)
    return e.builder.zext(rows, I64), e.builder.zext(row_bytes, I64)


def _clear(e: Emitter, data: Value, first: int | Value) -> None:
    """Sets the rows of a tile from one on to zero."""
    with e.loop(first, TILE_ROWS) as row:
        e.store(ZEROS, e.at(data, e.mul(row, TILE_BYTES)), TILE_BYTES)


def _refuse(e: Emitter, wrong: Value) -> None:
    """Ends the process as the processor would: by a fault."""
    with e.when(wrong):
        e.intrinsic("llvm.trap", VOID, [])


def _flushed(e: Emitter, numbers: Value) -> Value:
    """Zero for numbers below the normal ones, whose exponent's bits are 0; the sign stays."""
    b = e.builder
    bits = b.bitcast(numbers, WORDS)
    exponent = b.and_(bits, splat_constant(I32, LANES, 0x7F800000))
    tiny = b.icmp_unsigned("==", exponent, ZEROS)
    signs = b.and_(bits, splat_constant(I32, LANES, 0x80000000))
    return b.bitcast(b.select(tiny, signs, bits), numbers.type)
