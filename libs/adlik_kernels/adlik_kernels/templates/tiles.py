"""Small transpositions in registers, the middle of every change of layout.

A tile is some pixels by some channels. On the one side each channel is a run of pixels ("apart"),
on the other each pixel is a run of channels ("beside"). Within each 128-bit block of the vectors,
the tile is turned by interleaving halves (a perfect shuffle, log2 times), so one instruction turns
as many blocks as a vector has, at every instruction level.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from adlik_kernels.codegen.emit import I32, Emitter, Value, vector

BLOCK = 16
"""Bytes within which shuffles cost one instruction at any level."""

INTERLEAVED = 3
"""Channels up to which whole vectors are interleaved instead of tiles turned."""


def turn_to_beside(
    e: Emitter,
    rows: list[Value],
    pixels: int,
    store: Callable[[int, int, Value], None],
) -> None:
    """Writes the turning of channels' runs of pixels into pixels' runs of channels.

    Args:
        e: Where to write.
        rows: For each channel, a vector of pixels; a power of two of either.
        pixels: Pixels of the tile.
        store: Gets a pixel's number, the first channel and a vector of channels.
    """
    block = BLOCK // _bytes(rows[0])
    groups = [
        _shuffled(e, [_widened(e, row, block) for row in rows[first : first + block]])
        for first in range(0, len(rows), block)
    ]
    banks = groups[0][0].type.count // block
    if len(groups) % banks == 0 and banks > 1:
        for first in range(0, len(groups), banks):
            for place, vectors in enumerate(zip(*groups[first : first + banks], strict=True)):
                for bank, value in enumerate(_blocks_turned(e, list(vectors), block)):
                    store(bank * block + place, first * block, value)
        return
    channels = min(len(rows), block)
    for pixel in range(pixels):
        bank, place = divmod(pixel, block)
        number, start = divmod(place * channels, block)
        lanes = [bank * block + start + n for n in range(channels)]
        for first, turned in enumerate(groups):
            value = _picked(e, turned[number], turned[number], lanes)
            store(pixel, first * block, value)


def turn_to_apart(
    e: Emitter,
    load: Callable[[int, int, int], Value],
    tile: tuple[int, int],
    size: int,
    store: Callable[[int, Value], None],
) -> None:
    """Writes the turning of pixels' runs of channels into channels' runs of pixels.

    Args:
        e: Where to write.
        load: Gets a pixel's number, the first channel and how many, and returns their vector.
        tile: Its pixels and channels, both powers of two.
        size: Bytes of a number.
        store: Gets a channel's number and a vector of pixels.
    """
    (pixels, channels), block = tile, BLOCK // size
    for first in range(0, channels, block):
        count = min(block, channels - first)
        banks = max(pixels // block, 1)
        vectors = []
        for place in range(block):
            parts = [
                _widened(e, load(min(bank * block + place, pixels - 1), first, count), block)
                for bank in range(banks)
            ]
            vectors.append(_joined(e, parts))
        for channel, row in enumerate(_shuffled(e, vectors)[:count]):
            store(first + channel, _picked(e, row, row, range(pixels)))


def interleave(e: Emitter, rows: list[Value]) -> list[Value]:
    """Returns vectors of which the first lanes are the first lanes of all rows, and so on.

    Args:
        e: Where to write.
        rows: Up to `INTERLEAVED` vectors.
    """
    lanes, count = rows[0].type.count, len(rows)
    made = []
    for number in range(count):
        places = [divmod(number * lanes + lane, count) for lane in range(lanes)]
        made.append(_gathered(e, rows, [(row, pixel) for pixel, row in places]))
    return made


def separate(e: Emitter, rows: list[Value]) -> list[Value]:
    """Returns what `interleave` made vectors of.

    Args:
        e: Where to write.
        rows: Up to `INTERLEAVED` vectors.
    """
    lanes, count = rows[0].type.count, len(rows)
    return [
        _gathered(e, rows, [divmod(lane * count + number, lanes) for lane in range(lanes)])
        for number in range(count)
    ]


def _gathered(e: Emitter, rows: list[Value], places: list[tuple[int, int]]) -> Value:
    """A vector of lanes given by row and lane: one shuffle for each row after the first."""
    lanes, made = len(places), rows[0]
    chosen = [lane if row == 0 else 0 for row, lane in places]
    for number, row in enumerate(rows[1:], 1):
        now = [
            lanes + lane if where == number else (chosen[n] if number == 1 else n)
            for n, (where, lane) in enumerate(places)
        ]
        made = _picked(e, made, row, now)
    return made


def _shuffled(e: Emitter, rows: list[Value]) -> list[Value]:
    """Rows after as many perfect shuffles as turn them, within 128-bit blocks."""
    lanes, count = rows[0].type.count, len(rows)
    block = BLOCK // _bytes(rows[0])
    low, high = (
        [
            bank + half + n // 2 + (lanes if n % 2 else 0)
            for bank in range(0, lanes, block)
            for n in range(block)
        ]
        for half in (0, block // 2)
    )
    for _ in range(count.bit_length() - 1):
        pairs = zip(rows[: count // 2], rows[count // 2 :], strict=True)
        rows = [_picked(e, a, b, half) for a, b in pairs for half in (low, high)]
    return rows


def _blocks_turned(e: Emitter, rows: list[Value], block: int) -> list[Value]:
    """Rows of as many blocks as there are rows, transposed block by block."""
    lanes = range(2 * rows[0].type.count)
    even, odd = ([n for n in lanes if n // block % 2 == half] for half in (0, 1))
    for _ in range(len(rows).bit_length() - 1):
        pairs = list(zip(rows[::2], rows[1::2], strict=True))
        rows = [_picked(e, a, b, half) for half in (even, odd) for a, b in pairs]
    return rows


def _joined(e: Emitter, parts: list[Value]) -> Value:
    """One vector of several of one width; as many as a power of two."""
    while len(parts) > 1:
        lanes = range(2 * parts[0].type.count)
        pairs = zip(parts[::2], parts[1::2], strict=True)
        parts = [_picked(e, a, b, lanes) for a, b in pairs]
    return parts[0]


def _widened(e: Emitter, row: Value, lanes: int) -> Value:
    """A vector with more lanes, whose values are not defined, or the vector itself."""
    count = row.type.count
    if count >= lanes:
        return row
    nothing = ir.Constant(row.type, ir.Undefined)
    return _picked(e, row, nothing, [min(n, count) for n in range(lanes)])


def _picked(e: Emitter, left: Value, right: Value, lanes: Any) -> Value:
    chosen = list(lanes)
    if chosen == list(range(left.type.count)):
        return left
    return e.builder.shuffle_vector(left, right, ir.Constant(vector(I32, len(chosen)), chosen))


def _bytes(row: Value) -> int:
    element = row.type.element
    return int(element.width) // 8 if isinstance(element, ir.IntType) else 4
