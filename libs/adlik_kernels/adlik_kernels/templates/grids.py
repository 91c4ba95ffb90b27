"""Pictures in memory and the loops over them that the small operators' templates share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from llvmlite import ir

from adlik_kernels.codegen.emit import F32, I1, I32, VOID, Emitter, Value, vector

IN, OUT, SECOND, BATCH, SCALES, ZEROS, RUN = range(7)
"""Places of the arguments in the small kernels' block of words.

Scales are float32 and zeros int32 arrays; only quantized operators read them. The run is the
numbers of a row, where no grid says so.
"""

LINE = 64
"""Bytes of a cache line."""


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

    def place(self, e: Emitter, picture: Value, row: Value, column: Value, size: int = 4) -> Value:
        """Bytes before a pixel of numbers of a size."""
        width = self.width + 2 * self.border
        line = e.add(e.mul(picture, self.height + 2 * self.border), e.add(row, self.border))
        pixel = e.add(e.mul(line, width), e.add(column, self.border))
        return e.mul(pixel, size * self.channels)


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


def widest(count: int, most: int) -> int:
    """Returns the largest power of two that is above neither of two numbers."""
    return 1 << (min(count, most).bit_length() - 1)


def cover(e: Emitter, size: int | Value, width: int, body: Callable[[Value], None]) -> None:
    """Writes a loop over pieces of a width; the last is moved back so that it ends with the rest.

    Numbers of the last two pieces may be computed twice, so the result must not be an operand. The
    body gets the first place of a piece.

    Args:
        e: Where to write.
        size: Places in all, at least as many as the width.
        width: Places of a piece.
        body: Writes one piece.
    """
    if isinstance(size, int) and size == width:
        body(e.word(0))
        return
    with e.loop(0, size, width) as start:
        even = isinstance(size, int) and size % width == 0
        body(start if even else e.least(start, e.sub(e.word(size), width)))
