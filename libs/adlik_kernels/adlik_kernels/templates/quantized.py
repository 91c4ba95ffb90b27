"""The templates of operators on quantized numbers: to levels and back, sums, tables.

Each works from grid to grid, or, without grids, on rows whose length is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from adlik_kernels.codegen.emit import F32, I8, I32, I64, Emitter, Value, kernel_function, vector
from adlik_kernels.codegen.isa import multiply_add
from adlik_kernels.machine.target import Target
from adlik_kernels.templates.grids import (
    BATCH,
    IN,
    LINE,
    OUT,
    RUN,
    SCALES,
    SECOND,
    ZEROS,
    Grid,
    cover,
    own_rows,
    widest,
)
from adlik_kernels.templates.levels import fill, from_levels, span_of, to_levels, wide_levels

EACH = ("array", "row", "number")
"""What has a scale and a zero of its own: the array, each row, or each number of a row."""

SHUFFLES = {
    16: ("llvm.x86.ssse3.pshuf.b.128", "ssse3"),
    32: ("llvm.x86.avx2.pshuf.b", "avx2"),
    64: ("llvm.x86.avx512.pshuf.b.512", "avx512bw"),
}
"""Instructions that look up bytes in tables of 16, by the bytes of a vector, and their features."""


@dataclass(frozen=True, slots=True)
class Quantize:
    """saturate(round(x / scale) + zero); NaN gives the lowest level.

    Attributes:
        source: The float32 input, or None for rows of any length.
        result: The output, or None.
        dtype: Element type of the output, "uint8" or "int8".
        each: One of `EACH`; in grids "number" means each channel, and "row" does not exist.
    """

    source: Grid | None
    result: Grid | None
    dtype: str = "uint8"
    each: str = "array"


@dataclass(frozen=True, slots=True)
class Dequantize:
    """scale * (q - zero).

    Attributes:
        source: The quantized input, or None for rows of any length.
        result: The float32 output, or None.
        dtype: Element type of the input, "uint8" or "int8".
        each: One of `EACH`; in grids "number" means each channel, and "row" does not exist.
    """

    source: Grid | None
    result: Grid | None
    dtype: str = "uint8"
    each: str = "array"


@dataclass(frozen=True, slots=True)
class AddQuantized:
    """The requantized sum of two uint8 inputs, each with a scale and a zero of its own.

    Scales are x's and y's over the result's, zeros are x's, y's, the result's and the lowest level
    of the result: its zero if a ReLU follows.

    Attributes:
        source: x, or None for rows of any length.
        second: y, or None.
        result: The output, or None.
    """

    source: Grid | None
    second: Grid | None
    result: Grid | None


@dataclass(frozen=True, slots=True)
class LookUp:
    """table[x] for 256 bytes, which is any function of quantized numbers.

    The table is the second operand.

    Attributes:
        source: The uint8 input, or None for rows of any length.
        result: The output, or None.
    """

    source: Grid | None
    result: Grid | None


Quantized = Quantize | Dequantize | AddQuantized | LookUp

_Operand = tuple[int, Grid | None, int]
"""Place of an operand, its grid, bytes of a number."""

_Target = tuple[Value, int]
"""Where a row's results go, and bytes of a number."""


def quantized_module(workload: Quantized, target: Target) -> Any:
    """Returns the LLVM module of an operator on levels; its one public function is `kernel`.

    Args:
        workload: What is computed.
        target: For which machine.
    """
    module = ir.Module("quantized")
    e = Emitter(kernel_function(module, "kernel"))
    writers: dict[type, Callable[[Emitter, Any, Target], None]] = {
        Quantize: _write_quantize,
        Dequantize: _write_dequantize,
        AddQuantized: _write_add,
        LookUp: _write_look_up,
    }
    writers[type(workload)](e, workload, target)
    e.builder.ret_void()
    return module


@contextmanager
def _runs(
    e: Emitter, operands: list[_Operand], each: str = "array"
) -> Iterator[tuple[list[Value], int | Value, Value]]:
    """Writes loops over this chunk's runs; gives operands' pointers, numbers and the row."""
    block = e.function.args[2]
    bases = [e.argument(block, place) for place, _, _ in operands]
    grid = operands[0][1]
    if grid is None:
        with _own_numbers(e, each) as (row, start, count):
            pointers = [
                e.at(base, e.mul(start, size))
                for base, (_, _, size) in zip(bases, operands, strict=True)
            ]
            yield pointers, count, row
        return
    by_pixel = each == "number"
    pixels = grid.width if by_pixel else 1
    numbers = grid.channels if by_pixel else grid.width * grid.channels
    with own_rows(e, grid.height) as (picture, row), e.loop(0, pixels) as column:
        pointers = [
            e.at(base, other.place(e, picture, row, column, size))
            for base, (_, other, size) in zip(bases, operands, strict=True)
            if other is not None
        ]
        yield pointers, numbers, row


@contextmanager
def _own_numbers(e: Emitter, each: str) -> Iterator[tuple[Value, Value, Value]]:
    """Gives row, first number and how many of this chunk's runs, where there are no grids.

    What has one scale is one long run, which chunks share by cache lines.
    """
    chunk, chunks, block = e.function.args
    run = e.argument(block, RUN, pointer=False)
    if each != "array":
        with own_rows(e, 1) as (row, _):
            yield row, e.mul(row, run), run
        return
    total = e.mul(e.argument(block, BATCH, pointer=False), run)
    lines = e.div(e.add(total, LINE - 1), LINE)
    first, last = (
        e.least(e.mul(e.div(e.mul(lines, number), chunks), LINE), total)
        for number in (chunk, e.add(chunk, 1))
    )
    with e.when(e.less(first, last)):
        yield e.word(0), first, e.sub(last, first)


def _each_width(
    e: Emitter, count: int | Value, most: int, to: _Target, body: Callable[[Value, int], None]
) -> None:
    """Writes loops over numbers by vectors; the body gets the first number and the width.

    Where the count is an argument, vectors are written to whole cache lines after the first one.
    """
    if isinstance(count, int):
        width = widest(count, most)
        cover(e, count, width, lambda start: body(start, width))
        return
    pointer, size = to
    numbers = min(LINE // size, most)
    before = e.div(e.builder.ptrtoint(pointer, I64), size)
    long = e.less(e.word(2 * most), count)
    with e.when(long):
        body(e.word(0), most)
    start = e.builder.select(long, e.rem(e.sub(e.word(0), before), numbers), e.word(0))
    for width in (most, most // 4, 1):
        stop = e.sub(count, e.rem(e.sub(count, start), width))
        with e.loop(start, stop, width) as place:
            body(place, width)
        start = stop


class _Scales:
    """The scale and the zero of some numbers."""

    def __init__(self, e: Emitter, each: str) -> None:
        self.e, self.each = e, each
        block = e.function.args[2]
        self.scales, self.zeros = (e.argument(block, place) for place in (SCALES, ZEROS))

    def of_row(self, row: Value) -> None:
        """Reads what stays for a row, or for all."""
        if self.each != "number":
            offset = _offset(self.e, row, self.each)
            self.scale = self.e.load(self.e.at(self.scales, offset), F32, 4)
            self.zero = self.e.load(self.e.at(self.zeros, offset), I32, 4)

    def at(self, number: Value, width: int) -> tuple[Value, Value]:
        """Scales and zeros of some numbers of the row."""
        if self.each != "number":
            return self.scale, self.zero
        offset = self.e.mul(number, 4)
        return (
            self.e.load(self.e.at(self.scales, offset), vector(F32, width), 4),
            self.e.load(self.e.at(self.zeros, offset), vector(I32, width), 4),
        )


def _offset(e: Emitter, row: Value, each: str) -> Value:
    """Bytes before a row's scale."""
    return e.mul(row, 4) if each == "row" else e.word(0)


def _write_quantize(e: Emitter, work: Quantize, target: Target) -> None:
    scales = _Scales(e, work.each)
    operands = [(IN, work.source, 4), (OUT, work.result, 1)]
    with _runs(e, operands, work.each) as (pointers, count, row):
        x, to = pointers
        scales.of_row(row)

        def numbers(start: Value, width: int) -> None:
            scale, zero = scales.at(start, width)
            real = e.load(e.at(x, e.mul(start, 4)), vector(F32, width), 4)
            counted = e.builder.fdiv(real, fill(e, scale, width))
            e.store(to_levels(e, counted, span_of(e, zero, work.dtype)), e.at(to, start))

        _each_width(e, count, 4 * target.lanes, (to, 1), numbers)


def _write_dequantize(e: Emitter, work: Dequantize, target: Target) -> None:
    scales = _Scales(e, work.each)
    operands = [(IN, work.source, 1), (OUT, work.result, 4)]
    with _runs(e, operands, work.each) as (pointers, count, row):
        q, to = pointers
        scales.of_row(row)

        def numbers(start: Value, width: int) -> None:
            scale, zero = scales.at(start, width)
            levels = e.load(e.at(q, start), vector(I8, width))
            real = from_levels(e, levels, work.dtype, zero, scale)
            e.store(real, e.at(to, e.mul(start, 4)), 4)

        _each_width(e, count, 4 * target.lanes, (to, 4), numbers)


def _write_add(e: Emitter, work: AddQuantized, target: Target) -> None:
    b, block = e.builder, e.function.args[2]
    scales, zeros = e.argument(block, SCALES), e.argument(block, ZEROS)
    ratios = [e.load(e.at(scales, 4 * n), F32, 4) for n in range(2)]
    first, second, zero, lowest = (e.load(e.at(zeros, 4 * n), I32, 4) for n in range(4))
    span = span_of(e, zero, "uint8")
    low = b.sitofp(b.sub(lowest, zero), F32)
    fused = "fma" in target.features
    operands = [(IN, work.source, 1), (SECOND, work.second, 1), (OUT, work.result, 1)]
    with _runs(e, operands) as (pointers, count, _):
        x, y, to = pointers

        def numbers(start: Value, width: int) -> None:
            counted = []
            for pointer, origin in ((x, first), (y, second)):
                levels = wide_levels(e, e.load(e.at(pointer, start), vector(I8, width)), "uint8")
                real = b.sub(levels, fill(e, origin, width))
                counted.append(b.sitofp(real, vector(F32, width)))
            left, right = (fill(e, ratio, width) for ratio in ratios)
            total = multiply_add(e, counted[0], left, b.fmul(counted[1], right), fused=fused)
            kept = type(span)(low, span.high, span.zero)
            e.store(to_levels(e, total, kept), e.at(to, start))

        _each_width(e, count, 4 * target.lanes, (to, 1), numbers)


def _write_look_up(e: Emitter, work: LookUp, target: Target) -> None:
    table = e.argument(e.function.args[2], SECOND)
    widths = {
        width
        for width, (_, feature) in SHUFFLES.items()
        if feature in target.features and width <= 4 * target.lanes
    }
    parts = {width: _table_parts(e, table, width) for width in widths}
    with _runs(e, [(IN, work.source, 1), (OUT, work.result, 1)]) as (pointers, count, _):
        x, to = pointers

        def bytes_(start: Value, width: int) -> None:
            if width in widths:
                levels = e.load(e.at(x, start), vector(I8, width))
                e.store(_shuffled(e, levels, parts[width]), e.at(to, start))
                return
            with e.loop(start, e.add(start, width)) as place:
                level = e.builder.zext(e.load(e.at(x, place), I8), I64)
                e.store(e.load(e.at(table, level), I8), e.at(to, place))

        _each_width(e, count, max(widths, default=4), (to, 1), bytes_)


def _table_parts(e: Emitter, table: Value, width: int) -> list[Value]:
    """The table in 16 vectors, each 16 entries over and over."""
    lanes = ir.Constant(vector(I32, width), [n % 16 for n in range(width)])
    parts = []
    for start in range(0, 256, 16):
        part = e.load(e.at(table, start), vector(I8, 16))
        parts.append(e.builder.shuffle_vector(part, part, lanes))
    return parts


def _shuffled(e: Emitter, levels: Value, parts: list[Value]) -> Value:
    """Table entries of a vector of levels.

    The shuffle gives 0 where the index' highest bit is set. A saturating sum sets it for all
    levels outside the part's 16, so the parts' results can be joined by or.
    """
    b, kind = e.builder, levels.type
    width = kind.count
    found = ir.Constant(kind, [0] * width)
    for number, part in enumerate(parts):
        within = b.sub(levels, ir.Constant(kind, [16 * number] * width))
        edge = ir.Constant(kind, [0x70] * width)
        index = e.intrinsic(f"llvm.uadd.sat.v{width}i8", kind, [within, edge])
        found = b.or_(found, e.intrinsic(SHUFFLES[width][0], kind, [part, index]))
    return found
