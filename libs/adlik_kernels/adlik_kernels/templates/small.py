"""The templates of a plan's small operators: pooling, sums, activations, softmax, layouts.

All work on channels-last arrays that may have borders; the batch is a run-time argument.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from adlik_kernels.codegen.across import each_group, folded, group_of
from adlik_kernels.codegen.emit import F32, I1, Emitter, Value, kernel_function, splat, vector
from adlik_kernels.codegen.vectormath import ACTIVATIONS, constant, decay
from adlik_kernels.templates.grids import (
    BATCH,
    IN,
    OUT,
    SECOND,
    Grid,
    each_vector,
    load_lanes,
    own_rows,
    store_lanes,
)
from adlik_kernels.templates.layouts import Layout, write_layout
from adlik_kernels.templates.pooling import Pool, write_pool

__all__ = [
    "BATCH",
    "IN",
    "OUT",
    "SECOND",
    "Grid",
    "Layout",
    "Map",
    "Pool",
    "Small",
    "Softmax",
    "each_vector",
    "load_lanes",
    "own_rows",
    "small_module",
    "store_lanes",
]


@dataclass(frozen=True, slots=True)
class Map:
    """activation(x), activation(x + y) or activation(x * y), number by number.

    Attributes:
        source: The input.
        result: The output.
        second: The other input, or None; one of a single pixel meets every pixel of the source.
        activation: One of `workload.ACTIVATION_NAMES`, or "".
        operation: "add" or "multiply".
        constant: Whether the other input is one picture for all of the batch.
    """

    source: Grid
    result: Grid
    second: Grid | None
    activation: str
    operation: str = "add"
    constant: bool = False


@dataclass(frozen=True, slots=True)
class Softmax:
    """Softmax over the channels of each pixel.

    Attributes:
        source: The input.
        result: The output.
    """

    source: Grid
    result: Grid


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
        Pool: write_pool,
        Map: _write_map,
        Softmax: _write_softmax,
        Layout: write_layout,
    }
    writers[type(workload)](e, workload, lanes)
    e.builder.ret_void()
    return module


def _write_map(e: Emitter, work: Map, lanes: int) -> None:
    block = e.function.args[2]
    source, result = e.argument(block, IN), e.argument(block, OUT)
    other = e.argument(block, SECOND) if work.second else None
    join = e.builder.fmul if work.operation == "multiply" else e.builder.fadd
    pixel = work.second is not None and work.second.numbers == work.source.channels
    columns, run = (work.source.width, 1) if pixel else (1, work.source.width)
    with own_rows(e, work.source.height) as (picture, row), e.loop(0, columns) as column:
        x = e.at(source, work.source.place(e, picture, row, column))
        to = e.at(result, work.result.place(e, picture, row, column))
        if work.second is not None:
            number = e.word(0) if work.constant else picture
            where = (e.word(0), e.word(0)) if pixel else (row, column)
            y = e.at(other, work.second.place(e, number, *where))

        def numbers(offset: Value, valid: int) -> None:
            value = load_lanes(e, e.at(x, offset), lanes, valid)
            if work.second is not None:
                value = join(value, load_lanes(e, e.at(y, offset), lanes, valid))
            if work.activation:
                value = ACTIVATIONS[work.activation](e, value)
            store_lanes(e, value, e.at(to, offset), lanes, valid)

        each_vector(e, run * work.source.channels, lanes, numbers)


def _write_softmax(e: Emitter, work: Softmax, lanes: int) -> None:
    block, grid = e.function.args[2], work.source
    source, result = e.argument(block, IN), e.argument(block, OUT)
    with own_rows(e, grid.height) as (picture, row), e.loop(0, grid.width) as column:
        x = e.at(source, grid.place(e, picture, row, column))
        to = e.at(result, work.result.place(e, picture, row, column))
        _write_softmax_row(e, x, to, grid.channels, lanes)


def _write_softmax_row(e: Emitter, x: Value, to: Value, columns: int, lanes: int) -> None:
    """Writes exp(x - max(x)) / sum(exp(x - max(x))) for one row; a NaN makes all of it NaN.

    Args:
        e: Where to write.
        x: Address of the row.
        to: Address of the result; it may be x.
        columns: Numbers of the row.
        lanes: Floats of a vector.
    """
    top = splat(e, _largest(e, x, columns, lanes), lanes)
    slots = group_of(e, lanes, 0.0)
    fused = lanes > 4  # every level above the portable one has the instruction

    def weigh(offset: Value, vectors: list[tuple[int, int]]) -> None:
        for slot, (ahead, valid) in zip(slots, vectors, strict=False):
            at = e.add(offset, ahead)
            seen = load_lanes(e, e.at(x, at), lanes, valid, float("-inf"))
            weight = decay(e, e.builder.fsub(seen, top), fused=fused)
            store_lanes(e, weight, e.at(to, at), lanes, valid)
            if valid < lanes:
                real = ir.Constant(vector(I1, lanes), [n < valid for n in range(lanes)])
                weight = e.builder.select(real, weight, constant(weight, 0.0))
            e.builder.store(e.builder.fadd(e.builder.load(slot), weight), slot)

    each_group(e, columns, lanes, weigh)
    total = folded(e, slots, e.builder.fadd)
    share = splat(e, e.builder.fdiv(ir.Constant(F32, 1.0), total), lanes)

    def divide(offset: Value, vectors: list[tuple[int, int]]) -> None:
        for ahead, valid in vectors:
            at = e.at(to, e.add(offset, ahead))
            value = e.builder.fmul(load_lanes(e, at, lanes, valid), share)
            store_lanes(e, value, at, lanes, valid)

    each_group(e, columns, lanes, divide)


def _largest(e: Emitter, x: Value, columns: int, lanes: int) -> Value:
    """The largest number of a row, whatever NaN there is: the weights carry that on."""
    slots = group_of(e, lanes, float("-inf"))

    def larger(left: Value, right: Value) -> Value:
        return e.builder.select(e.builder.fcmp_ordered(">", left, right), left, right)

    def compare(offset: Value, vectors: list[tuple[int, int]]) -> None:
        for slot, (ahead, valid) in zip(slots, vectors, strict=False):
            at = e.at(x, e.add(offset, ahead))
            seen = load_lanes(e, at, lanes, valid, float("-inf"))
            e.builder.store(larger(seen, e.builder.load(slot)), slot)

    each_group(e, columns, lanes, compare)
    return folded(e, slots, larger)
