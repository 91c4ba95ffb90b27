"""The template of int8 depthwise convolutions: sums of four lines at once, exact in 32 bits.

Dot products of bytes add four neighbours, and here neighbours are lines: the bytes of up to four
lines of x, one below the other, are put into one word a channel. All taps of a column and all rows
of the tile use that word, each with weights that are zero for the lines it does not see.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from adlik_kernels.codegen.emit import (
    F32,
    I1,
    I8,
    I16,
    I32,
    Emitter,
    Value,
    kernel_function,
    splat,
    splat_constant,
    vector,
)
from adlik_kernels.codegen.ending import activated, requantized
from adlik_kernels.codegen.isa import Vnni, dot_of, multiply_add
from adlik_kernels.codegen.levels import put_bytes
from adlik_kernels.machine.target import Target
from adlik_kernels.templates.depthwise import Depthwise, Run, own_blocks, runs_of
from adlik_kernels.templates.small import each_vector, load_lanes, store_lanes

IN, OUT, WEIGHTS, BATCH, BIAS, SCALE, LEVELS, OUTSIDE = range(8)
"""Places of the arguments in the kernel's block of words."""

LINES = 4
"""Lines whose bytes make a word."""

SUMS = 14
"""Sums of a tile at most, on a machine with 32 registers."""


@dataclass(frozen=True, slots=True)
class DepthwiseInt8:
    """A depthwise convolution of uint8 pictures with int8 weights and an end like a product's.

    Attributes:
        sizes: The same convolution, but for its numbers' type.
        output: "float32" or "uint8".
    """

    sizes: Depthwise
    output: str


def tile_rows(sizes: Depthwise) -> int:
    """Returns the rows of a tile: as many as their windows' lines fit into the words of one."""
    window, step = sizes.window[0], sizes.stride[0]
    room = LINES * -(-window // LINES)
    return min((room - window) // step + 1, LINES, sizes.result.height)


def columns_read(sizes: Depthwise, pixels: int) -> int:
    """Returns the columns of x that so many pixels see."""
    return (pixels - 1) * sizes.stride[1] + sizes.window[1]


def most_pixels(sizes: Depthwise, target: Target) -> int:
    """Returns the most pixels of a tile."""
    return max(1, SUMS * target.registers // 32 // tile_rows(sizes))


def depthwise_int8_module(workload: DepthwiseInt8, target: Target) -> Any:
    """Returns the LLVM module of an int8 depthwise convolution; its public function is `kernel`.

    Args:
        workload: What is computed.
        target: For which machine.
    """
    module = ir.Module("depthwise_int8")
    _Writer(Emitter(kernel_function(module, "kernel")), workload, target).write()
    return module


class _Writer:
    def __init__(self, e: Emitter, workload: DepthwiseInt8, target: Target) -> None:
        self.e, self.workload, self.sizes, self.lanes = e, workload, workload.sizes, target.lanes
        self.dot, self.pixels = dot_of("int8", target), most_pixels(workload.sizes, target)
        self.rows = tile_rows(workload.sizes)
        self.words = -(-workload.sizes.window[0] // LINES)
        block = e.function.args[2]
        places = (IN, OUT, WEIGHTS, BIAS, SCALE, OUTSIDE)
        self.x, self.out, self.w, self.bias, self.scale, self.outside = (
            e.argument(block, place) for place in places
        )
        levels = e.argument(block, LEVELS)
        self.levels = (
            splat(e, e.load(levels, F32), self.lanes),
            splat(e, e.load(e.at(levels, 4), F32), self.lanes),
        )
        self.batch = e.argument(block, BATCH, pointer=False)

    def write(self) -> None:
        e, height = self.e, self.sizes.result.height
        with own_blocks(e, height, self.rows, self.batch) as (picture, row):
            for run in runs_of(self.sizes, self.pixels):
                with e.loop(0, run.count) as number:
                    column = e.add(e.mul(number, run.pixels), run.first)
                    self._tile(picture, row, column, run)
        e.builder.ret_void()

    def _tile(self, picture: Value, row: Value, column: Value, run: Run) -> None:
        e, sizes = self.e, self.sizes
        item = 1 if self.workload.output == "uint8" else 4
        lines = self._lines(picture, row, column)
        out = e.at(self.out, sizes.result.place(e, picture, row, column, item))

        def channels(offset: Value, valid: int) -> None:
            offset = e.div(offset, 4)  # bytes, and as many numbers
            for (below, right), slot in self._sums(lines, run, (offset, valid)).items():
                pixel = below * (sizes.result.width + 2 * sizes.result.border) + right
                place = e.at(out, e.add(e.mul(offset, item), item * sizes.result.channels * pixel))
                self._end(e.builder.load(slot), offset, place, valid)

        each_vector(e, sizes.result.channels, self.lanes, channels)

    def _lines(self, picture: Value, row: Value, column: Value) -> list[Value]:
        """Where the tile's first column begins in each line, or a line of what lies outside."""
        e, sizes = self.e, self.sizes
        source, step, padding = sizes.source, sizes.stride, sizes.padding
        top, left = (
            e.sub(e.mul(at, s), p) for at, s, p in zip((row, column), step, padding, strict=True)
        )
        lines = []
        for number in range((self.rows - 1) * step[0] + sizes.window[0]):
            line = e.add(top, number)
            place = e.at(self.x, source.place(e, picture, line, left, 1))
            if not sizes.holds_all_lines:
                # One comparison for both ends: a line above the picture is a very large number.
                height = e.word(source.height + 2 * source.border)
                seen = e.builder.icmp_unsigned("<", e.add(line, source.border), height)
                place = e.builder.select(seen, place, self.outside)
            lines.append(place)
        return lines

    def _sums(
        self, lines: list[Value], run: Run, lane: tuple[Value, int]
    ) -> dict[tuple[int, int], Any]:
        """The sums of a tile, by row and pixel, in slots."""
        e, sizes, zero = self.e, self.sizes, splat_constant(I32, self.lanes, 0)
        weights = self._weights(lane[0])
        sums = {
            place: e.variable(zero.type, zero)
            for place in itertools.product(range(self.rows), range(run.pixels))
        }
        for column in range(columns_read(sizes, run.pixels)):
            for word in range(self.words):
                seen = self._word(lines[LINES * word : LINES * (word + 1)], column, run, lane)
                for (row, pixel), slot in sums.items():
                    tap = column - pixel * sizes.stride[1]
                    if 0 <= tap < sizes.window[1]:
                        total = e.builder.load(slot)
                        total = self.dot.step(e, total, seen, weights[row, word, tap])
                        e.builder.store(total, slot)
        return sums

    def _weights(self, offset: Value) -> dict[tuple[int, int, int], tuple[Value, ...]]:
        """The weights of a word of lines, by row of the tile, word and tap."""
        e, window = self.e, self.sizes.window[1]
        padded = 4 * self.lanes * -(-self.sizes.source.channels // self.lanes)
        found = {}
        places = itertools.product(range(self.rows), range(self.words), range(window))
        for number, place in enumerate(places):
            at = e.at(self.w, e.add(e.mul(offset, 4), padded * number))
            found[place] = self.dot.open(e, e.load(at, vector(I32, self.lanes), align=4))
        return found

    def _word(
        self, lines: list[Value], column: int, run: Run, lane: tuple[Value, int]
    ) -> tuple[Value, ...]:
        """The bytes of some lines at one column as the unsigned side of a dot product."""
        e, b, (offset, valid) = self.e, self.e.builder, lane
        place = e.add(offset, self.sizes.source.channels * column)
        if column not in run.columns:
            lines, place = [self.outside] * len(lines), offset
        word = splat_constant(I32, self.lanes, 0)
        for number, line in enumerate(lines):
            wide = b.zext(self._bytes(e.at(line, place), valid), word.type)
            word = b.or_(word, b.shl(wide, splat_constant(I32, self.lanes, 8 * number)))
        if isinstance(self.dot, Vnni):
            return (b.bitcast(word, vector(I8, 4 * self.lanes)),)
        even = splat_constant(I32, self.lanes, 0x00FF00FF)
        odd = b.lshr(word, splat_constant(I32, self.lanes, 8))
        shorts = vector(I16, 2 * self.lanes)
        return b.bitcast(b.and_(word, even), shorts), b.bitcast(b.and_(odd, even), shorts)

    def _bytes(self, place: Value, valid: int) -> Value:
        kind = vector(I8, self.lanes)
        if valid == self.lanes:
            return self.e.load(place, kind)
        name = f"llvm.masked.load.v{self.lanes}i8.p0"
        arguments = [
            place,
            ir.Constant(I32, 1),
            self._mask(valid),
            ir.Constant(kind, [0] * self.lanes),
        ]
        return self.e.intrinsic(name, kind, arguments)

    def _mask(self, valid: int) -> Any:
        return ir.Constant(vector(I1, self.lanes), [lane < valid for lane in range(self.lanes)])

    def _end(self, total: Value, offset: Value, place: Value, valid: int) -> None:
        """Scale, bias, activation and requantization of one pixel's vector, and its way out."""
        e, lanes, number = self.e, self.lanes, self.e.mul(offset, 4)
        scale, bias = (
            load_lanes(e, e.at(p, number), lanes, lanes) for p in (self.scale, self.bias)
        )
        value = e.builder.sitofp(total, vector(F32, lanes))
        value = multiply_add(e, value, scale, bias, fused=self.dot.fused)
        value = activated(e, self.sizes.activation, value)
        if self.workload.output == "float32":
            store_lanes(e, value, place, lanes, valid)
            return
        level = requantized(e, value, self.levels, fused=self.dot.fused)
        if valid == lanes:
            e.store(level, place)
            return
        put_bytes(e, level, place, valid)
