"""The templates of changes of layout: channels first, channels last, blocks of channels, axes.

All are transpositions of one axis that is contiguous here with one that is contiguous there, in
tiles of registers (see `tiles`); what quantizes does so while the numbers are in registers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from adlik_kernels.codegen.emit import F32, I8, I32, Emitter, Value, kernel_function, vector
from adlik_kernels.templates.grids import (
    IN,
    OUT,
    SCALES,
    ZEROS,
    Grid,
    cover,
    own_rows,
    widest,
)
from adlik_kernels.templates.levels import fill, from_levels, span_of, to_levels
from adlik_kernels.templates.tiles import (
    INTERLEAVED,
    interleave,
    separate,
    turn_to_apart,
    turn_to_beside,
)

SPAN = 64
"""Pixels that are turned, at least, before the next channels come."""

_LONG_SPAN, _KEPT = 1024, 64 << 10
"""Bytes of a channel's run that are turned at most, and of pixels that a cache keeps meanwhile."""

WIDEST = 32
"""Bytes of a tile's vectors at most: rows of pixels begin anywhere, and a vector of 64 bytes would
mostly lie in two cache lines."""

PIECE = 16
"""Channels of a tile, and of a block in blocked layouts."""

AXES = (IN, OUT, *range(2, 12))
"""Places of a transposition's arguments: addresses, sizes of both outer axes, of the axis that is
contiguous in the source and of the one that is in the result, then the source's strides of all but
the third, then the result's of all but the fourth; strides in bytes."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Channels first to channels last, or back.

    Attributes:
        grid: The channels-last side; the other has no border.
        to_last: Whether the result is channels last.
        first: Element type of the channels-first side, "float32" or "uint8".
        last: Element type of the channels-last side. A float32 and a uint8 side are quantized or
            dequantized on the way, with one scale and one zero.
        planes: Channels of the channels-first side, where the uint8 channels-last side has four to
            fill words; 0 for as many as the other.
    """

    grid: Grid
    to_last: bool
    first: str = "float32"
    last: str = "float32"
    planes: int = 0


@dataclass(frozen=True, slots=True)
class Blocked:
    """Channels last to blocks of 16 channels, [pictures, blocks, rows, columns, 16], or back.

    Channels that fill the last block are zeros.

    Attributes:
        grid: The channels-last side, float32.
        border: Rows and columns around each picture of the blocked side; nobody writes there.
        to_blocked: Whether the result is the blocked one.
    """

    grid: Grid
    border: int
    to_blocked: bool


@dataclass(frozen=True, slots=True)
class Transpose:
    """A float32 array with up to four axes whose last one moves; all sizes are arguments.

    Attributes:
        tile: Numbers of a tile along the axis that is contiguous in the source, and along the one
            that is contiguous in the result; the axes are at least as long.
    """

    tile: tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Run:
    """A run of pixels: where it lies on both sides.

    Attributes:
        apart: Its place in the first channel.
        channel: Bytes from channel to channel.
        beside: Its first pixel.
        pixel: Bytes from pixel to pixel.
        pixels: Pixels of the run.
        channels: Channels of a pixel.
    """

    apart: Value
    channel: int | Value
    beside: Value
    pixel: int | Value
    pixels: int | Value
    channels: int | Value


def layout_module(workload: Layout | Blocked | Transpose, lanes: int) -> Any:
    """Returns the LLVM module of a change of layout; its one public function is `kernel`.

    Args:
        workload: What is computed.
        lanes: Floats of a vector.
    """
    module = ir.Module("layout")
    e = Emitter(kernel_function(module, "kernel"))
    writers: dict[type, Callable[[Emitter, Any, int], None]] = {
        Layout: write_layout,
        Blocked: _write_blocked,
        Transpose: _write_transpose,
    }
    writers[type(workload)](e, workload, lanes)
    e.builder.ret_void()
    return module


def write_layout(e: Emitter, work: Layout, lanes: int) -> None:
    """Writes a kernel's body between channels first and channels last."""
    block, grid = e.function.args[2], work.grid
    source, result = e.argument(block, IN), e.argument(block, OUT)
    first, last = (source, result) if work.to_last else (result, source)
    sides = _Sides(e, work, lanes)
    plane, rows, columns = grid.height * grid.width, grid.height, grid.width
    if not grid.border:
        rows, columns = 1, plane
    size = sides.last_size
    span = max(SPAN, min(_LONG_SPAN // size, _KEPT // (size * grid.channels)))
    span = min(span, columns)
    spans = -(-columns // span)
    with own_rows(e, rows * spans) as (picture, unit):
        row, number = e.div(unit, spans), e.rem(unit, spans)
        column = e.least(e.mul(number, span), columns - span)
        place = e.add(e.mul(row, grid.width), column)
        number = e.add(e.mul(picture, plane * (work.planes or grid.channels)), place)
        if not grid.border:
            beside = e.mul(e.add(e.mul(picture, plane), column), sides.last_size * grid.channels)
        else:
            beside = grid.place(e, picture, row, column, sides.last_size)
        run = _Run(
            apart=e.at(first, e.mul(number, sides.first_size)),
            channel=plane * sides.first_size,
            beside=e.at(last, beside),
            pixel=grid.channels * sides.last_size,
            pixels=span,
            channels=grid.channels,
        )
        tile = (widest(span, sides.most), widest(grid.channels, PIECE))
        if work.planes:
            sides.write_words(run, tile[0], work.planes)
        elif grid.channels <= INTERLEAVED:
            sides.write_interleaved(run, tile[0], grid.channels, to_last=work.to_last)
        else:
            sides.write_tiles(run, tile, to_last=work.to_last)


class _Sides:
    """Reads and writes both sides of a change of layout, and quantizes between them."""

    def __init__(self, e: Emitter, work: Layout, lanes: int) -> None:
        self.e, self.work = e, work
        self.first_size, self.last_size = (
            1 if dtype == "uint8" else 4 for dtype in (work.first, work.last)
        )
        self.most = min(4 * lanes, WIDEST) // self.last_size
        self.converts = work.first != work.last
        if self.converts:
            block = e.function.args[2]
            self.scale = e.load(e.argument(block, SCALES), F32, 4)
            self.zero = e.load(e.argument(block, ZEROS), I32, 4)
            self.span = span_of(e, self.zero, "uint8")

    def write_tiles(self, run: _Run, tile: tuple[int, int], *, to_last: bool) -> None:
        """Writes all tiles of a run."""
        e, (pixels, channels) = self.e, tile

        def column(channel: Value) -> None:
            def one(pixel: Value) -> None:
                apart = e.add(e.mul(pixel, self.first_size), e.mul(channel, run.channel))
                beside = e.add(e.mul(pixel, run.pixel), e.mul(channel, self.last_size))
                here = _Run(
                    e.at(run.apart, apart),
                    run.channel,
                    e.at(run.beside, beside),
                    run.pixel,
                    pixels,
                    channels,
                )
                self._tile_to_last(here, tile) if to_last else self._tile_to_first(here, tile)

            cover(e, run.pixels, pixels, one)

        cover(e, run.channels, channels, column)

    def write_interleaved(self, run: _Run, pixels: int, channels: int, *, to_last: bool) -> None:
        """Writes a run of pixels of few channels, by whole vectors of either side."""
        e, step = self.e, pixels * self.last_size

        def one(pixel: Value) -> None:
            apart = e.at(run.apart, e.mul(pixel, self.first_size))
            beside = e.at(run.beside, e.mul(pixel, run.pixel))
            planes = [e.at(apart, e.mul(e.word(n), run.channel)) for n in range(channels)]
            pieces = [e.at(beside, n * step) for n in range(channels)]
            if to_last:
                rows = [self._load_row(place, pixels) for place in planes]
                for place, value in zip(pieces, interleave(e, rows), strict=True):
                    e.store(value, place, self.last_size)
            else:
                rows = [self._load_last(place, pixels) for place in pieces]
                for place, value in zip(planes, separate(e, rows), strict=True):
                    self._store_row(value, place)

        cover(e, run.pixels, pixels, one)

    def write_words(self, run: _Run, pixels: int, channels: int) -> None:
        """Writes a run of pixels of fewer than four channels, each as one word of four bytes."""
        e, words = self.e, vector(I32, pixels)

        def one(pixel: Value) -> None:
            apart = e.at(run.apart, e.mul(pixel, self.first_size))
            total: Value = ir.Constant(words, [0] * pixels)
            for n in range(channels):
                place = e.at(apart, e.mul(e.word(n), run.channel))
                row = e.builder.zext(self._load_row(place, pixels), words)
                row = e.builder.shl(row, ir.Constant(words, [8 * n] * pixels))
                total = e.builder.or_(total, row)
            e.store(total, e.at(run.beside, e.mul(pixel, run.pixel)), 1)

        cover(e, run.pixels, pixels, one)

    def _tile_to_last(self, run: _Run, tile: tuple[int, int]) -> None:
        e, (pixels, channels) = self.e, tile
        rows = [
            self._load_row(e.at(run.apart, e.mul(e.word(n), run.channel)), pixels)
            for n in range(channels)
        ]

        def store(pixel: int, channel: int, value: Value) -> None:
            offset = e.add(e.mul(e.word(pixel), run.pixel), channel * self.last_size)
            e.store(value, e.at(run.beside, offset), self.last_size)

        turn_to_beside(e, rows, pixels, store)

    def _tile_to_first(self, run: _Run, tile: tuple[int, int]) -> None:
        e = self.e

        def load(pixel: int, channel: int, count: int) -> Value:
            offset = e.add(e.mul(e.word(pixel), run.pixel), channel * self.last_size)
            return self._load_last(e.at(run.beside, offset), count)

        def store(channel: int, value: Value) -> None:
            self._store_row(value, e.at(run.apart, e.mul(e.word(channel), run.channel)))

        turn_to_apart(e, load, tile, self.last_size, store)

    def _load_last(self, place: Value, count: int) -> Value:
        element = I8 if self.last_size == 1 else F32
        return self.e.load(place, vector(element, count), self.last_size)

    def _load_row(self, place: Value, pixels: int) -> Value:
        """Pixels of a channel, as the channels-last side has them."""
        e = self.e
        row = e.load(place, vector(I8 if self.first_size == 1 else F32, pixels), self.first_size)
        if self.converts:
            row = to_levels(e, e.builder.fdiv(row, fill(e, self.scale, pixels)), self.span)
        return row

    def _store_row(self, row: Value, place: Value) -> None:
        """Pixels of a channel, given as the channels-last side has them."""
        if self.converts:
            row = from_levels(self.e, row, "uint8", self.zero, self.scale)
        self.e.store(row, place, self.first_size)


def _write_transpose(e: Emitter, work: Transpose, lanes: int) -> None:
    """Outer axes by spans of the axis that is contiguous in the source are shared by threads."""
    chunk, chunks, block = e.function.args
    source, result = e.argument(block, IN), e.argument(block, OUT)
    outer, inner, pixels, channels, *strides = (
        e.argument(block, place, pointer=False) for place in AXES[2:]
    )
    span = e.least(pixels, SPAN)
    spans = e.div(e.add(pixels, e.sub(span, 1)), span)
    total = e.mul(e.mul(outer, inner), spans)
    first = e.div(e.mul(total, chunk), chunks)
    with e.loop(first, e.div(e.mul(total, e.add(chunk, 1)), chunks)) as unit:
        line = e.div(unit, spans)
        at = e.div(line, inner), e.rem(line, inner)
        pixel = e.least(e.mul(e.rem(unit, spans), span), e.sub(pixels, span))
        read = e.add(e.mul(at[0], strides[0]), e.mul(at[1], strides[1]))
        written = e.add(e.mul(at[0], strides[3]), e.mul(at[1], strides[4]))
        run = _Run(
            apart=e.at(source, e.add(read, e.mul(pixel, 4))),
            channel=strides[2],
            beside=e.at(result, e.add(written, e.mul(pixel, strides[5]))),
            pixel=strides[5],
            pixels=span,
            channels=channels,
        )
        sides = _Sides(e, Layout(Grid(1, 1, 1), to_last=True), lanes)
        sides.write_tiles(run, work.tile, to_last=True)


def _write_blocked(e: Emitter, work: Blocked, lanes: int) -> None:
    block, grid = e.function.args[2], work.grid
    source, result = e.argument(block, IN), e.argument(block, OUT)
    blocks = -(-grid.channels // PIECE)
    other = Grid(grid.height, grid.width, PIECE, work.border)
    with own_rows(e, grid.height * blocks) as (picture, unit):
        row, number = e.rem(unit, grid.height), e.div(unit, grid.height)
        last = e.at(result if not work.to_blocked else source, e.mul(number, 4 * PIECE))
        picture_block = e.add(e.mul(picture, blocks), number)
        blocked = result if work.to_blocked else source
        with e.loop(0, grid.width) as column:
            here = e.at(last, grid.place(e, picture, row, column))
            there = e.at(blocked, other.place(e, picture_block, row, column))
            whole = e.less(number, grid.channels // PIECE)
            with e.builder.if_else(whole) as (then, otherwise):
                with then:
                    _copy_piece(e, here, there, PIECE, lanes, to_blocked=work.to_blocked)
                with otherwise:
                    rest = grid.channels % PIECE
                    _copy_piece(e, here, there, rest, lanes, to_blocked=work.to_blocked)


def _copy_piece(
    e: Emitter, last: Value, blocked: Value, count: int, lanes: int, *, to_blocked: bool
) -> None:
    """Copies the channels of a pixel in one block; what fills the block is zero."""
    start = 0
    while start < count:
        width = widest(count - start, lanes)
        here, there = e.at(last, 4 * start), e.at(blocked, 4 * start)
        given, made = (here, there) if to_blocked else (there, here)
        e.store(e.load(given, vector(F32, width), 4), made, 4)
        start += width
    for place in range(count if to_blocked else PIECE, PIECE):
        e.store(ir.Constant(F32, 0.0), e.at(blocked, 4 * place), 4)
