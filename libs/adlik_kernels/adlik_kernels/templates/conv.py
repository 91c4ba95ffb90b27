"""The template of convolutions: the micro-kernel of products, walked over pixels.

Channels lie last, so one row of a window is one run of `columns x channels` numbers: a convolution
is a product whose k is cut into as many segments as the window has rows. Nothing is copied (no
im2col). With order="columns":

    for panel in panels of filters      # shared out with parallel="columns"
        for rows in blocks of rows      # of the result, of all pictures; shared out with "rows"
            for row in block
                for tile in row         # the micro-kernel: pixels x panel
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from adlik_kernels.codegen.emit import Emitter, Value, kernel_function
from adlik_kernels.codegen.isa import GROUP
from adlik_kernels.codegen.micro import micro_kernels
from adlik_kernels.codegen.ukernel import Tile
from adlik_kernels.errors import InvalidSchedule
from adlik_kernels.machine.target import Target
from adlik_kernels.schedules.conv import even_tiles
from adlik_kernels.schedules.schedule import Schedule
from adlik_kernels.templates.dense import BIAS, OUT, QUANTIZATION, RESIDUAL, ROWS, SCALE, W, X
from adlik_kernels.workload import Conv2d


def conv2d_module(workload: Conv2d, schedule: Schedule, target: Target) -> Any:
    """Returns the LLVM module of a convolution of any number of pictures: function `kernel`.

    Args:
        workload: What is computed.
        schedule: How; `k_block` is not for convolutions.
        target: For which machine.

    Raises:
        InvalidSchedule: The schedule is not for convolutions.
    """
    if schedule.k_block:
        raise InvalidSchedule("A convolution's sums stay in registers: k_block is 0.")
    module = ir.Module("conv2d")
    _Nest(module, workload.flattened(), schedule, target).write()
    return module


class _Nest:
    def __init__(self, module: Any, workload: Conv2d, schedule: Schedule, target: Target) -> None:
        self.module, self.workload, self.schedule, self.target = module, workload, schedule, target
        self.width = schedule.vectors * target.lanes
        self.panels = -(-workload.filters // self.width)
        self.pixel = 4 * workload.channels // GROUP[workload.dtype]
        self.steps = workload.kernel[1] * self.pixel // 4
        self.size = 1 if workload.output == "uint8" else 4
        self.pixels = even_tiles(workload.out_width, schedule.rows)
        largest = (self.pixels[0], schedule.vectors)
        self.micro = micro_kernels(workload, largest, self.steps, target)
        self.tiles: dict[str, Any] = {}
        self.e = Emitter(kernel_function(module, "kernel"))
        self.chunk, self.chunks, block = self.e.function.args
        places = (X, W, OUT, BIAS, RESIDUAL, SCALE, QUANTIZATION)
        self.pointers = {place: self.e.argument(block, place) for place in places}
        pictures = self.e.argument(block, ROWS, pointer=False)
        self.rows = self.e.mul(pictures, workload.out_height)

    def write(self) -> None:
        e, schedule = self.e, self.schedule
        self.micro.begin(e)
        blocks = e.div(e.add(self.rows, schedule.row_tiles - 1), schedule.row_tiles)
        if schedule.parallel == "blocks":
            total = e.mul(blocks, self.panels)
            first, last = self._share(total)
            with e.loop(first, last) as index:
                if schedule.order == "columns":
                    self._panel(e.div(index, blocks), e.rem(index, blocks))
                else:
                    self._panel(e.rem(index, self.panels), e.div(index, self.panels))
        else:
            by_rows = schedule.parallel == "rows"
            row_range = self._share(blocks) if by_rows else (e.word(0), blocks)
            panel_range = (0, self.panels) if by_rows else self._share(e.word(self.panels))
            if schedule.order == "columns":
                with e.loop(*panel_range) as panel, e.loop(*row_range) as block:
                    self._panel(panel, block)
            else:
                with e.loop(*row_range) as block, e.loop(*panel_range) as panel:
                    self._panel(panel, block)
        self.micro.end(e)
        e.builder.ret_void()

    def _share(self, total: Value) -> tuple[Value, Value]:
        """The part of `total` pieces of work that belongs to this chunk."""
        e = self.e
        first = e.div(e.mul(total, self.chunk), self.chunks)
        return first, e.div(e.mul(total, e.add(self.chunk, 1)), self.chunks)

    def _panel(self, panel: Value, block: Value) -> None:
        tail = self.workload.filters - (self.panels - 1) * self.width
        if tail == self.width or self.panels == 1:
            self._rows(panel, block, tail)
            return
        with self.e.builder.if_else(self.e.less(panel, self.panels - 1)) as (then, otherwise):
            with then:
                self._rows(panel, block, self.width)
            with otherwise:
                self._rows(panel, block, tail)

    def _rows(self, panel: Value, block: Value, filters: int) -> None:
        e, schedule = self.e, self.schedule
        start = e.mul(block, schedule.row_tiles)
        stop = e.least(e.add(start, schedule.row_tiles), self.rows)
        tiles = self.pixels
        larger = tiles[0]
        many = len(tiles) if self.micro.overlap else tiles.count(larger)
        last = self.workload.out_width - larger
        with e.loop(start, stop) as row:
            with e.loop(0, many) as number:
                column = e.mul(number, larger)
                column = e.least(column, last) if self.micro.overlap else column
                self._call(row, column, larger, panel, filters)
            if many < len(tiles):
                with e.loop(0, len(tiles) - many) as number:
                    column = e.add(e.mul(number, tiles[-1]), many * larger)
                    self._call(row, column, tiles[-1], panel, filters)

    def _call(self, row: Value, column: Value, pixels: int, panel: Value, filters: int) -> None:
        e, p, workload = self.e, self.pointers, self.workload
        tile = Tile(
            rows=pixels,
            vectors=-(-filters // self.target.lanes),
            columns=filters,
            unroll=self.schedule.unroll,
            prefetch=self.schedule.prefetch,
            starts=True,
            ends=True,
            x_row=workload.stride[1] * self.pixel,
            x_step=4,
            out_row=self.size * workload.filters,
            w_step=4 * self.width,
            segments=workload.kernel[0],
            x_segment=(workload.width + 2 * workload.around[1]) * self.pixel,
        )
        picture, line = e.div(row, workload.out_height), e.rem(row, workload.out_height)
        down, across = (b - p for b, p in zip(workload.around, workload.padding, strict=True))
        height = workload.height + 2 * workload.around[0]
        above = e.add(e.mul(picture, height), e.add(e.mul(line, workload.stride[0]), down))
        x = e.add(e.mul(above, tile.x_segment), e.mul(column, tile.x_row))
        x = e.add(x, across * self.pixel)
        filters_before = e.mul(panel, self.width)
        panel_bytes = tile.w_step * self.steps * workload.kernel[0]
        out, residual = (
            e.add(self._pixel(picture, line, column, border), filters_before)
            for border in (workload.out_border, workload.residual_border)
        )
        arguments = [
            e.word(self.steps),
            e.at(p[X], x),
            e.at(p[W], e.mul(panel, panel_bytes)),
            e.at(p[OUT], e.mul(out, self.size)),
            e.at(p[BIAS], e.mul(filters_before, 4)),
            e.at(p[RESIDUAL], e.mul(residual, 4)),
            e.at(p[SCALE], e.mul(filters_before, 4)),
            p[QUANTIZATION],
        ]
        if tile.name not in self.tiles:
            self.tiles[tile.name] = self.micro.write(self.module, tile)
        e.builder.call(self.tiles[tile.name], arguments)

    def _pixel(self, picture: Value, line: Value, column: Value, border: int) -> Value:
        """Numbers before a pixel of the result, in an array with a border."""
        e, workload = self.e, self.workload
        height, width = workload.out_height + 2 * border, workload.out_width + 2 * border
        row = e.add(e.mul(picture, height), e.add(line, border))
        return e.mul(e.add(e.mul(row, width), e.add(column, border)), workload.filters)
