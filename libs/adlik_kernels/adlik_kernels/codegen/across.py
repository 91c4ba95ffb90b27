"""What needs more than one lane or vector: folding lanes, and long rows in groups of vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from adlik_kernels.codegen.emit import F32, I32, Emitter, Value, vector

GROUP = 4
"""Vectors that are taken at once: as many sums hide an addition's latency."""


def fold_lanes(e: Emitter, x: Value, join: Callable[[Value, Value], Value]) -> Value:
    """Returns one number made of all lanes of a vector: half joins half until one is left.

    LLVM's own reduction of a sum goes lane by lane, to keep an order that nobody asked for.

    Args:
        e: Where to write.
        x: A vector whose lanes are a power of two.
        join: Writes what becomes of two vectors, such as their sum.
    """
    lanes = x.type.count
    while lanes > 1:
        lanes //= 2
        nothing = ir.Constant(x.type, ir.Undefined)
        halves = [
            e.builder.shuffle_vector(
                x, nothing, ir.Constant(vector(I32, lanes), [start + n for n in range(lanes)])
            )
            for start in (0, lanes)
        ]
        x = join(*halves)
    return e.builder.extract_element(x, ir.Constant(I32, 0))


def each_group(
    e: Emitter, count: int, lanes: int, body: Callable[[Value, list[tuple[int, int]]], None]
) -> None:
    """Writes a loop over a row's numbers by groups of vectors.

    Args:
        e: Where to write.
        count: Numbers of the row.
        lanes: Floats of a vector.
        body: Gets the group's offset in bytes and, for each vector, its offset within the group and
            its valid lanes.
    """
    size = GROUP * lanes
    whole = count // size
    if whole:
        with e.loop(0, whole) as number:
            full = [(4 * lanes * n, lanes) for n in range(GROUP)]
            body(e.mul(number, 4 * size), full)
    rest = count - whole * size
    if rest:
        starts = range(0, rest, lanes)
        body(e.word(4 * size * whole), [(4 * n, min(lanes, rest - n)) for n in starts])


def group_of(e: Emitter, lanes: int, value: float) -> list[Any]:
    """Returns variables that hold one number from here on, one for each vector of a group."""
    kind = vector(F32, lanes)
    return [e.variable(kind, ir.Constant(kind, [value] * lanes)) for _ in range(GROUP)]


def folded(e: Emitter, slots: list[Any], join: Callable[[Value, Value], Value]) -> Value:
    """Returns one number made of all lanes of a group's variables."""
    values = [e.builder.load(slot) for slot in slots]
    while len(values) > 1:
        values = [join(*values[n : n + 2]) for n in range(0, len(values), 2)]
    return fold_lanes(e, values[0], join)
