"""The templates of a plan's small operators: pooling, sums, activations, softmax, layouts.

All work on channels-last float arrays that may have borders; the batch is a run-time argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from adlik_kernels.codegen.emit import (
    F32,
    I1,
    I32,
    VOID,
    Emitter,
    Value,
    kernel_function,
    splat,
    vector,
)
from adlik_kernels.codegen.vectormath import ACTIVATIONS, constant, exponential

IN, OUT, SECOND, BATCH = range(4)
"""Places of the arguments in these kernels' block of words."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The shape of one picture in memory.

    Attributes:
        height: Rows.
        width: Columns.
        channels: Numbers of a pixel.
        border: Rows and columns on each side.
    """

    height: int
    width: int
    channels: int
    border: int = 0

    @property
    def numbers(self) -> int:
        """Numbers of one picture, with its border."""
        return (self.height + 2 * self.border) * (self.width + 2 * self.border) * self.channels

    def place(self, e: Emitter, picture: Value, row: Value, column: Value, item: int = 4) -> Value:
        """Bytes before a pixel, whose numbers have so many bytes each."""
        width = self.width + 2 * self.border
        line = e.add(e.mul(picture, self.height + 2 * self.border), e.add(row, self.border))
        pixel = e.add(e.mul(line, width), e.add(column, self.border))
        return e.mul(pixel, item * self.channels)


@dataclass(frozen=True, slots=True)
class Pool:
    """Largest or mean value of a window.

    Attributes:
        source: The input.
        result: The output.
        kind: "max" or "mean"; the mean counts places inside the picture only.
        window: Rows and columns of the window.
        stride: Its steps.
        padding: Rows and columns on each side that the window may leave the picture by.
    """

    source: Grid
    result: Grid
    kind: str
    window: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Map:
    """activation(x) or activation(x + y), number by number.

    Attributes:
        source: The input.
        result: The output.
        second: The other input of a sum, or None.
        activation: One of `workload.ACTIVATION_NAMES`, or "".
    """

    source: Grid
    result: Grid
    second: Grid | None
    activation: str


@dataclass(frozen=True, slots=True)
class Softmax:
    """Softmax over the channels of each pixel.

    Attributes:
        source: The input.
        result: The output.
    """

    source: Grid
    result: Grid


@dataclass(frozen=True, slots=True)
class Layout:
    """Channels first to channels last, or back.

    Attributes:
        grid: The channels-last side; the other has no border.
        to_last: Whether the result is channels last.
    """

    grid: Grid
    to_last: bool


Small = Pool | Map | Softmax | Layout


def small_module(workload: Small, lanes: int) -> Any:
    """Returns the LLVM module of a small operator; its one public function is `kernel`.

    Args:
        workload: What is computed.
        lanes: Floats of a vector.
    """
    module = ir.Module("small")
    e = Emitter(kernel_function(module, "kernel"))
    writers: dict[type, Callable[[Emitter, Any, int], None]] = {
        Pool: _write_pool,
        Map: _write_map,
        Softmax: _write_softmax,
        Layout: _write_layout,
    }
    writers[type(workload)](e, workload, lanes)
    e.builder.ret_void()
    return module


@contextmanager
def own_rows(e: Emitter, height: int) -> Iterator[tuple[Value, Value]]:
    """Writes a loop over this chunk's rows of all pictures and gives it picture and row."""
    chunk, chunks, block = e.function.args
    total = e.mul(e.argument(block, BATCH, pointer=False), height)
    first = e.div(e.mul(total, chunk), chunks)
    last = e.div(e.mul(total, e.add(chunk, 1)), chunks)
    with e.loop(first, last) as line:
        yield e.div(line, height), e.rem(line, height)


def each_vector(e: Emitter, count: int, lanes: int, body: Callable[[Value, int], None]) -> None:
    """Writes a loop over numbers by vectors; the body gets an offset and the valid lanes."""
    whole = count // lanes
    if whole:
        with e.loop(0, whole) as number:
            body(e.mul(number, 4 * lanes), lanes)
    if count % lanes:
        body(e.word(4 * lanes * whole), count % lanes)


def load_lanes(e: Emitter, pointer: Value, lanes: int, valid: int, other: float = 0.0) -> Value:
    """Reads a vector; lanes behind `valid` are not touched in memory and become `other`."""
    kind = vector(F32, lanes)
    if valid == lanes:
        return e.load(pointer, kind, align=4)
    mask = ir.Constant(vector(I1, lanes), [lane < valid for lane in range(lanes)])
    rest = ir.Constant(kind, [other] * lanes)
    name = f"llvm.masked.load.v{lanes}f32.p0"
    return e.intrinsic(name, kind, [pointer, ir.Constant(I32, 4), mask, rest])


def store_lanes(e: Emitter, value: Value, pointer: Value, lanes: int, valid: int) -> None:
    """Writes the first `valid` lanes of a vector."""
    if valid == lanes:
        e.store(value, pointer, align=4)
        return
    mask = ir.Constant(vector(I1, lanes), [lane < valid for lane in range(lanes)])
    name = f"llvm.masked.store.v{lanes}f32.p0"
    e.intrinsic(name, VOID, [value, pointer, ir.Constant(I32, 4), mask])


def _write_pool(e: Emitter, pool: Pool, lanes: int) -> None:
    block = e.function.args[2]
    source, result = e.argument(block, IN), e.argument(block, OUT)
    given, made = pool.source, pool.result
    with own_rows(e, made.height) as (picture, row), e.loop(0, made.width) as column:
        rows, columns = _inside(e, pool, 0, row), _inside(e, pool, 1, column)
        area = e.mul(e.sub(rows[1], rows[0]), e.sub(columns[1], columns[0]))
        weight = e.builder.fdiv(ir.Constant(F32, 1.0), e.builder.sitofp(area, F32))
        to = e.at(result, made.place(e, picture, row, column))

        def pixels(offset: Value, valid: int) -> None:
            kind = vector(F32, lanes)
            start = float("-inf") if pool.kind == "max" else 0.0
            total = e.variable(kind, ir.Constant(kind, [start] * lanes))
            e.builder.store(ir.Constant(kind, [start] * lanes), total)
            with e.loop(*rows) as line, e.loop(*columns) as place:
                at = e.at(source, e.add(given.place(e, picture, line, place), offset))
                seen, so_far = load_lanes(e, at, lanes, valid), e.builder.load(total)
                if pool.kind == "max":
                    # Unordered: a NaN in the window stays, as in numpy.
                    larger = e.builder.fcmp_unordered(">", seen, so_far)
                    known = e.builder.fcmp_ordered("ord", so_far, so_far)
                    keep = e.builder.and_(larger, known)
                    e.builder.store(e.builder.select(keep, seen, so_far), total)
                else:
                    e.builder.store(e.builder.fadd(so_far, seen), total)
            value = e.builder.load(total)
            if pool.kind == "mean":
                value = e.builder.fmul(value, splat(e, weight, lanes))
            store_lanes(e, value, e.at(to, offset), lanes, valid)

        each_vector(e, made.channels, lanes, pixels)


def _inside(e: Emitter, pool: Pool, axis: int, at: Value) -> tuple[Value, Value]:
    """First and last source place of a window along an axis, cut off at the picture's edges."""
    size = (pool.source.height, pool.source.width)[axis]
    start = e.sub(e.mul(at, pool.stride[axis]), pool.padding[axis])
    first = e.builder.select(e.less(start, 0), e.word(0), start)
    return first, e.least(e.add(start, pool.window[axis]), size)


def _write_map(e: Emitter, work: Map, lanes: int) -> None:
    block = e.function.args[2]
    source, result = e.argument(block, IN), e.argument(block, OUT)
    other = e.argument(block, SECOND) if work.second else None
    run = work.source.width * work.source.channels
    with own_rows(e, work.source.height) as (picture, row):
        start = e.word(0)
        x = e.at(source, work.source.place(e, picture, row, start))
        to = e.at(result, work.result.place(e, picture, row, start))
        y = e.at(other, work.second.place(e, picture, row, start)) if work.second else None

        def numbers(offset: Value, valid: int) -> None:
            value = load_lanes(e, e.at(x, offset), lanes, valid)
            if y is not None:
                value = e.builder.fadd(value, load_lanes(e, e.at(y, offset), lanes, valid))
            if work.activation:
                value = ACTIVATIONS[work.activation](e, value)
            store_lanes(e, value, e.at(to, offset), lanes, valid)

        each_vector(e, run, lanes, numbers)


def _write_softmax(e: Emitter, work: Softmax, lanes: int) -> None:
    block, grid = e.function.args[2], work.source
    source, result = e.argument(block, IN), e.argument(block, OUT)
    kind = vector(F32, lanes)
    with own_rows(e, grid.height) as (picture, row), e.loop(0, grid.width) as column:
        x = e.at(source, grid.place(e, picture, row, column))
        to = e.at(result, work.result.place(e, picture, row, column))
        lowest = ir.Constant(kind, [float("-inf")] * lanes)
        largest, total = e.variable(kind, lowest), e.variable(kind, lowest)
        e.builder.store(lowest, largest)
        e.builder.store(ir.Constant(kind, [0.0] * lanes), total)

        def compare(offset: Value, valid: int) -> None:
            seen = load_lanes(e, e.at(x, offset), lanes, valid, float("-inf"))
            so_far = e.builder.load(largest)
            more = e.builder.fcmp_unordered(">", seen, so_far)
            e.builder.store(e.builder.select(more, seen, so_far), largest)

        each_vector(e, grid.channels, lanes, compare)
        name = f"llvm.vector.reduce.fmax.v{lanes}f32"
        top = splat(e, e.intrinsic(name, F32, [e.builder.load(largest)]), lanes)

        def add(offset: Value, valid: int) -> None:
            seen = load_lanes(e, e.at(x, offset), lanes, valid, float("-inf"))
            power = exponential(e, e.builder.fsub(seen, top))
            if valid < lanes:
                real = ir.Constant(vector(I1, lanes), [n < valid for n in range(lanes)])
                power = e.builder.select(real, power, constant(power, 0.0))
            store_lanes(e, power, e.at(to, offset), lanes, valid)
            e.builder.store(e.builder.fadd(e.builder.load(total), power), total)

        each_vector(e, grid.channels, lanes, add)
        name = f"llvm.vector.reduce.fadd.v{lanes}f32"
        lanes_sum = e.intrinsic(name, F32, [ir.Constant(F32, 0.0), e.builder.load(total)])
        scale = splat(e, e.builder.fdiv(ir.Constant(F32, 1.0), lanes_sum), lanes)

        def divide(offset: Value, valid: int) -> None:
            value = e.builder.fmul(load_lanes(e, e.at(to, offset), lanes, valid), scale)
            store_lanes(e, value, e.at(to, offset), lanes, valid)

        each_vector(e, grid.channels, lanes, divide)


def _write_layout(e: Emitter, work: Layout, _lanes: int) -> None:
    block, grid = e.function.args[2], work.grid
    source, result = e.argument(block, IN), e.argument(block, OUT)
    plane = grid.height * grid.width
    with own_rows(e, grid.height) as (picture, row), e.loop(0, grid.width) as column:
        pixel = grid.place(e, picture, row, column)
        first = e.add(e.mul(picture, plane * grid.channels), e.add(e.mul(row, grid.width), column))
        with e.loop(0, grid.channels) as channel:
            apart = e.mul(e.add(first, e.mul(channel, plane)), 4)
            beside = e.add(pixel, e.mul(channel, 4))
            if work.to_last:
                e.store(e.load(e.at(source, apart), F32, 4), e.at(result, beside), 4)
            else:
                e.store(e.load(e.at(source, beside), F32, 4), e.at(result, apart), 4)
