"""The templates of a plan's small operators: pooling, sums, activations, softmax, layouts.

All work on channels-last arrays that may have borders; the batch is a run-time argument.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from adlik_kernels.codegen.emit import F32, I1, Emitter, Value, kernel_function, splat, vector
from adlik_kernels.codegen.vectormath import ACTIVATIONS, constant, exponential
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
