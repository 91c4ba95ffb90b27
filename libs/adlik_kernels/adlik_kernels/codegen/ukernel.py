"""The micro-kernel: a tile of the result that stays in registers while k runs, and its fused end.

One micro-kernel multiplies `rows` rows of x with `vectors` vectors of packed w. Goto and van de
Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008), is where the shape of this comes
from.
"""

from __future__ import annotations

from contextlib import ExitStack
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
from adlik_kernels.codegen.levels import CLIPPED, GROUP, RESIDUAL_SCALE, Levels, packed
from adlik_kernels.codegen.vectormath import ACTIVATIONS
from adlik_kernels.workload import BLOCK, Fused

INLINE = ("relu", "relu6", "hardswish")
"""Activations of a few instructions."""

LINE = 64
"""Bytes of a line of cache."""

FIRST, SECOND = 3, 2
"""LLVM's numbers of the caches that a line is fetched into."""

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
        out_block: Bytes from one block of `BLOCK` columns of the result to the next; 0 where they
            lie one behind the other. A residual lies like the result.
        around: Numbers and bytes of what lies around those segments, outermost first: weights lie
            in this order too.
        ahead: Bytes that each step fetches from a place of their own into the second cache: the
            weights of a later tile. The place is one argument more, at the end.
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
    out_block: int = 0
    around: tuple[tuple[int, int], ...] = ()
    ahead: int = 0

    @property
    def parts(self) -> tuple[tuple[int, int], ...]:
        """Into how many parts k is cut and the bytes between them in x, outermost first."""
        found = (*self.around, (self.segments, self.x_segment))
        return tuple(part for part in found if part[0] > 1)

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
    extra = [POINTER] if tile.ahead else []
    kind = ir.FunctionType(VOID, [*SIGNATURE.args, *extra])
    function = ir.Function(module, kind, tile.name)
    function.linkage = "internal"
    function.attributes.add("nounwind")
    function.attributes.add("noinline")  # each tile gets a register allocation of its own
    _TileWriter(Emitter(function), tile, workload, dot, lanes).write()
    return function


class _TileWriter:
    def __init__(self, e: Emitter, tile: Tile, workload: Fused, dot: Dot, lanes: int) -> None:
        self.e, self.tile, self.workload, self.dot, self.lanes = e, tile, workload, dot, lanes
        self.fused = dot.fused
        self.levels: Levels | None = None
        self.kept: dict[object, tuple[Value, ...]] = {}
        names: tuple[str, ...] = ("steps", "x", "w", "out", "bias", "residual", "scale")
        names += ("quantization", "ahead") if tile.ahead else ("quantization",)
        self.arguments = dict(zip(names, e.function.args, strict=True))

    def write(self) -> None:
        totals = self._begin()
        if self.tile.ends and self.workload.residual:
            self._expect()
        self._multiply(totals)
        if self.tile.ends:
            self._finish(totals)
        else:
            for row, column in self._places():
                self._put(self.e.builder.load(totals[row][column]), row, column)
        self.e.builder.ret_void()

    def _finish(self, totals: list[list[Any]]) -> None:
        """Fused ends, then stores: column by column, or rows of bytes that pack well."""
        e, workload, read = self.e, self.workload, self._quantization
        if workload.output != "uint8":
            for row, column in self._places():
                value = e.builder.load(totals[row][column])
                self._put(self._end(value, row, column), row, column)
            return
        self.levels = Levels.read(e, workload.activation, read, fused=self.fused)
        together = GROUP if self.lanes == 16 and not self.tile.out_block else 1
        for first in range(0, self.tile.vectors, together):
            columns = range(first, min(first + together, self.tile.vectors))
            for row in range(self.tile.rows):
                reals = [self._end(e.builder.load(totals[row][c]), row, c) for c in columns]
                nearest = [self.levels.nearest(e, real) for real in reals]
                if len(nearest) > 1:
                    self._put(packed(e, nearest), row, first, len(nearest))
                else:
                    self._put(e.builder.trunc(nearest[0], vector(I8, self.lanes)), row, first)

    def _places(self) -> list[tuple[int, int]]:
        """Rows and columns, so that the constants of one column are used one behind the other."""
        return [(row, c) for c in range(self.tile.vectors) for row in range(self.tile.rows)]

    def _begin(self) -> list[list[Any]]:
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
        e, parts = self.e, self.tile.parts
        x, number = self.arguments["x"], e.word(0)
        with ExitStack() as loops:
            for count, size in parts:
                part = loops.enter_context(e.loop(0, count))
                x = e.at(x, e.mul(part, size))
                number = e.add(e.mul(number, count), part)
            self._run(totals, x, e.mul(number, self.arguments["steps"]))

    def _run(self, totals: list[list[Any]], x: Value, before: Value) -> None:
        """All steps of one part of k, with so many steps before it."""
        e, unroll, steps = self.e, self.tile.unroll, self.arguments["steps"]
        w = e.at(self.arguments["w"], e.mul(before, self.tile.w_step))
        whole = e.sub(steps, e.rem(steps, unroll)) if unroll > 1 else steps
        with e.loop(0, whole, unroll) as k:
            for ahead in range(unroll):
                self._step(totals, x, w, e.add(k, ahead))
                self._fetch_ahead(e.add(before, e.add(k, ahead)))
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

    def _fetch_ahead(self, step: Value) -> None:
        e, size = self.e, self.tile.ahead
        for line in range(0, size, LINE):
            offset = e.add(e.mul(step, size), line)
            self._fetch(e.at(self.arguments["ahead"], offset), SECOND)

    def _expect(self) -> None:
        """Fetches the residual while k runs: its lines come from memory, once each."""
        size = 1 if self.workload.residual_dtype == "uint8" else 4
        together = BLOCK if self.tile.out_block else LINE // size
        step = max(1, together // self.lanes)
        for row in range(self.tile.rows):
            for column in range(0, self.tile.vectors, step):
                self._fetch(self._place("residual", row, column, size))

    def _fetch(self, pointer: Value, cache: int = FIRST) -> None:
        numbers = (ir.Constant(I32, value) for value in (0, cache, 1))
        self.e.intrinsic("llvm.prefetch.p0", VOID, [pointer, *numbers])

    def _end(self, total: Value, row: int, column: int) -> Value:
        """Scale, bias, residual and activation, in this order; levels if they are wanted."""
        e, b, workload, constants = self.e, self.e.builder, self.workload, self._constants(column)
        if workload.dtype == "int8":
            total = b.sitofp(total, vector(F32, self.lanes))
            total = multiply_add(e, total, *constants, fused=self.fused)
        elif workload.bias:
            total = b.fadd(total, constants[0])
        if workload.residual:
            total = self._added(total, row, column)
        if workload.activation and not self._linear:
            total = self._activated(total)
        if self.levels is None or self._linear:
            return total
        return multiply_add(e, total, self.levels.inverse, self.levels.zero, fused=self.fused)

    def _added(self, total: Value, row: int, column: int) -> Value:
        """The sum with the residual, in real numbers or, if all is linear, in levels."""
        e, b = self.e, self.e.builder
        inverse = self.levels.inverse if self.levels is not None and self._linear else None
        if self.workload.residual_dtype == "uint8":
            found = b.zext(self._got("residual", row, column, I8), vector(I32, self.lanes))
            residual, factor = (
                b.sitofp(found, vector(F32, self.lanes)),
                self._residual_scale(inverse),
            )
        else:
            residual, factor = self._got("residual", row, column), inverse
        if factor is None:
            return b.fadd(total, residual)
        return multiply_add(e, residual, factor, total, fused=self.fused)

    def _residual_scale(self, inverse: Value | None) -> Value:
        if "residual" not in self.kept:
            scale = self._quantization(RESIDUAL_SCALE)
            whole = scale if inverse is None else self.e.builder.fmul(scale, inverse)
            self.kept["residual"] = (whole,)
        return self.kept["residual"][0]

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

    @property
    def _linear(self) -> bool:
        """Whether levels follow from sums by one multiplication: then scale and bias do it."""
        return self.workload.output == "uint8" and self.workload.activation in CLIPPED

    def _quantization(self, place: int) -> Value:
        """One of the numbers of a requantization, on all lanes."""
        number = self.e.load(self.e.at(self.arguments["quantization"], 4 * place), F32)
        return splat(self.e, number, self.lanes)

    def _constants(self, column: int) -> tuple[Value, ...]:
        """Vectors of per-column floats, read once; these arrays are padded to whole panels."""
        names = ("scale", "bias") if self.workload.dtype == "int8" else ("bias",)
        if names == ("bias",) and not self.workload.bias:
            return ()
        if column not in self.kept:
            offset = 4 * self.lanes * column
            places = (self.e.at(self.arguments[name], offset) for name in names)
            kind = vector(F32, self.lanes)
            found = tuple(self.e.load(place, kind, align=4) for place in places)
            if self.levels is not None and self._linear:
                inverse, zero = self.levels.inverse, self.levels.zero
                bias = multiply_add(self.e, found[1], inverse, zero, fused=self.fused)
                found = (self.e.builder.fmul(found[0], inverse), bias)
            self.kept[column] = found
        return self.kept[column]

    def _mask(self, column: int, vectors: int = 1, lanes: int = 0) -> Any | None:
        """Which lanes from a vector of columns on are valid; None when all are."""
        valid = min(self.tile.columns, (column + vectors) * self.lanes) - column * self.lanes
        lanes = lanes or self.lanes
        if valid >= lanes:
            return None
        return ir.Constant(vector(I1, lanes), [lane < valid for lane in range(lanes)])

    def _got(self, name: str, row: int, column: int, element: Any = F32) -> Value:
        """Valid columns of one vector of `out` or `residual`; what is not valid is 0."""
        e, kind, mask = self.e, vector(element, self.lanes), self._mask(column)
        size, suffix = (1, "i8") if element is I8 else (4, "f32")
        pointer = self._place(name, row, column, size)
        if mask is None:
            return e.load(pointer, kind, align=size)
        nothing = ir.Constant(kind, [0] * self.lanes)
        arguments = [pointer, ir.Constant(I32, size), mask, nothing]
        return e.intrinsic(f"llvm.masked.load.v{self.lanes}{suffix}.p0", kind, arguments)

    def _put(self, value: Value, row: int, column: int, vectors: int = 1) -> None:
        e, lanes, size = self.e, value.type.count, self._size
        mask = self._mask(column, vectors, lanes)
        pointer = self._place("out", row, column, size)
        if mask is None:
            e.store(value, pointer, align=size)
            return
        if size == 1:
            self._put_bytes(value, pointer, mask)
            return
        name = f"llvm.masked.store.v{lanes}f32.p0"
        e.intrinsic(name, VOID, [value, pointer, ir.Constant(I32, size), mask])

    def _put_bytes(self, value: Value, pointer: Value, mask: Any) -> None:
        """Writes the valid bytes in powers of two.

        LLVM would make one `vpmovdb` of a masked store behind a truncation, and that instruction
        faults where the bytes that are masked out may not be touched.
        """
        start, valid = 0, sum(lane.constant for lane in mask.constant)
        while start < valid:
            width = 1 << ((valid - start).bit_length() - 1)
            lanes = ir.Constant(vector(I32, width), list(range(start, start + width)))
            part = self.e.builder.shuffle_vector(value, value, lanes)
            self.e.store(part, self.e.at(pointer, start))
            start += width

    def _place(self, name: str, row: int, column: int, size: int) -> Value:
        """Where a vector of columns of a row begins: numbers of any size lie as the result's do."""
        number = row * self.tile.out_row // self._size
        first = self.lanes * column
        if self.tile.out_block:
            number += first // BLOCK * self.tile.out_block // self._size + first % BLOCK
        else:
            number += first
        return self.e.at(self.arguments[name], number * size)

    @property
    def _size(self) -> int:
        """Bytes of one number of the result."""
        return 1 if self.workload.output == "uint8" else 4
