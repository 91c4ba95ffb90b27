"""The micro-kernel: a tile of the result that stays in registers while k runs, and its fused end.

One micro-kernel multiplies `rows` rows of x with `vectors` vectors of packed w. Goto and van de
Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008), is where the shape of this comes
from.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from adlik_kernels.codegen.emit import (
    F32,
    I1,
    I8,
    I32,
    I64,
    POINTER,
    VOID,
    Emitter,
    Value,
    splat,
    vector,
)
from adlik_kernels.codegen.isa import Dot, multiply_add
from adlik_kernels.codegen.vectormath import ACTIVATIONS
from adlik_kernels.workload import Fused

INLINE = ("relu", "relu6", "hardswish")
"""Activations of a few instructions."""

SIGNATURE = ir.FunctionType(VOID, [I64] + [POINTER] * 7)
"""`void tile(k steps, x, w, out, bias, residual, scale, quantization)`."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One micro-kernel.

    Attributes:
        rows: Rows of the result.
        vectors: Vectors of columns.
        columns: Valid columns; fewer than the vectors hold in the last panel.
        unroll: Steps of k written out in the loop's body.
        prefetch: Steps of k by which packed w is fetched ahead; 0 for never.
        starts: Whether it begins the sum (else it continues from what `out` holds).
        ends: Whether it ends the sum, and so applies the fused end.
        x_row: Bytes from one row of x to the next.
        x_step: Bytes from one word of a row to the next.
        out_row: Bytes from one row of the result to the next.
        w_step: Bytes from one step of packed w to the next.
        segments: Parts of k that lie apart in x: the rows of a convolution's window.
        x_segment: Bytes from one part to the next.
    """

    rows: int
    vectors: int
    columns: int
    unroll: int
    prefetch: int
    starts: bool
    ends: bool
    x_row: int
    x_step: int
    out_row: int
    w_step: int
    segments: int = 1
    x_segment: int = 0

    @property
    def name(self) -> str:
        """The function's name within its module."""
        return f"tile_{self.rows}x{self.columns}_{int(self.starts)}{int(self.ends)}"


def write_tile(module: Any, tile: Tile, workload: Fused, dot: Dot, lanes: int) -> Any:
    """Writes a micro-kernel as a private function of a module and returns the function.

    Args:
        module: The module that gets the function.
        tile: What to write.
        workload: The product it is part of, for its fused end.
        dot: The instructions to use.
        lanes: 32-bit lanes of one vector.
    """
    function = ir.Function(module, SIGNATURE, tile.name)
    function.linkage = "internal"
    function.attributes.add("nounwind")
    function.attributes.add("noinline")  # each tile gets a register allocation of its own
    TileWriter(Emitter(function), tile, workload, dot, lanes).write()
    return function


class TileWriter:
    """Writes the body of one micro-kernel.

    Attributes:
        arguments: Values of the function's arguments, by name.
    """

    def __init__(self, e: Emitter, tile: Tile, workload: Fused, dot: Dot, lanes: int) -> None:
        self.e, self.tile, self.workload, self.dot, self.lanes = e, tile, workload, dot, lanes
        self.fused = dot.fused
        names = ("steps", "x", "w", "out", "bias", "residual", "scale", "quantization")
        self.arguments = dict(zip(names, e.function.args, strict=True))

    def write(self) -> None:
        """Writes everything."""
        totals = self.begin()
        self._multiply(totals)
        self.finish(totals)
        self.e.builder.ret_void()

    def finish(self, totals: list[list[Any]]) -> None:
        """Ends the sums and writes them to the result.

        Args:
            totals: Slots of the sums, [rows][vectors].
        """
        for row in range(self.tile.rows):
            for column in range(self.tile.vectors):
                value = self.e.builder.load(totals[row][column])
                self._put(self._end(value, row, column) if self.tile.ends else value, row, column)

    def begin(self) -> list[list[Any]]:
        """Returns slots of the sums, [rows][vectors]: of zeros, or of what `out` holds."""
        kind = vector(self.dot.accumulator, self.lanes)
        zero = ir.Constant(kind, [0] * self.lanes)
        return [
            [
                self.e.variable(kind, zero if self.tile.starts else self._got("out", row, column))
                for column in range(self.tile.vectors)
            ]
            for row in range(self.tile.rows)
        ]

    def _multiply(self, totals: list[list[Any]]) -> None:
        with self.segments() as (x, before):
            self._run(totals, x, before)

    @contextmanager
    def segments(self) -> Iterator[tuple[Value, Value]]:
        """Writes loops over the parts of k around the body.

        It gives the body where x begins, and how many steps are before it in packed w.
        """
        e, tile, x = self.e, self.tile, self.arguments["x"]
        if tile.segments == 1:
            yield x, e.word(0)
            return
        with e.loop(0, tile.segments) as part:
            yield e.at(x, e.mul(part, tile.x_segment)), e.mul(part, self.arguments["steps"])

    def _run(self, totals: list[list[Any]], x: Value, before: Value) -> None:
        """All steps of one part of k, with so many steps before it."""
        e, unroll, steps = self.e, self.tile.unroll, self.arguments["steps"]
        w = e.at(self.arguments["w"], e.mul(before, self.tile.w_step))
        whole = e.sub(steps, e.rem(steps, unroll)) if unroll > 1 else steps
        with e.loop(0, whole, unroll) as k:
            for ahead in range(unroll):
                self._step(totals, x, w, e.add(k, ahead))
        if unroll > 1:
            with e.loop(whole, steps) as k:
                self._step(totals, x, w, k)

    def _step(self, totals: list[list[Any]], x: Value, w: Value, k: Value) -> None:
        e, tile = self.e, self.tile
        w = e.at(w, e.mul(k, tile.w_step))
        x = e.at(x, e.mul(k, tile.x_step))
        words = vector(I32, self.lanes)
        width = 4 * self.lanes
        opened = [
            self.dot.open(e, e.load(e.at(w, width * column), words, align=width))
            for column in range(tile.vectors)
        ]
        if tile.prefetch:
            for column in range(tile.vectors):
                self._fetch(e.at(w, tile.prefetch * tile.w_step + width * column))
        for row in range(tile.rows):
            spread = self.dot.spread(e, e.load(e.at(x, row * tile.x_row), I32))
            for column in range(tile.vectors):
                slot = totals[row][column]
                e.builder.store(
                    self.dot.step(e, e.builder.load(slot), spread, opened[column]), slot
                )

    def _fetch(self, pointer: Value) -> None:
        read, near, data = (ir.Constant(I32, value) for value in (0, 3, 1))
        self.e.intrinsic("llvm.prefetch.p0", VOID, [pointer, read, near, data])

    def _end(self, total: Value, row: int, column: int) -> Value:
        """Scale, bias, residual, activation, requantization, in this order."""
        e, b, workload = self.e, self.e.builder, self.workload
        floats = vector(F32, self.lanes)
        if workload.dtype == "int8":
            scale, bias = (self._constants(name, column) for name in ("scale", "bias"))
            total = multiply_add(e, b.sitofp(total, floats), scale, bias, fused=self.fused)
        elif workload.bias:
            total = b.fadd(total, self._constants("bias", column))
        if workload.residual:
            total = b.fadd(total, self._got("residual", row, column))
        if workload.activation:
            total = self._activated(total)
        return self._quantized(total) if workload.output == "uint8" else total

    def _activated(self, value: Value) -> Value:
        """Short activations stay in the tile; long ones are called, for a tile has many vectors."""
        name = self.workload.activation
        if name in INLINE:
            return ACTIVATIONS[name](self.e, value)
        function = self.e.module.globals.get(name)
        if function is None:
            kind = ir.FunctionType(value.type, [value.type])
            function = ir.Function(self.e.module, kind, name)
            function.linkage = "internal"
            function.attributes.add("noinline")
            inner = Emitter(function)
            inner.builder.ret(ACTIVATIONS[name](inner, function.args[0]))
        return self.e.builder.call(function, [value])

    def _quantized(self, value: Value) -> Value:
        e, b = self.e, self.e.builder
        inverse, zero = (
            splat(e, e.load(e.at(self.arguments["quantization"], offset), F32), self.lanes)
            for offset in (0, 4)
        )
        level = multiply_add(e, value, inverse, zero, fused=self.fused)
        level = e.intrinsic(f"llvm.rint.v{self.lanes}f32", level.type, [level])
        low, high = (ir.Constant(level.type, [bound] * self.lanes) for bound in (0.0, 255.0))
        # In this order each choice is one instruction, and NaN becomes 0, which integers have.
        level = b.select(b.fcmp_ordered(">", level, low), level, low)
        level = b.select(b.fcmp_ordered("<", level, high), level, high)
        return b.trunc(b.fptosi(level, vector(I32, self.lanes)), vector(I8, self.lanes))

    def _constants(self, name: str, column: int) -> Value:
        """A vector of per-column floats; these arrays are padded to whole panels."""
        pointer = self.e.at(self.arguments[name], 4 * self.lanes * column)
        return self.e.load(pointer, vector(F32, self.lanes), align=4)

    def _mask(self, column: int) -> Any | None:
        """Which lanes of a vector of columns are valid; None when all are."""
        valid = self.tile.columns - column * self.lanes
        if valid >= self.lanes:
            return None
        return ir.Constant(vector(I1, self.lanes), [lane < valid for lane in range(self.lanes)])

    def _got(self, name: str, row: int, column: int) -> Value:
        """Float columns of one row of `out` or `residual`."""
        e, kind, mask = self.e, vector(F32, self.lanes), self._mask(column)
        pointer = self._place(name, row, column, 4)
        if mask is None:
            return e.load(pointer, kind, align=4)
        nothing = ir.Constant(kind, [0.0] * self.lanes)
        arguments = [pointer, ir.Constant(I32, 4), mask, nothing]
        return e.intrinsic(f"llvm.masked.load.v{self.lanes}f32.p0", kind, arguments)

    def _put(self, value: Value, row: int, column: int) -> None:
        e, mask = self.e, self._mask(column)
        size, suffix = (1, "i8") if self.workload.output == "uint8" else (4, "f32")
        pointer = self._place("out", row, column, size)
        if mask is None:
            e.store(value, pointer, align=size)
            return
        name = f"llvm.masked.store.v{self.lanes}{suffix}.p0"
        e.intrinsic(name, VOID, [value, pointer, ir.Constant(I32, size), mask])

    def _place(self, name: str, row: int, column: int, size: int) -> Value:
        offset = row * self.tile.out_row + size * self.lanes * column
        return self.e.at(self.arguments[name], offset)
