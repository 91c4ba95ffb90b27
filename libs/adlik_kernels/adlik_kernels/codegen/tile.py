"""What a micro-kernel computes, how it is called, and the loops over the parts of its k."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from adlik_kernels.codegen.emit import I64, POINTER, VOID, Emitter, Value

ARGUMENTS = ("steps", "x", "w", "out", "bias", "residual", "scale", "quantization")
"""What a micro-kernel is given: a number of steps of k, and pointers."""


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


def tile_function(module: Any, tile: Tile) -> Any:
    """Declares a micro-kernel as a private function of a module and returns the function.

    Args:
        module: The module that gets the function.
        tile: What will be written.
    """
    pointers = len(ARGUMENTS) - 1 + (1 if tile.ahead else 0)
    kind = ir.FunctionType(VOID, [I64] + [POINTER] * pointers)
    function = ir.Function(module, kind, tile.name)
    function.linkage = "internal"
    function.attributes.add("nounwind")
    function.attributes.add("noinline")  # each tile gets a register allocation of its own
    return function


def arguments_of(e: Emitter, tile: Tile) -> dict[str, Value]:
    """Returns the arguments of a micro-kernel by their names in `ARGUMENTS`, and "ahead"."""
    names = (*ARGUMENTS, "ahead") if tile.ahead else ARGUMENTS
    return dict(zip(names, e.function.args, strict=True))


@contextmanager
def each_part(e: Emitter, tile: Tile, arguments: dict[str, Value]) -> Iterator[tuple[Value, Value]]:
    """Writes loops over the parts of k around the body.

    It gives the body where the part begins in x, and how many steps are before it in packed w.

    Args:
        e: Where to write.
        tile: Says which parts there are.
        arguments: Those of the micro-kernel.
    """
    x, number = arguments["x"], e.word(0)
    with ExitStack() as loops:
        for count, size in tile.parts:
            part = loops.enter_context(e.loop(0, count))
            x = e.at(x, e.mul(part, size))
            number = e.add(e.mul(number, count), part)
        yield x, e.mul(number, arguments["steps"])
