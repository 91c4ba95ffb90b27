"""The template of depthwise convolutions: each channel with a window of its own.

There is no product here, only as many multiply-adds as numbers are read. A tile is some pixels of
some rows by one vector of channels: its sums and the window's weights stay in registers, and every
number of x that the tile sees is loaded once.

    for block of rows in this chunk
        for tile in row                 # those at the picture's sides leave out what lies outside
            for vector of channels
                for line of x           # left out at run time where it lies outside
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from adlik_kernels.codegen.emit import Emitter, Value, kernel_function
from adlik_kernels.codegen.ending import activated
from adlik_kernels.codegen.isa import multiply_add
from adlik_kernels.machine.target import Target
from adlik_kernels.schedules.conv import even_tiles
from adlik_kernels.schedules.depthwise import DepthwiseSchedule, depthwise_default
from adlik_kernels.templates.small import Grid, each_vector, load_lanes, store_lanes

IN, OUT, WEIGHTS, BATCH, BIAS = range(5)
"""Places of the arguments in a kernel's block of words."""


@dataclass(frozen=True, slots=True)
class Depthwise:
    """activation(depthwise(x, w) + bias) on channels-last float arrays.

    Weights are [rows, columns, channels] and the bias [channels]. x may have a border, which is
    zero; where it is narrower than the padding, what lies outside is not read.

    Attributes:
        source: The input.
        result: The output, with as many channels.
        window: Rows and columns of the windows.
        stride: Their steps.
        padding: Zero rows above and zero columns to the left of the picture; what windows need
            below and to the right follows from the result's size.
        activation: One of `workload.ACTIVATION_NAMES`, or "".
    """

    source: Grid
    result: Grid
    window: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    activation: str

    @property
    def holds_all_lines(self) -> bool:
        """Whether every line that a window sees lies in the picture or in its border.

        Padding may be larger below than above: both ends count.
        """
        above = self.padding[0]
        last = (self.result.height - 1) * self.stride[0] - above + self.window[0]
        border = self.source.border
        return border >= above and last <= self.source.height + border


@dataclass(frozen=True, slots=True)
class Run:
    """Tiles of a row that one piece of code computes.

    Attributes:
        pixels: Pixels of each.
        first: First pixel of the first.
        count: Tiles.
        columns: Columns of x that they may read, counted from their first window's first column.
    """

    pixels: int
    first: int
    count: int
    columns: range


def depthwise_module(
    workload: Depthwise, target: Target, schedule: DepthwiseSchedule | None = None
) -> Any:
    """Returns the LLVM module of a depthwise convolution; its one public function is `kernel`.

    Args:
        workload: What is computed.
        target: For which machine.
        schedule: How; by rule if not given.
    """
    module = ir.Module("depthwise")
    if schedule is None:
        size = (workload.result.height, workload.result.width)
        touched = 4 * (workload.source.numbers + workload.result.numbers)
        schedule = depthwise_default(size, touched, workload.stride, target)
    e = Emitter(kernel_function(module, "kernel"))
    _Writer(e, workload, schedule, target).write()
    return module


def runs_of(workload: Depthwise, pixels: int) -> list[Run]:
    """Returns the tiles of a row, those that are alike joined.

    Args:
        workload: What is computed.
        pixels: Most pixels of a tile.
    """
    source, (_, step), (_, left) = workload.source, workload.stride, workload.padding
    runs: list[Run] = []
    first = 0
    for size in even_tiles(workload.result.width, pixels):
        start = first * step - left
        seen = range(
            max(0, -source.border - start),
            min((size - 1) * step + workload.window[1], source.width + source.border - start),
        )
        last = runs[-1] if runs else None
        if last and (last.pixels, last.columns) == (size, seen):
            runs[-1] = Run(size, last.first, last.count + 1, seen)
        else:
            runs.append(Run(size, first, 1, seen))
        first += size
    return runs


@contextmanager
def own_blocks(e: Emitter, height: int, rows: int, batch: Value) -> Iterator[tuple[Value, Value]]:
    """Writes a loop over this chunk's blocks of rows; gives it a picture and a block's first row.

    The last block of a picture begins early enough to be whole: what two blocks both compute is
    the same.

    Args:
        e: Writes the instructions.
        height: Rows of a picture.
        rows: Rows of a block, at most the picture's.
        batch: Pictures.
    """
    chunk, chunks, _ = e.function.args
    blocks = -(-height // rows)
    total = e.mul(batch, blocks)
    first = e.div(e.mul(total, chunk), chunks)
    last = e.div(e.mul(total, e.add(chunk, 1)), chunks)
    with e.loop(first, last) as number:
        row = e.least(e.mul(e.rem(number, blocks), rows), height - rows)
        yield e.div(number, blocks), row


class _Writer:
    def __init__(
        self, e: Emitter, workload: Depthwise, schedule: DepthwiseSchedule, target: Target
    ) -> None:
        self.e, self.workload, self.schedule, self.lanes = e, workload, schedule, target.lanes
        self.fused = "fma" in target.features
        block = e.function.args[2]
        self.x, self.out, self.w, self.bias = (
            e.argument(block, place) for place in (IN, OUT, WEIGHTS, BIAS)
        )
        self.batch = e.argument(block, BATCH, pointer=False)

    def write(self) -> None:
        e, work, rows = self.e, self.workload, self.schedule.rows
        with own_blocks(e, work.result.height, rows, self.batch) as (picture, row):
            for run in runs_of(work, self.schedule.pixels):
                with e.loop(0, run.count) as number:
                    column = e.add(e.mul(number, run.pixels), run.first)
                    self._tile(picture, row, column, run)
        e.builder.ret_void()

    def _tile(self, picture: Value, row: Value, column: Value, run: Run) -> None:
        e, work = self.e, self.workload
        down, across = work.stride
        top = e.sub(e.mul(row, down), work.padding[0])
        left = e.sub(e.mul(column, across), work.padding[1])
        x = e.at(self.x, work.source.place(e, picture, top, left))
        out = e.at(self.out, work.result.place(e, picture, row, column))

        def channels(offset: Value, valid: int) -> None:
            sums = self._sums(e.at(x, offset), top, run, (offset, valid))
            for (below, right), total in sums.items():
                pixel = below * (work.result.width + 2 * work.result.border) + right
                place = e.at(out, e.add(offset, 4 * work.result.channels * pixel))
                value = activated(e, work.activation, e.builder.load(total))
                store_lanes(e, value, place, self.lanes, valid)

        each_vector(e, work.result.channels, self.lanes, channels)

    def _sums(
        self, x: Value, top: Value, run: Run, lane: tuple[Value, int]
    ) -> dict[tuple[int, int], Any]:
        """The sums of a tile, by row and pixel, in slots."""
        e, work, (offset, valid) = self.e, self.workload, lane
        step = 4 * work.source.channels
        taps = list(itertools.product(*(range(side) for side in work.window)))
        weights = {}
        for number, tap in enumerate(taps):
            place = e.at(self.w, e.add(offset, step * number))
            weights[tap] = load_lanes(e, place, self.lanes, valid)
        first = load_lanes(e, e.at(self.bias, offset), self.lanes, valid)
        sums = {
            place: e.variable(first.type, first)
            for place in itertools.product(range(self.schedule.rows), range(run.pixels))
        }
        for line in range((self.schedule.rows - 1) * work.stride[0] + work.window[0]):
            with self._inside(e.add(top, line)):
                for column in run.columns:
                    pixel = line * (work.source.width + 2 * work.source.border) + column
                    place = e.at(x, step * pixel)
                    users = list(users_of(work, sums, (line, column)))
                    if users:
                        seen = load_lanes(e, place, self.lanes, valid)
                    for slot, tap in users:
                        total = e.builder.load(slot)
                        total = multiply_add(e, seen, weights[tap], total, fused=self.fused)
                        e.builder.store(total, slot)
        return sums

    @contextmanager
    def _inside(self, line: Value) -> Iterator[None]:
        """Leaves out a line that neither the picture nor its border has."""
        source = self.workload.source
        if self.workload.holds_all_lines:
            yield
            return
        # One comparison for both ends: a line above the picture is a very large number.
        seen = self.e.add(line, source.border)
        inside = self.e.builder.icmp_unsigned(
            "<", seen, self.e.word(source.height + 2 * source.border)
        )
        with self.e.when(inside):
            yield


def users_of(
    work: Depthwise, sums: dict[tuple[int, int], Any], place: tuple[int, int]
) -> Iterator[tuple[Any, tuple[int, int]]]:
    """Gives the sums of a tile that a number of x belongs to, each with its tap of the window.

    Args:
        work: What is computed.
        sums: The sums, by row and pixel.
        place: Line and column of the number within the tile.
    """
    for spot, slot in sums.items():
        tap = tuple(at - n * s for at, n, s in zip(place, spot, work.stride, strict=True))
        if all(0 <= t < side for t, side in zip(tap, work.window, strict=True)):
            yield slot, (tap[0], tap[1])
