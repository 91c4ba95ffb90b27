"""The template of dense products: the loops around the micro-kernel, written from a schedule.

A kernel is made for a depth, a number of columns and a schedule, and takes any number of rows,
unless the workload says how many: then only the one tail of rows that occurs is written.

The loops, outermost first, with order="columns":

    for panel in panels of w        # vectors x lanes columns; shared out with parallel="columns"
        for block in blocks of rows # row_tiles tiles; shared out with parallel="rows"
            for part in blocks of k
                for tile in block       # the micro-kernel: rows x panel

With order="rows" the two outer loops change places, and pack=True copies each block of rows once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from adlik_kernels.codegen.emit import Emitter, Value, kernel_function
from adlik_kernels.codegen.isa import GROUP
from adlik_kernels.codegen.micro import micro_kernels
from adlik_kernels.codegen.tile import Tile
from adlik_kernels.errors import InvalidSchedule
from adlik_kernels.machine.target import Target
from adlik_kernels.schedules.schedule import Schedule
from adlik_kernels.schedules.space import Space, packed_row
from adlik_kernels.templates.nest import each_panel, walk
from adlik_kernels.workload import Dense

X, W, OUT, BIAS, RESIDUAL, SCALE, QUANTIZATION, ROWS = range(8)
"""Places of the arguments in a dense kernel's block of words."""

ARGUMENTS = 8


def dense_module(workload: Dense, schedule: Schedule, target: Target) -> Any:
    """Returns the LLVM module of a dense kernel; its one public function is `kernel`.

    Args:
        workload: What is computed. With rows 0 the kernel takes any number of rows.
        schedule: How.
        target: For which machine.

    Raises:
        InvalidSchedule: The schedule is not allowed for this workload on this machine.
    """
    fault = Space(workload, target, threads=2).fault(schedule)
    if fault:
        raise InvalidSchedule(f"{schedule} does not fit {workload.key}: {fault}.")
    module = ir.Module("dense")
    _Nest(module, workload, schedule, target).write()
    return module


def row_tails(rows: int, tile: int) -> tuple[int, ...]:
    """Returns the tiles that cover what is left of the rows after whole tiles, largest first.

    With a known number of rows it is the one remainder; with any number, powers of two.
    """
    if rows:
        return (rows % tile,) if rows % tile else ()
    return tuple(power for power in (32, 16, 8, 4, 2, 1) if power < tile)


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the sums of one panel: its columns, and `steps` words along k from `k` on."""

    panel: Value
    columns: int
    k: Value
    steps: int
    starts: bool
    ends: bool


class _Nest:
    def __init__(self, module: Any, workload: Dense, schedule: Schedule, target: Target) -> None:
        self.module, self.workload, self.schedule, self.target = module, workload, schedule, target
        self.words = -(-workload.depth // GROUP[workload.dtype])
        self.width = schedule.vectors * target.lanes
        self.panels = -(-workload.columns // self.width)
        self.k_block = schedule.k_block or self.words
        largest = (schedule.rows, schedule.vectors)
        self.micro = micro_kernels(workload, largest, self.words, target)
        self.tiles: dict[str, Any] = {}
        self.e = Emitter(kernel_function(module, "kernel"))
        block = self.e.function.args[2]
        places = (X, W, OUT, BIAS, RESIDUAL, SCALE, QUANTIZATION)
        self.pointers = {place: self.e.argument(block, place) for place in places}
        count = self.e.argument(block, ROWS, pointer=False)
        self.rows = self.e.word(workload.rows) if workload.rows else count
        self.covered = schedule.rows * schedule.row_tiles
        self.x_row = packed_row(self.words) if schedule.pack else 4 * self.words

    def write(self) -> None:
        e, schedule = self.e, self.schedule
        self.micro.begin(e)
        blocks = e.div(e.add(self.rows, self.covered - 1), self.covered)
        if schedule.pack:
            self.copy = e.space(self.covered * self.x_row)
            self.copied = e.variable(blocks.type, e.word(-1))
        walk(e, schedule, blocks, self.panels, self._panel)
        self.micro.end(e)
        e.builder.ret_void()

    def _panel(self, panel: Value, block: Value) -> None:
        """One panel of columns by one block of rows; the last panel may be narrower."""
        if self.schedule.pack:
            self._copy(block)
        widths = (self.width, self.workload.columns - (self.panels - 1) * self.width)
        each_panel(self.e, panel, self.panels, widths, lambda n: self._k_blocks(panel, block, n))

    def _copy(self, block: Value) -> None:
        """Copies a block of rows of x, unless it is the one that was copied last."""
        e, size = self.e, 4 * self.words
        is_new = e.builder.icmp_signed("!=", block, e.builder.load(self.copied))
        with e.when(is_new):
            first = e.mul(block, self.covered)
            count = e.least(e.sub(self.rows, first), self.covered)
            x = e.at(self.pointers[X], e.mul(first, size))
            with e.loop(0, count) as row:
                e.copy(e.at(self.copy, e.mul(row, self.x_row)), e.at(x, e.mul(row, size)), size)
            e.builder.store(block, self.copied)

    def _k_blocks(self, panel: Value, block: Value, columns: int) -> None:
        parts = -(-self.words // self.k_block)
        last = self.words - (parts - 1) * self.k_block
        if parts == 1:
            self._tiles(block, _Part(panel, columns, self.e.word(0), self.words, True, True))
            return
        size = self.k_block
        self._tiles(block, _Part(panel, columns, self.e.word(0), size, True, False))
        if parts > 2:
            with self.e.loop(1, parts - 1) as part:
                start = self.e.mul(part, size)
                self._tiles(block, _Part(panel, columns, start, size, False, False))
        start = self.e.word((parts - 1) * size)
        self._tiles(block, _Part(panel, columns, start, last, False, True))

    def _tiles(self, block: Value, part: _Part) -> None:
        """Whole tiles of a block of rows, then, in the last block, the tails."""
        e, height = self.e, self.schedule.rows
        start = e.mul(block, self.covered)
        stop = e.least(e.add(start, self.covered), self.rows)
        whole = e.add(start, e.mul(e.div(e.sub(stop, start), height), height))
        with e.loop(start, whole, height) as row:
            self._call(row, height, part)
        tails = row_tails(self.workload.rows, height)
        if not tails:
            return
        at = e.variable(whole.type, whole)
        for tail in tails:
            row = e.builder.load(at)
            with e.when(e.less(e.add(row, tail - 1), stop)):
                self._call(row, tail, part)
                e.builder.store(e.add(row, tail), at)

    def _call(self, row: Value, height: int, part: _Part) -> None:
        e, p = self.e, self.pointers
        size = 1 if self.workload.output == "uint8" else 4
        tile = Tile(
            rows=height,
            vectors=-(-part.columns // self.target.lanes),
            columns=part.columns,
            unroll=self.schedule.unroll,
            prefetch=self.schedule.prefetch,
            starts=part.starts,
            ends=part.ends,
            x_row=self.x_row,
            x_step=4,
            out_row=size * self.workload.columns,
            w_step=4 * self.width,
        )
        rows_of_x, number = p[X], row
        if self.schedule.pack:
            rows_of_x, number = self.copy, e.rem(row, self.covered)
        x = e.at(rows_of_x, e.add(e.mul(number, tile.x_row), e.mul(part.k, 4)))
        panel_bytes = 4 * self.width * self.words
        w_offset = e.add(e.mul(part.panel, panel_bytes), e.mul(part.k, tile.w_step))
        column = e.mul(part.panel, self.width)
        place = e.add(e.mul(row, self.workload.columns), column)
        per_column = e.mul(column, 4)
        arguments = [
            e.word(part.steps),
            x,
            e.at(p[W], w_offset),
            e.at(p[OUT], e.mul(place, size)),
            e.at(p[BIAS], per_column),
            e.at(p[RESIDUAL], e.mul(place, 1 if self.workload.residual_dtype == "uint8" else 4)),
            e.at(p[SCALE], per_column),
            p[QUANTIZATION],
        ]
        e.builder.call(self._tile(tile), arguments)

    def _tile(self, tile: Tile) -> Any:
        if tile.name not in self.tiles:
            self.tiles[tile.name] = self.micro.write(self.module, tile)
        return self.tiles[tile.name]
