"""The template of pooling: the largest or the mean number of a window, channel by channel.

Where windows lie within the picture's columns, a tile of neighbouring results shares its work: each
source column's rows are joined once, then columns are joined for each result. Rows that stick out
of the picture are replaced by the row at the edge, which changes no maximum; means leave them out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from adlik_kernels.codegen.emit import (
    F32,
    I1,
    I8,
    I16,
    I32,
    I64,
    Emitter,
    Value,
    kernel_function,
    splat,
    vector,
)
from adlik_kernels.templates.grids import IN, OUT, SCALES, ZEROS, Grid, cover, own_rows, widest
from adlik_kernels.templates.levels import span_of, to_levels

UNROLLED = 64
"""Places of a window up to which it is written out."""

_LOADS = 48
"""Vectors that a tile reads at most, so that code stays small."""

_TRUE = ir.Constant(I1, 1)


@dataclass(frozen=True, slots=True)
class Pool:
    """Largest or mean value of a window.

    The mean of uint8 pictures is the exact sum of levels, requantized.

    Attributes:
        source: The input.
        result: The output.
        kind: "max" or "mean"; the mean counts places inside the picture only.
        window: Rows and columns of the window.
        stride: Its steps.
        padding: Rows and columns on each side that the window may leave the picture by.
        dtype: Element type of input and output, "float32" or "uint8".
    """

    source: Grid
    result: Grid
    kind: str
    window: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dtype: str = "float32"

    @property
    def area(self) -> int:
        """Places of a window."""
        return self.window[0] * self.window[1]

    def inner(self, axis: int) -> tuple[int, int]:
        """First result whose window starts inside the picture, and first behind whose ends there.

        Args:
            axis: 0 for rows, 1 for columns.
        """
        size = (self.source.height, self.source.width)[axis]
        count = (self.result.height, self.result.width)[axis]
        window, stride, padding = self.window[axis], self.stride[axis], self.padding[axis]
        first = min(-(-padding // stride), count)
        last = min((size + padding - window) // stride + 1, count)
        return first, max(first, last)


def pool_module(workload: Pool, lanes: int) -> Any:
    """Returns the LLVM module of a pooling; its one public function is `kernel`.

    Args:
        workload: What is computed.
        lanes: Floats of a vector.
    """
    module = ir.Module("pool")
    e = Emitter(kernel_function(module, "kernel"))
    write_pool(e, workload, lanes)
    e.builder.ret_void()
    return module


def write_pool(e: Emitter, pool: Pool, lanes: int) -> None:
    """Writes a kernel's body that pools."""
    writer = _Writer(e, pool, lanes)
    if pool.area > UNROLLED or pool.result.height * pool.result.width == 1:
        writer.write_loops()
    else:
        writer.write_tiles()


class _Numbers:
    """How the numbers of one kind of pooling are read, joined and written."""

    def __init__(self, e: Emitter, pool: Pool, lanes: int) -> None:
        self.e, self.pool, self.mean = e, pool, pool.kind == "mean"
        self.size = 4 if pool.dtype == "float32" else 1
        self.element: Any = F32 if self.size == 4 else I8
        if self.size == 1 and self.mean:
            # 257 bytes fill 16 bits.
            self.element = I16 if pool.area <= 257 else I32
        bits = 32 if self.size == 4 else int(self.element.width)
        self.lanes = 32 * lanes // bits
        if self.size == 1 and self.mean:
            block = e.function.args[2]
            self.ratio = e.load(e.argument(block, SCALES), F32, 4)
            zeros = e.argument(block, ZEROS)
            self.zero = e.load(zeros, I32, 4)
            self.span = span_of(e, e.load(e.at(zeros, 4), I32, 4), "uint8")

    def load(self, place: Value, width: int) -> Value:
        """A vector of numbers, wide enough to be joined."""
        e, kind = self.e, vector(self.element, width)
        if self.size == 4:
            return e.load(place, kind, 4)
        levels = e.load(place, vector(I8, width), 1)
        return e.builder.zext(levels, kind) if self.mean else levels

    def start(self, width: int) -> Value:
        """What joined with any number is that number."""
        empty = float("-inf") if self.size == 4 and not self.mean else 0
        return ir.Constant(vector(self.element, width), [empty] * width)

    def join(self, left: Value, right: Value) -> Value:
        """The larger numbers, or the sums; NaN stays NaN, as in numpy."""
        b = self.e.builder
        if self.mean:
            return b.fadd(left, right) if self.size == 4 else b.add(left, right)
        if self.size == 1:
            return b.select(b.icmp_unsigned(">", left, right), left, right)
        larger = b.select(b.fcmp_ordered(">", left, right), left, right)
        return b.select(b.fcmp_unordered("uno", left, left), left, larger)

    def finish(self, total: Value, count: Value) -> Value:
        """The result of a window.

        Args:
            total: Its numbers, joined.
            count: Places of it inside the picture, an i64.
        """
        e, b, width = self.e, self.e.builder, total.type.count
        if not self.mean:
            return total
        places = b.sitofp(count, F32)
        if self.size == 4:
            one = b.fdiv(ir.Constant(F32, 1.0), places)
            return b.fmul(total, splat(e, one, width))
        wide = vector(I32, width)
        total = total if self.element == I32 else b.zext(total, wide)
        zeros = b.mul(b.trunc(count, I32), self.zero)
        counted = b.sitofp(b.sub(total, splat(e, zeros, width)), vector(F32, width))
        # Divided last, so that means that lie between two levels are found to do so.
        steps = b.fmul(counted, splat(e, self.ratio, width))
        return to_levels(e, b.fdiv(steps, splat(e, places, width)), self.span)


class _Writer:
    def __init__(self, e: Emitter, pool: Pool, lanes: int) -> None:
        self.e, self.pool = e, pool
        block = e.function.args[2]
        self.source, self.result = e.argument(block, IN), e.argument(block, OUT)
        self.numbers = _Numbers(e, pool, lanes)
        self.size = self.numbers.size

    def write_tiles(self) -> None:
        """Windows are written out; whole tiles of columns inside, single columns at the edges."""
        e, pool = self.e, self.pool
        first, last = pool.inner(1)
        with own_rows(e, pool.result.height) as (picture, row):
            lines, inside = self._lines(picture, row)
            for start, stop in ((0, first), (last, pool.result.width)):
                if start < stop:
                    with e.loop(start, stop) as column:
                        self._tile(picture, row, column, 1, (lines, inside), edge=True)
            if first < last:
                pixels = self._tile_pixels(last - first)

                def inner(place: Value) -> None:
                    column = e.add(place, first)
                    self._tile(picture, row, column, pixels, (lines, inside), edge=False)

                cover(e, last - first, pixels, inner)

    def _tile_pixels(self, most: int) -> int:
        pool, pixels = self.pool, widest(most, 8)
        while pixels > 1:
            columns = (pixels - 1) * pool.stride[1] + pool.window[1]
            if columns * pool.window[0] <= _LOADS:
                break
            pixels //= 2
        return pixels

    def _lines(self, picture: Value, row: Value) -> tuple[list[Value], list[Value]]:
        """Where the window's rows begin, and for each whether it lies in the picture."""
        e, pool = self.e, self.pool
        start = e.sub(e.mul(row, pool.stride[0]), pool.padding[0])
        lines, inside = [], []
        for down in range(pool.window[0]):
            line, within = self._kept(e.add(start, down), 0)
            zero = e.word(0)
            lines.append(e.at(self.source, pool.source.place(e, picture, line, zero, self.size)))
            inside.append(within)
        return lines, inside

    def _kept(self, place: Value, axis: int) -> tuple[Value, Value]:
        """A row or column moved to the picture's edge if outside, and whether it was inside."""
        e, pool = self.e, self.pool
        if pool.inner(axis) == (0, (pool.result.height, pool.result.width)[axis]):
            return place, _TRUE
        size = (pool.source.height, pool.source.width)[axis]
        kept = e.least(e.builder.select(e.less(place, 0), e.word(0), place), size - 1)
        return kept, e.builder.icmp_signed("==", kept, place)

    def _tile(
        self,
        picture: Value,
        row: Value,
        column: Value,
        pixels: int,
        rows: tuple[list[Value], list[Value]],
        *,
        edge: bool,
    ) -> None:
        """Results side by side, for all channels."""
        e, pool = self.e, self.pool
        places, inside = self._columns(column, pixels, edge=edge)
        counts = [
            e.mul(_count(e, rows[1]), _count(e, inside[n : n + pool.window[1]]))
            for n in range(0, pixels * pool.stride[1], pool.stride[1])
        ]
        to = e.at(self.result, pool.result.place(e, picture, row, column, self.size))
        width = widest(pool.result.channels, self.numbers.lanes)

        def channels(channel: Value) -> None:
            offset = e.mul(channel, self.size)
            here = [e.at(line, offset) for line in rows[0]]
            joined = {
                number: self._joined_rows((here, rows[1]), place, inside[number], width)
                for number, place in places.items()
            }
            there = e.at(to, offset)
            for pixel in range(pixels):
                start = pixel * pool.stride[1]
                total = joined[start]
                for across in range(1, pool.window[1]):
                    total = self.numbers.join(total, joined[start + across])
                value = self.numbers.finish(total, counts[pixel])
                right = pixel * pool.result.channels * self.size
                e.store(value, e.at(there, right), self.size)

        cover(e, pool.result.channels, width, channels)

    def _columns(
        self, column: Value, pixels: int, *, edge: bool
    ) -> tuple[dict[int, tuple[Value, int]], list[Value]]:
        """Bytes before each source column that the tile needs, and whether columns are inside.

        Bytes are a value and a constant: what neighbours have in common is added once.
        """
        e, pool, pixel = self.e, self.pool, self.pool.source.channels * self.size
        start = e.sub(e.mul(column, pool.stride[1]), pool.padding[1])
        common = e.mul(start, pixel)
        length = (pixels - 1) * pool.stride[1] + pool.window[1]
        places, inside = {}, []
        for number in range(length):
            at, within = self._kept(e.add(start, number), 1) if edge else (None, _TRUE)
            inside.append(within)
            if number % pool.stride[1] < pool.window[1]:
                places[number] = (e.mul(at, pixel), 0) if edge else (common, number * pixel)
        return places, inside

    def _joined_rows(
        self,
        rows: tuple[list[Value], list[Value]],
        place: tuple[Value, int],
        column: Value,
        width: int,
    ) -> Value:
        e, total = self.e, None
        for line, within in zip(*rows, strict=True):
            seen = self.numbers.load(e.at(e.at(line, place[0]), place[1]), width)
            if self.numbers.mean:
                there = e.builder.and_(within, column)
                seen = e.builder.select(there, seen, self.numbers.start(width))
            total = seen if total is None else self.numbers.join(total, seen)
        return total

    def write_loops(self) -> None:
        """Large windows: loops over their places; channels are shared by threads, too."""
        e, pool = self.e, self.pool
        made = pool.result
        wide = widest(made.channels, 4 * self.numbers.lanes)
        blocks = -(-made.channels // wide)
        with own_rows(e, made.height * blocks) as (picture, unit):
            row = e.div(unit, blocks)
            channel = e.least(e.mul(e.rem(unit, blocks), wide), made.channels - wide)
            offset = e.mul(channel, self.size)
            with e.loop(0, made.width) as column:
                bounds = self._bounds(row, 0), self._bounds(column, 1)
                total = self._window(picture, bounds, offset, wide)
                area = e.mul(*(e.sub(last, first) for first, last in bounds))
                to = e.add(made.place(e, picture, row, column, self.size), offset)
                e.store(self.numbers.finish(total, area), e.at(self.result, to), self.size)

    def _window(
        self,
        picture: Value,
        bounds: tuple[tuple[Value, Value], tuple[Value, Value]],
        offset: Value,
        width: int,
    ) -> Value:
        e, given = self.e, self.pool.source
        total = e.variable(vector(self.numbers.element, width), self.numbers.start(width))
        with e.loop(*bounds[0]) as line, e.loop(*bounds[1]) as place:
            at = e.add(given.place(e, picture, line, place, self.size), offset)
            seen = self.numbers.load(e.at(self.source, at), width)
            e.builder.store(self.numbers.join(e.builder.load(total), seen), total)
        return e.builder.load(total)

    def _bounds(self, at: Value, axis: int) -> tuple[Value, Value]:
        """First and last source place of a window along an axis, cut off at the edges."""
        e, pool = self.e, self.pool
        size = (pool.source.height, pool.source.width)[axis]
        start = e.sub(e.mul(at, pool.stride[axis]), pool.padding[axis])
        first = e.builder.select(e.less(start, 0), e.word(0), start)
        return first, e.least(e.add(start, pool.window[axis]), size)


def _count(e: Emitter, inside: list[Value]) -> Value:
    """How many of some places are inside."""
    total = e.word(0)
    for within in inside:
        total = e.add(total, e.builder.zext(within, I64))
    return total
