"""The fused end of a micro-kernel: from sums in registers to the result in memory.

Scale, bias, residual, activation and requantization, for micro-kernels of every kind: they hand
their sums over one vector at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from adlik_kernels.codegen.emit import (
    F32,
    I1,
    I8,
    I32,
    VOID,
    Emitter,
    Value,
    splat,
    splat_constant,
    vector,
)
from adlik_kernels.codegen.ending import activated
from adlik_kernels.codegen.isa import Dot, multiply_add
from adlik_kernels.codegen.levels import (
    AFTER,
    CLIPPED,
    GROUP,
    RESIDUAL_SCALE,
    SUM_SCALE,
    Levels,
    packed,
    put_bytes,
)
from adlik_kernels.codegen.tile import Tile, arguments_of
from adlik_kernels.workload import BLOCK, Fused

LINE = 64
"""Bytes of a line of cache."""


class TileEnd:
    """Writes how a tile's sums become its result.

    Attributes:
        arguments: Where it reads and writes: the micro-kernel's arguments, by name. Whoever ends
            the rows of a tile in a loop moves them from row to row.
    """

    def __init__(
        self,
        e: Emitter,
        tile: Tile,
        workload: Fused,
        dot: Dot,
        lanes: int,
        *,
        packs: bool = False,
    ) -> None:
        self.e, self.tile, self.workload, self.lanes = e, tile, workload, lanes
        self.packs = packs
        self.fused = dot.fused
        self.levels: Levels | None = None
        self.kept: dict[object, tuple[Value, ...]] = {}
        self.arguments = arguments_of(e, tile)

    def expected(self) -> list[Value]:
        """Returns a place in each line of cache of the residual that this end will add."""
        if not (self.tile.ends and self.workload.residual):
            return []
        size = 1 if self.workload.residual_dtype == "uint8" else 4
        together = BLOCK if self.tile.out_block else LINE // size
        columns = range(0, self.tile.vectors, max(1, together // self.lanes))
        rows = range(self.tile.rows)
        return [self._place("residual", row, column, size) for row in rows for column in columns]

    def held(self, row: int, column: int) -> Value:
        """Returns the sums that the result holds so far, one vector of them."""
        return self._got("out", row, column)

    def read(self) -> None:
        """Reads all constants here and now, so that what follows may stand in a loop."""
        if not self.tile.ends:
            return
        self._read_levels()
        for column in range(self.tile.vectors):
            self._constants(column)
        if self.workload.residual and self.workload.residual_dtype == "uint8":
            self._residual_scale()
        if self.workload.rounded:
            self._behind_rounding()

    def write(self, total: Callable[[int, int], Value]) -> None:
        """Ends the sums, if the tile ends them, and writes them to the result.

        Columns come one by one, or rows of bytes that pack well.

        Args:
            total: Gives the sums of a row and a vector of columns.
        """
        if self.tile.ends and self.workload.output == "uint8":
            self._write_levels(total)
            return
        # The constants of one column are used one behind the other.
        for column in range(self.tile.vectors):
            for row in range(self.tile.rows):
                value = total(row, column)
                self._put(self._end(value, row, column) if self.tile.ends else value, row, column)

    def _write_levels(self, total: Callable[[int, int], Value]) -> None:
        e, levels = self.e, self._read_levels()
        together = GROUP if self.packs and not self.tile.out_block else 1
        for first in range(0, self.tile.vectors, together):
            columns = range(first, min(first + together, self.tile.vectors))
            for row in range(self.tile.rows):
                reals = [self._end(total(row, column), row, column) for column in columns]
                nearest = [levels.nearest(e, real) for real in reals]
                if len(nearest) > 1:
                    self._put(packed(e, nearest), row, first, len(nearest))
                else:
                    self._put(e.builder.trunc(nearest[0], vector(I8, self.lanes)), row, first)

    def _read_levels(self) -> Any:
        """The numbers of the requantization, read once; None where there is none."""
        if self.levels is None and self.workload.output == "uint8":
            read, activation = self._quantization, self.workload.activation
            self.levels = Levels.read(self.e, activation, read, fused=self.fused)
        return self.levels

    def _end(self, total: Value, row: int, column: int) -> Value:
        """Scale, bias, residual and activation, in this order; levels if they are wanted."""
        e, b, workload, constants = self.e, self.e.builder, self.workload, self._constants(column)
        if workload.dtype == "int8":
            total = b.sitofp(total, vector(F32, self.lanes))
            total = multiply_add(e, total, *constants, fused=self.fused)
        elif workload.bias:
            total = b.fadd(total, constants[0])
        if workload.rounded:
            total = self._rounded(total)
        if workload.residual:
            total = self._added(total, row, column)
        if workload.activation and not self._linear:
            total = activated(e, workload.activation, total)
        if self.levels is None or self._linear:
            return total
        return multiply_add(e, total, self.levels.inverse, self.levels.zero, fused=self.fused)

    def _rounded(self, total: Value) -> Value:
        """The nearest of a sum's own levels, as a real number or as a level of the result."""
        limits = (splat_constant(F32, self.lanes, number) for number in (0.0, 0.0, 0.0, 255.0))
        level = self.e.builder.sitofp(Levels(*limits).nearest(self.e, total), total.type)
        return multiply_add(self.e, level, *self._behind_rounding(), fused=self.fused)

    def _behind_rounding(self) -> tuple[Value, ...]:
        """What the levels of rounded sums are multiplied with, and what is added."""
        if "rounded" not in self.kept:
            scale, after = (self._quantization(place) for place in (SUM_SCALE, AFTER))
            if self._linear:
                levels, b = self._read_levels(), self.e.builder
                scale = b.fmul(scale, levels.inverse)
                after = multiply_add(self.e, after, levels.inverse, levels.zero, fused=self.fused)
            self.kept["rounded"] = (scale, after)
        return self.kept["rounded"]

    def _added(self, total: Value, row: int, column: int) -> Value:
        """The sum with the residual, in real numbers or, if all is linear, in levels."""
        e, b = self.e, self.e.builder
        if self.workload.residual_dtype == "uint8":
            found = b.zext(self._got("residual", row, column, I8), vector(I32, self.lanes))
            residual, factor = b.sitofp(found, vector(F32, self.lanes)), self._residual_scale()
        else:
            residual, factor = self._got("residual", row, column), self._folded
        if factor is None:
            return b.fadd(total, residual)
        return multiply_add(e, residual, factor, total, fused=self.fused)

    def _residual_scale(self) -> Value:
        if "residual" not in self.kept:
            scale, inverse = self._quantization(RESIDUAL_SCALE), self._folded
            whole = scale if inverse is None else self.e.builder.fmul(scale, inverse)
            self.kept["residual"] = (whole,)
        return self.kept["residual"][0]

    @property
    def _linear(self) -> bool:
        """Whether levels follow from sums by one multiplication: then scale and bias do it."""
        return self.workload.output == "uint8" and self.workload.activation in CLIPPED

    @property
    def _folded(self) -> Value | None:
        """The factor from real numbers to levels where scales hold it already."""
        return self.levels.inverse if self.levels is not None and self._linear else None

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
            if self.levels is not None and self._linear and not self.workload.rounded:
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
            put_bytes(e, value, pointer, sum(lane.constant for lane in mask.constant))
            return
        name = f"llvm.masked.store.v{lanes}f32.p0"
        e.intrinsic(name, VOID, [value, pointer, ir.Constant(I32, size), mask])

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
