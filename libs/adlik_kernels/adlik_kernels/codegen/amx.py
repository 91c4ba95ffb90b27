"""The micro-kernel on AMX: a block of the result whose sums stay in tiles while k runs.

It is called like `ukernel`'s and has the same fused end: sums leave the tiles through a buffer on
the stack, and vectors of them are ended and written from there. Packed weights need no layout of
their own: one 32-bit word a column and step of k is what tiles of w hold.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from llvmlite import ir

from adlik_kernels.codegen.emit import I8, I64, Emitter, Value, vector
from adlik_kernels.codegen.finish import TileEnd
from adlik_kernels.codegen.isa import Dot
from adlik_kernels.codegen.tile import Tile, arguments_of, each_part, tile_function
from adlik_kernels.codegen.tile_emulation import define_emulation
from adlik_kernels.codegen.tiles import (
    PRODUCTS,
    STEP,
    TILE_BYTES,
    TileLayout,
    configure,
    instruct,
    number,
)
from adlik_kernels.workload import Fused

LANES = 16


@dataclass(frozen=True, slots=True)
class AmxTiles:
    """How a kernel's micro-kernels use AMX; made by `micro_kernels`.

    Attributes:
        workload: The product they are part of.
        dot: The same product on vectors, for the type of its sums and for its fused end.
        layout: What the tiles hold for whole blocks; blocks with fewer rows use a part of it.
        emulated: Whether `tile_emulation` stands in for the instructions.
        packs: Whether the machine has the instructions of `levels.packed`.
    """

    workload: Fused
    dot: Dot
    layout: TileLayout
    emulated: bool
    packs: bool

    @property
    def overlap(self) -> bool:
        """Fewer rows need another configuration."""
        return True

    def begin(self, e: Emitter) -> None:
        """Configures the tiles of the thread that runs this chunk."""
        if self.emulated:
            define_emulation(e.module)
        configure(e, self.layout, self.layout.height, emulated=self.emulated)

    def end(self, e: Emitter) -> None:
        """Gives the tiles back, so that the system need not keep them for this thread."""
        instruct(e, "tilerelease", [], emulated=self.emulated)

    def write(self, module: Any, tile: Tile) -> Any:
        """Writes a micro-kernel as a private function of a module and returns the function."""
        function = tile_function(module, tile)
        _AmxWriter(Emitter(function), tile, self).write()
        return function


class _AmxWriter:
    def __init__(self, e: Emitter, tile: Tile, tiles: AmxTiles) -> None:
        self.e, self.tile, self.tiles, self.layout = e, tile, tiles, tiles.layout
        self.block = TileLayout(tile.rows, tile.vectors)
        row = replace(tile, rows=1)
        self.end = TileEnd(e, row, tiles.workload, tiles.dot, LANES, packs=tiles.packs)
        self.arguments = arguments_of(e, tile)
        self.row_bytes = TILE_BYTES * tile.vectors
        size = ir.Constant(I64, self.row_bytes * tile.rows)
        self.buffer = e.builder.alloca(I8, size)
        self.buffer.align = TILE_BYTES

    def write(self) -> None:
        same = self.block.height == self.layout.height
        if not same:
            self._configure(self.block.height)
        for part, vector_number in self._places():
            self._instruct("tilezero", self.layout.sums(part, vector_number))
        with each_part(self.e, self.tile, self.arguments) as (x, before):
            self._run(x, self.e.at(self.arguments["w"], self.e.mul(before, self.tile.w_step)))
        for part, vector_number in self._places():
            offset = self.row_bytes * self.block.starts[part] + TILE_BYTES * vector_number
            place = self.e.at(self.buffer, offset)
            sums = self.layout.sums(part, vector_number)
            self._instruct("tilestored64", sums, place, self.e.word(self.row_bytes))
        if not same:
            self._configure(self.layout.height)
        self.end.read()
        with self.e.loop(0, self.tile.rows) as row:
            self._end(row)
        self.e.builder.ret_void()

    def _places(self) -> list[tuple[int, int]]:
        """Parts and vectors in an order in which neighbours share one of the two."""
        across = range(self.tile.vectors)
        return [
            (part, column)
            for part in range(self.block.parts)
            for column in (across if part % 2 == 0 else reversed(across))
        ]

    def _run(self, x: Value, w: Value) -> None:
        """All steps of one segment: whole tiles, then what is left of k."""
        e, steps = self.e, self.arguments["steps"]
        tail = self.layout.tail if self.tile.ends else 0
        whole = e.sub(steps, tail)
        with e.loop(0, whole, STEP) as k:
            self._step(x, w, k, tail=False)
        if tail:
            self._step(x, w, whole, tail=True)

    def _step(self, x: Value, w: Value, k: Value, *, tail: bool) -> None:
        """One tile of x by one tile of w for each tile of sums; each is loaded when it is new."""
        e, tile, layout = self.e, self.tile, self.layout
        x, w = e.at(x, e.mul(k, tile.x_step)), e.at(w, e.mul(k, tile.w_step))
        held: dict[int, tuple[str, int]] = {}

        def load(register: int, content: tuple[str, int], place: Value, stride: int) -> None:
            if held.get(register) != content:
                self._instruct("tileloadd64", register, place, e.word(stride))
                held[register] = content

        for part, column in self._places():
            of_x = layout.tail_of_x if tail else layout.of_x(part)
            of_w = layout.tail_of_w if tail else layout.of_w(column)
            rows_before = self.block.starts[part] * tile.x_row
            load(of_x, ("x", part), e.at(x, rows_before), tile.x_row)
            load(of_w, ("w", column), e.at(w, TILE_BYTES * column), tile.w_step)
            product = PRODUCTS[self.tiles.workload.dtype]
            self._instruct(product, layout.sums(part, column), of_x, of_w)

    def _end(self, row: Value) -> None:
        """Ends one row of sums: the micro-kernel's own end, for a tile of this row alone."""
        e, end, kind = self.e, self.end, vector(self.tiles.dot.accumulator, LANES)
        for name, step in (("out", self.tile.out_row), ("residual", self._residual_row())):
            end.arguments[name] = e.at(self.arguments[name], e.mul(row, step))
        sums = e.at(self.buffer, e.mul(row, self.row_bytes))

        def total(_row: int, column: int) -> Value:
            value = e.load(e.at(sums, TILE_BYTES * column), kind, align=TILE_BYTES)
            return value if self.tile.starts else e.builder.fadd(end.held(0, column), value)

        end.write(total)

    def _residual_row(self) -> int:
        """Bytes from one row of the residual to the next: it has the result's columns."""
        workload = self.tiles.workload
        columns = self.tile.out_row // (1 if workload.output == "uint8" else 4)
        return columns * (1 if workload.residual_dtype == "uint8" else 4)

    def _configure(self, height: int) -> None:
        configure(self.e, self.layout, height, emulated=self.tiles.emulated)

    def _instruct(self, name: str, *arguments: Any) -> None:
        values = [number(n) if isinstance(n, int) else n for n in arguments]
        instruct(self.e, name, values, emulated=self.tiles.emulated)
