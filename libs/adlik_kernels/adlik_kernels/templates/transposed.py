"""The template of transposed convolutions: direct convolutions whose results lie apart.

The direct convolutions (see `phases`) write every s-th pixel of every s-th row: the micro-kernel
of products writes its rows as far apart as it is told, so nothing is copied.

    for phase in phases                 # down and across
        for panel, row in this chunk    # panels of filters, rows of this phase in all pictures
            for tile in row             # the micro-kernel: pixels x panel
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from adlik_kernels.codegen.emit import Emitter, Value, kernel_function
from adlik_kernels.codegen.isa import dot_of
from adlik_kernels.codegen.tile import Tile
from adlik_kernels.codegen.ukernel import write_tile
from adlik_kernels.machine.target import Target
from adlik_kernels.schedules.conv import conv_default, even_tiles
from adlik_kernels.templates.dense import BIAS, OUT, ROWS, W, X
from adlik_kernels.templates.phases import Phase, Transposed2d, phase_pairs
from adlik_kernels.templates.small import Grid
from adlik_kernels.workload import Conv2d


class _PhaseTile(Tile):
    """A tile of one phase: tiles of other phases have windows of other heights."""

    __slots__ = ()

    @property
    def name(self) -> str:
        return f"tile_{self.rows}x{self.columns}_{self.segments}"


def transposed_block(workload: Transposed2d, target: Target, threads: int) -> tuple[int, int]:
    """Returns the register block: pixels and vectors of filters, as a direct convolution's."""
    sizes = (workload.height, workload.width, workload.channels, workload.filters)
    schedule = conv_default(Conv2d(*sizes, kernel=(1, 1), border=(1, 1)), target, threads)
    return schedule.rows, schedule.vectors


def transposed_module(workload: Transposed2d, block: tuple[int, int], target: Target) -> Any:
    """Returns the LLVM module of a transposed convolution of any number of pictures: `kernel`.

    Args:
        workload: What is computed.
        block: Pixels and vectors of filters that a micro-kernel keeps in registers.
        target: For which machine.
    """
    module = ir.Module("transposed")
    _Nest(module, workload, block, target).write()
    return module


class _Nest:
    def __init__(
        self, module: Any, workload: Transposed2d, block: tuple[int, int], target: Target
    ) -> None:
        self.module, self.workload, self.target = module, workload, target
        self.pixels, self.width = block[0], block[1] * target.lanes
        self.panels = -(-workload.filters // self.width)
        self.out_grid = Grid(*workload.result, workload.filters, workload.out_border)
        self.tiles: dict[str, Any] = {}
        self.e = Emitter(kernel_function(module, "kernel"))
        self.chunk, self.chunks, words = self.e.function.args
        self.x, self.w, self.out, self.bias = (
            self.e.argument(words, place) for place in (X, W, OUT, BIAS)
        )
        self.pictures = self.e.argument(words, ROWS, pointer=False)

    def write(self) -> None:
        e, before = self.e, 0
        for pair in phase_pairs(self.workload):
            steps = pair[0].taps * pair[1].taps * self.workload.channels
            rows = e.mul(self.pictures, pair[0].count)
            work = e.mul(rows, self.panels)
            begin = e.div(e.mul(work, self.chunk), self.chunks)
            end = e.div(e.mul(work, e.add(self.chunk, 1)), self.chunks)
            with e.loop(begin, end) as number:
                panel = e.div(number, rows)
                w = e.add(e.mul(panel, 4 * self.width * steps), before)
                self._panel(pair, e.rem(number, rows), panel, e.at(self.w, w))
            before += 4 * self.width * self.panels * steps
        e.builder.ret_void()

    def _panel(self, pair: tuple[Phase, Phase], row: Value, panel: Value, w: Value) -> None:
        tail = self.workload.filters - (self.panels - 1) * self.width
        if tail == self.width or self.panels == 1:
            self._row(pair, row, panel, w, tail)
            return
        with self.e.builder.if_else(self.e.less(panel, self.panels - 1)) as (then, otherwise):
            with then:
                self._row(pair, row, panel, w, self.width)
            with otherwise:
                self._row(pair, row, panel, w, tail)

    def _row(
        self, pair: tuple[Phase, Phase], row: Value, panel: Value, w: Value, filters: int
    ) -> None:
        e, across = self.e, pair[1]
        tiles = even_tiles(across.count, self.pixels)
        larger = tiles.count(tiles[0])
        with e.loop(0, larger) as number:
            column = e.mul(number, tiles[0])
            self._call(pair, (row, column), tiles[0], (panel, w, filters))
        if larger < len(tiles):
            with e.loop(0, len(tiles) - larger) as number:
                column = e.add(e.mul(number, tiles[-1]), larger * tiles[0])
                self._call(pair, (row, column), tiles[-1], (panel, w, filters))

    def _call(
        self,
        pair: tuple[Phase, Phase],
        place: tuple[Value, Value],
        pixels: int,
        part: tuple[Value, Value, int],
    ) -> None:
        e, workload, (down, across), (panel, w, filters) = self.e, self.workload, pair, part
        pixel = 4 * workload.channels
        line = pixel * (workload.width + 2 * workload.around[1])
        picture, row = e.div(place[0], down.count), e.rem(place[0], down.count)
        above = e.mul(picture, workload.height + 2 * workload.around[0])
        first_row = down.first - max(down.taps - 1, 0) + workload.around[0]
        first_column = across.first - max(across.taps - 1, 0) + workload.around[1]
        x = e.mul(e.add(e.add(above, row), first_row), line)
        x = e.add(x, e.mul(e.add(place[1], first_column), pixel))
        to_row = e.add(e.mul(row, workload.stride[0]), down.first_pixel)
        to_column = e.add(e.mul(place[1], workload.stride[1]), across.first_pixel)
        before = e.mul(panel, 4 * self.width)
        out = e.add(self.out_grid.place(e, picture, to_row, to_column), before)
        tile = _PhaseTile(
            rows=pixels,
            vectors=-(-filters // self.target.lanes),
            columns=filters,
            unroll=1,
            prefetch=0,
            starts=True,
            ends=True,
            x_row=pixel,
            x_step=4,
            out_row=4 * workload.filters * workload.stride[1],
            w_step=4 * self.width,
            segments=max(1, down.taps),
            x_segment=line,
        )
        steps = across.taps * workload.channels if down.taps else 0
        places = (e.at(self.x, x), w, e.at(self.out, out), e.at(self.bias, before))
        arguments = [e.word(steps), *places, *[self.bias] * 3]
        e.builder.call(self._function(tile), arguments)

    def _function(self, tile: Tile) -> Any:
        if tile.name not in self.tiles:
            dot = dot_of("fp32", self.target)
            made = write_tile(self.module, tile, self.workload, dot, self.target.lanes)
            self.tiles[tile.name] = made
        return self.tiles[tile.name]
