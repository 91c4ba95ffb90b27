"""The template of convolutions: the micro-kernel of products, walked over pixels.

Where channels lie last, one row of a window is one run of `columns x channels` numbers: a
convolution is a product whose k is cut into as many segments as the window has rows. In a blocked
layout they are `columns x 16` numbers, and there is such a window for each block of channels.
Nothing is copied (no im2col). With order="columns":

    for panel in panels of filters      # of all groups; shared out with parallel="columns"
        for rows in blocks of rows      # of the result, of all pictures; shared out with "rows"
            for part in blocks of k     # sums go back to memory between them
                for row in block
                    for tile in row     # the micro-kernel: pixels x panel
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from adlik_kernels.codegen.emit import Emitter, Value, kernel_function
from adlik_kernels.codegen.isa import GROUP
from adlik_kernels.codegen.micro import micro_kernels
from adlik_kernels.codegen.tile import Tile
from adlik_kernels.errors import InvalidSchedule
from adlik_kernels.machine.target import Target
from adlik_kernels.schedules.conv import cut_k, even_tiles
from adlik_kernels.schedules.schedule import NEXT, Schedule
from adlik_kernels.templates.dense import BIAS, OUT, QUANTIZATION, RESIDUAL, ROWS, SCALE, W, X
from adlik_kernels.templates.nest import each_panel, walk
from adlik_kernels.workload import BLOCK, Conv2d


def conv2d_module(workload: Conv2d, schedule: Schedule, target: Target) -> Any:
    """Returns the LLVM module of a convolution of any number of pictures: function `kernel`.

    Args:
        workload: What is computed.
        schedule: How.
        target: For which machine.

    Raises:
        InvalidSchedule: The schedule is not for this convolution.
    """
    if schedule.k_block and workload.dtype == "int8":
        raise InvalidSchedule("Sums of int8 products stay in registers: k_block is 0.")
    module = ir.Module("conv2d")
    _Nest(module, workload.flattened(), schedule, target).write()
    return module


@dataclass(frozen=True, slots=True)
class _Array:
    """How pictures lie in memory, borders included, counted in numbers."""

    layout: str
    channels: int
    height: int
    width: int

    @property
    def pixel(self) -> int:
        return BLOCK if self.layout == "blocked" else self.channels

    @property
    def row(self) -> int:
        return self.width * self.pixel

    @property
    def block(self) -> int:
        """From one block of channels to the next; 0 where they are not in blocks."""
        return self.height * self.row if self.layout == "blocked" else 0

    @property
    def picture(self) -> int:
        return self.height * self.width * self.channels

    def place(self, e: Emitter, at: tuple[Value, Value, Value], channel: Value) -> Value:
        """Numbers before a channel of a pixel: picture, row, column. Blocks are not split."""
        picture, row, column = at
        place = e.add(e.mul(picture, self.picture), e.mul(row, self.row))
        place = e.add(place, e.mul(column, self.pixel))
        if self.layout == "last":
            return e.add(place, channel)
        return e.add(place, e.mul(e.div(channel, BLOCK), self.block))


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the sums of one panel: its filters and the number of its block of k."""

    panel: Value
    filters: int
    number: Value
    starts: bool
    ends: bool


class _Nest:
    def __init__(self, module: Any, workload: Conv2d, schedule: Schedule, target: Target) -> None:
        self.module, self.workload, self.schedule, self.target = module, workload, schedule, target
        self.width = schedule.vectors * target.lanes
        self.filters = workload.columns
        self.group_panels = -(-self.filters // self.width)
        self.panels = workload.groups * self.group_panels
        held = (workload.held_height, workload.held_width)
        self.x = _Array(workload.in_layout, workload.channels, *held)
        self.number = 4 // GROUP[workload.dtype]
        self.size = 1 if workload.output == "uint8" else 4
        # A row of the window may be one run of memory.
        run = workload.dilation[1] == 1 and (bool(self.x.block) or workload.groups == 1)
        channels = workload.channels // workload.groups
        together = BLOCK if self.x.block else channels
        steps = (workload.kernel[1] if run else 1) * together * self.number // 4
        levels = (
            (channels // together, self.x.block * self.number),
            (workload.kernel[0], workload.dilation[0] * self.x.row * self.number),
            (1 if run else workload.kernel[1], workload.dilation[1] * self.x.pixel * self.number),
            (steps, 4),
        )
        self.outer, self.inner = cut_k(levels, schedule.k_block)
        self.pixels = even_tiles(workload.out_width, schedule.rows)
        largest = (self.pixels[0], schedule.vectors)
        self.micro = micro_kernels(workload, largest, self.inner[-1][0], target)
        if self.micro.overlap and (schedule.k_block or schedule.prefetch == NEXT):
            raise InvalidSchedule("Tiles of AMX neither continue a sum nor fetch other weights.")
        self.tiles: dict[str, Any] = {}
        self.e = Emitter(kernel_function(module, "kernel"))
        block = self.e.function.args[2]
        places = (X, W, OUT, BIAS, RESIDUAL, SCALE, QUANTIZATION)
        self.pointers = {place: self.e.argument(block, place) for place in places}
        pictures = self.e.argument(block, ROWS, pointer=False)
        self.rows = self.e.mul(pictures, workload.out_height)

    def write(self) -> None:
        e, schedule = self.e, self.schedule
        self.micro.begin(e)
        blocks = e.div(e.add(self.rows, schedule.row_tiles - 1), schedule.row_tiles)
        walk(e, schedule, blocks, self.panels, self._panel)
        self.micro.end(e)
        e.builder.ret_void()

    def _panel(self, panel: Value, block: Value) -> None:
        """One panel of filters by one block of rows; the last panel of a group may be narrower."""
        panels = self.group_panels
        widths = (self.width, self.filters - (panels - 1) * self.width)
        number = self.e.rem(panel, panels) if widths[0] != widths[1] and panels > 1 else panel
        each_panel(self.e, number, panels, widths, lambda n: self._k_blocks(panel, block, n))

    def _k_blocks(self, panel: Value, block: Value, filters: int) -> None:
        e, count = self.e, math.prod(turns for turns, _ in self.outer)
        if count == 1:
            self._rows(block, _Part(panel, filters, e.word(0), True, True))
            return
        self._rows(block, _Part(panel, filters, e.word(0), True, False))
        if count > 2:
            with e.loop(1, count - 1) as number:
                self._rows(block, _Part(panel, filters, number, False, False))
        self._rows(block, _Part(panel, filters, e.word(count - 1), False, True))

    def _rows(self, block: Value, part: _Part) -> None:
        e, schedule = self.e, self.schedule
        start = e.mul(block, schedule.row_tiles)
        stop = e.least(e.add(start, schedule.row_tiles), self.rows)
        tiles = self.pixels
        larger = tiles[0]
        many = len(tiles) if self.micro.overlap else tiles.count(larger)
        last = self.workload.out_width - larger
        with e.loop(start, stop) as row:
            before = e.mul(e.sub(row, start), len(tiles))
            with e.loop(0, many) as number:
                column = e.mul(number, larger)
                column = e.least(column, last) if self.micro.overlap else column
                self._call((row, column, e.add(before, number)), larger, part)
            if many < len(tiles):
                with e.loop(0, len(tiles) - many) as number:
                    column = e.add(e.mul(number, tiles[-1]), many * larger)
                    at = (row, column, e.add(before, e.add(number, many)))
                    self._call(at, tiles[-1], part)

    def _call(self, at: tuple[Value, Value, Value], pixels: int, part: _Part) -> None:
        """One tile: its row, its first column and its number among those of the block."""
        row, column, number_in_block = at
        e, p, workload, panel = self.e, self.pointers, self.workload, part.panel
        out = self._result(workload.out_border)
        tile = Tile(
            rows=pixels,
            vectors=-(-part.filters // self.target.lanes),
            columns=part.filters,
            unroll=self.schedule.unroll,
            prefetch=max(self.schedule.prefetch, 0),
            starts=part.starts,
            ends=part.ends,
            x_row=workload.stride[1] * self.x.pixel * self.number,
            x_step=4,
            out_row=self.size * out.pixel,
            w_step=4 * self.width,
            segments=self.inner[-2][0] if len(self.inner) > 1 else 1,
            x_segment=self.inner[-2][1] if len(self.inner) > 1 else 0,
            out_block=self.size * out.block,
            around=self.inner[:-2],
            ahead=self._ahead(),
        )
        group, number = e.div(panel, self.group_panels), e.rem(panel, self.group_panels)
        picture, line = e.div(row, workload.out_height), e.rem(row, workload.out_height)
        down, across = (b - p for b, p in zip(workload.around, workload.pads[:2], strict=True))
        above = e.add(e.mul(line, workload.stride[0]), down)
        left = e.add(e.mul(column, workload.stride[1]), across)
        channel = e.mul(group, workload.channels // workload.groups)
        x = self.x.place(e, (picture, above, left), channel)
        filters_before = e.add(e.mul(group, self.filters), e.mul(number, self.width))
        written, residual_at = (
            self._result(border).place(
                e, (picture, e.add(line, border), e.add(column, border)), filters_before
            )
            for border in (workload.out_border, workload.residual_border)
        )
        words = math.prod(turns for turns, _ in self.inner)
        panel_words = words * math.prod(turns for turns, _ in self.outer)
        w = e.add(e.mul(panel, panel_words), e.mul(part.number, words))
        residual_size = 1 if workload.residual_dtype == "uint8" else 4
        arguments = [
            e.word(self.inner[-1][0]),
            e.at(p[X], e.add(e.mul(x, self.number), self._before(part.number))),
            e.at(p[W], e.mul(w, tile.w_step)),
            e.at(p[OUT], e.mul(written, self.size)),
            e.at(p[BIAS], e.mul(filters_before, 4)),
            e.at(p[RESIDUAL], e.mul(residual_at, residual_size)),
            e.at(p[SCALE], e.mul(filters_before, 4)),
            p[QUANTIZATION],
        ]
        if tile.ahead:
            arguments.append(self._next(arguments[2], number_in_block, tile, words))
        if tile.name not in self.tiles:
            self.tiles[tile.name] = self.micro.write(self.module, tile)
        e.builder.call(self.tiles[tile.name], arguments)

    def _ahead(self) -> int:
        """Bytes of the next weights to fetch at each step, so that the block's tiles fetch all.

        They are spread evenly: a burst would wait for memory.
        """
        if self.schedule.prefetch != NEXT:
            return 0
        together = len(self.pixels) * min(self.schedule.row_tiles, self.workload.out_height)
        return -(-4 * self.width // together // 16) * 16

    def _next(self, w: Value, number: Value, tile: Tile, words: int) -> Value:
        """A tile's share of the weights behind `w`; once all are fetched, what is here already."""
        e, share = self.e, tile.ahead * words
        place = e.at(w, e.add(e.mul(number, share), tile.w_step * words))
        more = e.less(e.mul(number, tile.ahead), tile.w_step)
        return e.builder.select(more, place, w)

    def _before(self, number: Value) -> Value:
        """Bytes of x before a block of k."""
        e, before = self.e, self.e.word(0)
        for turns, apart in reversed(self.outer):
            before = e.add(before, e.mul(e.rem(number, turns), apart))
            number = e.div(number, turns)
        return before

    def _result(self, border: int) -> _Array:
        """How the result, or a residual, lies within its border."""
        rows, columns = (size + 2 * border for size in self.workload.out_size)
        return _Array(self.workload.out_layout, self.workload.filters, rows, columns)
