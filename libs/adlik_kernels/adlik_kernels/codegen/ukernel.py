"""The micro-kernel: a tile of the result that stays in registers while k runs, and its fused end.

One micro-kernel multiplies `rows` rows of x with `vectors` vectors of packed w. Goto and van de
Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008), is where the shape of this comes
from.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from adlik_kernels.codegen.emit import I32, VOID, Emitter, Value, vector
from adlik_kernels.codegen.finish import LINE, TileEnd
from adlik_kernels.codegen.isa import Dot
from adlik_kernels.codegen.tile import Tile, arguments_of, each_part, tile_function
from adlik_kernels.workload import Fused

FIRST, SECOND = 3, 2
"""LLVM's numbers of the caches that a line is fetched into."""


def write_tile(
    module: Any, tile: Tile, workload: Fused, dot: Dot, lanes: int, *, packs: bool = False
) -> Any:
    """Writes a micro-kernel as a private function of a module and returns the function.

    Args:
        module: The module that gets the function.
        tile: What to write.
        workload: The product it is part of, for its fused end.
        dot: The instructions to use.
        lanes: 32-bit lanes of one vector.
        packs: Whether the machine has the instructions of `levels.packed`.
    """
    function = tile_function(module, tile)
    e = Emitter(function)
    end = TileEnd(e, tile, workload, dot, lanes, packs=packs)
    _TileWriter(e, tile, dot, lanes, end).write()
    return function


class _TileWriter:
    def __init__(self, e: Emitter, tile: Tile, dot: Dot, lanes: int, end: TileEnd) -> None:
        self.e, self.tile, self.dot, self.lanes, self.end = e, tile, dot, lanes, end
        self.arguments = arguments_of(e, tile)

    def write(self) -> None:
        totals = self._begin()
        for residual in self.end.expected():  # while k runs it comes from memory
            self._fetch(residual)
        with each_part(self.e, self.tile, self.arguments) as (x, before):
            self._run(totals, x, before)
        self.end.write(lambda row, column: self.e.builder.load(totals[row][column]))
        self.e.builder.ret_void()

    def _begin(self) -> list[list[Any]]:
        kind = vector(self.dot.accumulator, self.lanes)
        zero = ir.Constant(kind, [0] * self.lanes)
        return [
            [
                self.e.variable(kind, zero if self.tile.starts else self.end.held(row, column))
                for column in range(self.tile.vectors)
            ]
            for row in range(self.tile.rows)
        ]

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

    def _fetch(self, pointer: Value, cache: int = FIRST) -> None:
        numbers = (ir.Constant(I32, value) for value in (0, cache, 1))
        self.e.intrinsic("llvm.prefetch.p0", VOID, [pointer, *numbers])
