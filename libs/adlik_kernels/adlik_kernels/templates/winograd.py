"""The template of 3x3 convolutions by Winograd's method: transform, multiply, transform back.

Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016). A block of tiles goes
all the way in one chunk's scratch, so chunks never wait for each other:

    for block, group in this chunk          # tiles of any pictures, panels of filters
        for tile in block                   # unless the chunk's last group had the same block
            scratch x = B tile B'           # vectors of channels, one for each point
        for point in points²
            for panel in group
                for rows in tiles           # the micro-kernel: tiles x panel
        for tile in block
            result = A products A'          # vectors of filters; bias, residual, activation

Tiles that stick out of the picture read its last row or column again, which only results that are
not written depend on. The last block of a call begins early enough to be whole: what two blocks
both compute is the same, bit by bit.
"""

from __future__ import annotations

import functools
from typing import Any

from llvmlite import ir

from adlik_kernels.codegen.emit import I1, Emitter, Value, kernel_function
from adlik_kernels.codegen.ending import activated
from adlik_kernels.codegen.isa import dot_of
from adlik_kernels.codegen.tile import Tile
from adlik_kernels.codegen.ukernel import write_tile
from adlik_kernels.errors import InvalidSchedule
from adlik_kernels.machine.target import Target
from adlik_kernels.schedules.conv import even_tiles
from adlik_kernels.schedules.winograd import (
    WinogradSchedule,
    check_winograd,
    scratch_of,
    tiles_of,
)
from adlik_kernels.templates.dense import BIAS, OUT, RESIDUAL, ROWS, SCALE, W, X
from adlik_kernels.templates.filtering import Transforms, points
from adlik_kernels.templates.small import Grid, each_vector, load_lanes, store_lanes
from adlik_kernels.workload import Conv2d

SCRATCH = SCALE
"""Place of the scratch: a product of floats has no scales, so its block of words is as long."""


def winograd_module(workload: Conv2d, schedule: WinogradSchedule, target: Target) -> Any:
    """Returns the LLVM module of a 3x3 convolution of any number of pictures: function `kernel`.

    Args:
        workload: What is computed.
        schedule: How.
        target: For which machine.

    Raises:
        InvalidOperand: The convolution is none that Winograd's method computes.
        InvalidSchedule: A block is larger than a picture, or the groups are uneven.
    """
    check_winograd(workload, schedule.results)
    across, down = tiles_of(workload, schedule.results)
    panels = -(-workload.filters // (schedule.vectors * target.lanes))
    if schedule.tiles > across * down or panels % schedule.groups:
        raise InvalidSchedule(
            f"{schedule} does not fit {across * down} tiles and {panels} panels of filters.",
            cure="A block fits one picture, and the groups have equal parts of the panels.",
        )
    module = ir.Module("winograd")
    _Nest(module, workload, schedule, target).write()
    return module


class _Nest:
    def __init__(
        self, module: Any, workload: Conv2d, schedule: WinogradSchedule, target: Target
    ) -> None:
        self.module, self.workload, self.schedule, self.target = module, workload, schedule, target
        self.dot, self.lanes = dot_of("fp32", target), target.lanes
        self.points, self.scratch = points(schedule.results), scratch_of(workload, schedule, target)
        self.across, self.down = tiles_of(workload, schedule.results)
        self.width = schedule.vectors * target.lanes
        self.panels = -(-workload.filters // self.width) // schedule.groups
        self.grids = tuple(
            Grid(workload.out_height, workload.out_width, workload.filters, border)
            for border in (workload.out_border, workload.residual_border)
        )
        self.tiles: dict[str, Any] = {}
        self.e = e = Emitter(kernel_function(module, "kernel"))
        self.transforms = Transforms(e, schedule.results, fused=self.dot.fused)
        self.chunk, self.chunks, block = e.function.args
        self.x, self.w, self.out, self.bias, self.residual, scratch = (
            e.argument(block, place) for place in (X, W, OUT, BIAS, RESIDUAL, SCRATCH)
        )
        self.seen = e.at(scratch, e.mul(self.chunk, self.scratch.total))
        self.products = e.at(self.seen, self.scratch.products)
        pictures = e.argument(block, ROWS, pointer=False)
        self.total = e.mul(pictures, self.across * self.down)

    def write(self) -> None:
        e, groups, tiles = self.e, self.schedule.groups, self.schedule.tiles
        blocks = e.div(e.add(self.total, tiles - 1), tiles)
        work = e.mul(blocks, groups)
        begin = e.div(e.mul(work, self.chunk), self.chunks)
        end = e.div(e.mul(work, e.add(self.chunk, 1)), self.chunks)
        with e.loop(begin, end) as number:
            group = e.rem(number, groups)
            first = e.least(e.mul(e.div(number, groups), tiles), e.sub(self.total, tiles))
            is_new = e.builder.or_(
                e.builder.icmp_signed("==", number, begin),
                e.builder.icmp_signed("==", group, e.word(0)),
            )
            with e.when(is_new), e.loop(0, tiles) as tile:
                self._read(first, tile)
            self._group(first, group)
        e.builder.ret_void()

    def _group(self, first: Value, group: Value) -> None:
        """Products and results of one part of the filters; the last part may be narrower."""
        filters = self.panels * self.width
        tail = self.workload.filters - (self.schedule.groups - 1) * filters
        if tail == filters or self.schedule.groups == 1:
            self._filters(first, group, tail)
            return
        with self.e.builder.if_else(self.e.less(group, self.schedule.groups - 1)) as (then, last):
            with then:
                self._filters(first, group, filters)
            with last:
                self._filters(first, group, tail)

    def _filters(self, first: Value, group: Value, filters: int) -> None:
        e, tiles = self.e, self.schedule.tiles
        with e.loop(0, self.points**2) as point:
            self._multiply(point, group, filters)
        with e.loop(0, tiles) as tile:
            self._write_back(first, tile, group, filters)

    def _place(self, first: Value, tile: Value) -> tuple[Value, Value, Value]:
        """Picture, row and column of a tile's first result."""
        e, number = self.e, self.e.add(first, tile)
        picture, inside = (f(number, self.across * self.down) for f in (e.div, e.rem))
        row, column = (f(inside, self.across) for f in (e.div, e.rem))
        return picture, e.mul(row, self.schedule.results), e.mul(column, self.schedule.results)

    def _read(self, first: Value, tile: Value) -> None:
        """Brings a tile of x to the points, vector by vector."""
        e, workload, scratch = self.e, self.workload, self.scratch
        picture, row, column = self._place(first, tile)
        pixel = 4 * workload.channels
        (down, across), (above, left) = workload.around, workload.pads[:2]
        height, width = workload.height + 2 * down, workload.width + 2 * across
        top = e.mul(picture, height)
        lines = [
            e.mul(e.add(top, e.least(e.add(row, n + down - above), height - 1)), width * pixel)
            for n in range(self.points)
        ]
        steps = [
            e.mul(e.least(e.add(column, n + across - left), width - 1), pixel)
            for n in range(self.points)
        ]
        to = e.at(self.seen, e.mul(tile, scratch.x_row))

        def channels(offset: Value, valid: int) -> None:
            x = [
                [
                    load_lanes(e, e.at(self.x, e.add(e.add(line, step), offset)), self.lanes, valid)
                    for step in steps
                ]
                for line in lines
            ]
            seen = self.transforms.both_ways("input", x)
            for number, value in enumerate(value for line in seen for value in line):
                place = e.at(to, e.add(offset, number * scratch.x_point))
                store_lanes(e, value, place, self.lanes, valid)

        each_vector(e, workload.channels, self.lanes, channels)

    def _multiply(self, point: Value, group: Value, filters: int) -> None:
        """All products at one point."""
        e, per_point = self.e, self.panels * self.schedule.groups
        panel_bytes = 4 * self.width * self.workload.channels
        whole, tail = divmod(filters, self.width)
        before = e.add(e.mul(point, per_point), e.mul(group, self.panels))
        w = e.at(self.w, e.mul(before, panel_bytes))
        with e.loop(0, whole) as panel:
            self._panel(point, panel, e.at(w, e.mul(panel, panel_bytes)), self.schedule.vectors)
        if tail:
            panel = e.word(whole)
            self._panel(point, panel, e.at(w, whole * panel_bytes), -(-tail // self.lanes))

    def _panel(self, point: Value, panel: Value, w: Value, vectors: int) -> None:
        e, scratch = self.e, self.scratch
        tiles = even_tiles(self.schedule.tiles, self.schedule.rows)
        x = e.at(self.seen, e.mul(point, scratch.x_point))
        to = e.add(e.mul(point, scratch.out_point), e.mul(panel, 4 * self.width))
        out, larger = e.at(self.products, to), tiles.count(tiles[0])
        for rows, count, before in (
            (tiles[0], larger, 0),
            (tiles[-1], len(tiles) - larger, larger * tiles[0]),
        ):
            if count:
                with e.loop(0, count) as number:
                    row = e.add(e.mul(number, rows), before)
                    places = (e.mul(row, scratch.x_row), e.mul(row, scratch.out_row))
                    self._call(rows, vectors, e.at(x, places[0]), e.at(out, places[1]), w)

    def _call(self, rows: int, vectors: int, x: Value, out: Value, w: Value) -> None:
        tile = Tile(
            rows=rows,
            vectors=vectors,
            columns=vectors * self.lanes,
            unroll=1,
            prefetch=self.schedule.prefetch,
            starts=True,
            ends=False,
            x_row=self.scratch.x_row,
            x_step=4,
            out_row=self.scratch.out_row,
            w_step=4 * self.width,
        )
        if tile.name not in self.tiles:
            made = write_tile(self.module, tile, self.workload, self.dot, self.lanes)
            self.tiles[tile.name] = made
        steps = self.e.word(self.workload.channels)
        self.e.builder.call(self.tiles[tile.name], [steps, x, w, out, *[out] * 4])

    def _write_back(self, first: Value, tile: Value, group: Value, filters: int) -> None:
        """Brings a tile's products back from the points and ends them."""
        e, workload, results = self.e, self.workload, self.schedule.results
        picture, row, column = self._place(first, tile)
        before = e.mul(group, 4 * self.panels * self.width)
        products = e.at(self.products, e.mul(tile, self.scratch.out_row))
        arrays = [
            e.at(array, e.add(grid.place(e, picture, row, column), before))
            for array, grid in zip((self.out, self.residual), self.grids, strict=True)
        ]
        sides = ((row, workload.out_height), (column, workload.out_width))
        tails = [side % results or results for _, side in sides]
        within = [e.less(at, side - tail) for (at, side), tail in zip(sides, tails, strict=True)]

        def vector(offset: Value, valid: int) -> None:
            made = self.transforms.both_ways("output", self._load_points(products, offset))
            place = e.at(self.bias, e.add(before, offset))
            bias = load_lanes(e, place, self.lanes, self.lanes) if workload.bias else None
            for pixel in ((down, right) for down in range(results) for right in range(results)):
                value = made[pixel[0]][pixel[1]]
                value = value if bias is None else e.builder.fadd(value, bias)
                late = [w for w, at, tail in zip(within, pixel, tails, strict=True) if at >= tail]
                out, residual = [
                    e.at(array, e.add(offset, pixel_bytes(grid, *pixel)))
                    for array, grid in zip(arrays, self.grids, strict=True)
                ]
                with e.when(functools.reduce(e.builder.and_, late, ir.Constant(I1, 1))):
                    self._end(value, out, residual, valid)

        each_vector(e, filters, self.lanes, vector)

    def _load_points(self, products: Value, offset: Value) -> list[list[Value]]:
        """A vector of products at all points."""
        e, step = self.e, self.scratch.out_point
        numbers = range(self.points)
        return [
            [
                load_lanes(
                    e,
                    e.at(products, e.add(offset, step * (row * self.points + column))),
                    self.lanes,
                    self.lanes,
                )
                for column in numbers
            ]
            for row in numbers
        ]

    def _end(self, value: Value, out: Value, residual: Value, valid: int) -> None:
        """Residual and activation of one pixel's vector."""
        e, workload = self.e, self.workload
        if workload.residual:
            value = e.builder.fadd(value, load_lanes(e, residual, self.lanes, valid))
        store_lanes(e, activated(e, workload.activation, value), out, self.lanes, valid)


def pixel_bytes(grid: Grid, down: int, right: int) -> int:
    """Returns the bytes between a pixel and another one below and to its right."""
    return 4 * grid.channels * (down * (grid.width + 2 * grid.border) + right)
