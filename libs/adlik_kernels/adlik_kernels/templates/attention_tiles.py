"""The tiles of attention: what is computed in registers for a block of queries.

Queries lie along the lanes of vectors, so keys and values are read where they lie, number by
number, and broadcast. Each tile is a function of its own, for LLVM gives registers to one function
at a time.
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
    I32,
    I64,
    POINTER,
    VOID,
    Emitter,
    Value,
    splat,
    splat_constant,
    vector,
)
from adlik_kernels.codegen.isa import multiply_add
from adlik_kernels.codegen.transpose import transposed
from adlik_kernels.codegen.vectormath import decay
from adlik_kernels.templates.small import each_vector, load_lanes, store_lanes

_KEPT = 192
"""Vectors of scores that are kept at once: 12 KiB of them leave room for queries beside."""


@dataclass(frozen=True, slots=True)
class Block:
    """How many queries are taken at once, and the tiles for them.

    Attributes:
        vectors: Vectors of queries.
        keys: Keys of a tile of scores.
        numbers: Numbers of a head in a tile of results, at most.
        depth: Numbers of a head.
        mask: "", "keys" or "scores".
        lanes: Floats of a vector.
        fused: Whether the CPU multiplies and adds in one instruction.
    """

    vectors: int
    keys: int
    numbers: int
    depth: int
    mask: str
    lanes: int
    fused: bool

    @property
    def kept(self) -> int:
        """Keys whose scores are kept at once: whole tiles."""
        return _KEPT // self.vectors

    @property
    def kind(self) -> Any:
        """LLVM type of a vector."""
        return vector(F32, self.lanes)

    @property
    def width(self) -> int:
        """Bytes of a vector."""
        return 4 * self.lanes

    @property
    def line(self) -> int:
        """Bytes of one number, or one score, of every query."""
        return self.width * self.vectors

    def across(self, e: Emitter, line: Value) -> list[Value]:
        """Where the vectors of a line lie."""
        return [e.at(line, self.width * number) for number in range(self.vectors)]

    def load(self, e: Emitter, line: Value) -> list[Value]:
        """The vectors of a line."""
        return [e.load(at, self.kind, self.width) for at in self.across(e, line)]

    def store(self, e: Emitter, values: list[Value], line: Value) -> None:
        """Writes the vectors of a line."""
        for value, at in zip(values, self.across(e, line), strict=True):
            e.store(value, at, self.width)

    def filled(self, value: float) -> Any:
        """A vector of one number."""
        return splat_constant(F32, self.lanes, value)


def write_score(module: Any, block: Block) -> Any:
    """Writes `void score(queries, k, bytes a row, valid keys, mask, lines, to, top)`.

    It computes the scores of a tile's keys and raises the largest so far. Behind the last valid key
    that one is taken again: it changes no maximum, and such scores are never used.

    Args:
        module: The module that gets the function.
        block: Sizes.
    """
    e = private_function(
        module, f"score_{block.vectors}", [POINTER] * 2 + [I64] * 2 + [POINTER] * 4
    )
    queries, k, k_row, valid, mask, lines, to, top = e.function.args
    numbers = [clamped(e, e.word(key), valid) for key in range(block.keys)]
    rows = [e.at(k, e.mul(number, k_row)) for number in numbers]
    slots = [
        [_slot(e, start) for start in _masks(e, block, e.at(mask, e.mul(number, 4)), lines)]
        for number in numbers
    ]
    with _unrolled(e, block.depth, 2) as places:
        for place in places:
            loaded = block.load(e, e.at(queries, e.mul(place, block.line)))
            for row, sums in zip(rows, slots, strict=True):
                _add(e, block, sums, e.at(row, e.mul(place, 4)), loaded)
    largest = block.load(e, top)
    for key, sums in enumerate(slots):
        scores = [e.builder.load(slot) for slot in sums]
        block.store(e, scores, e.at(to, key * block.line))
        for number, (score, known) in enumerate(zip(scores, largest, strict=True)):
            more = e.builder.fcmp_ordered(">", score, known)
            largest[number] = e.builder.select(more, score, known)
    block.store(e, largest, top)
    e.builder.ret_void()
    return e.function


def _masks(e: Emitter, block: Block, mask: Value, lines: Value) -> list[Value]:
    """What the scores of one key begin with."""
    if block.mask == "keys":
        return [splat(e, e.load(mask, F32, 4), block.lanes)] * block.vectors
    if block.mask == "":
        return [block.filled(0.0)] * block.vectors
    lanes, found = block.lanes, []
    name = f"llvm.masked.gather.v{lanes}f32.v{lanes}p0"
    start = splat(e, e.builder.ptrtoint(mask, I64), lanes)
    for number in range(block.vectors):
        apart = e.load(e.at(lines, 8 * lanes * number), vector(I64, lanes), block.width)
        places = e.builder.inttoptr(e.builder.add(start, apart), vector(POINTER, lanes))
        every = splat_constant(I1, lanes, 1)
        arguments = [places, ir.Constant(I32, 4), every, block.filled(0.0)]
        found.append(e.intrinsic(name, block.kind, arguments))
    return found


def write_weigh(module: Any, block: Block) -> Any:
    """Writes `void weigh(scores, keys, old top, new top, total, shrink)`.

    It turns scores to weights, adds them to the total and says how much earlier sums shrink.

    Args:
        module: The module that gets the function.
        block: Sizes.
    """
    e = private_function(module, f"weigh_{block.vectors}", [POINTER, I64] + [POINTER] * 4)
    scores, keys, before, top, total, shrink = e.function.args
    nothing, tops = block.filled(float("-inf")), []
    for largest in block.load(e, top):
        # Where every score so far is -inf, any finite number gives weights of 0.
        empty = e.builder.fcmp_ordered("==", largest, nothing)
        tops.append(e.builder.select(empty, block.filled(0.0), largest))
    factors = _weights(e, block, block.load(e, before), tops)
    block.store(e, factors, shrink)
    slots = []
    for so_far, factor in zip(block.load(e, total), factors, strict=True):
        slots.append(_slot(e, e.builder.fmul(so_far, factor)))
    with e.loop(0, keys) as key:
        line = e.at(scores, e.mul(key, block.line))
        weights = _weights(e, block, block.load(e, line), tops)
        block.store(e, weights, line)
        for slot, weight in zip(slots, weights, strict=True):
            e.builder.store(e.builder.fadd(e.builder.load(slot), weight), slot)
    block.store(e, [e.builder.load(slot) for slot in slots], total)
    e.builder.ret_void()
    return e.function


def _weights(e: Emitter, block: Block, scores: list[Value], tops: list[Value]) -> list[Value]:
    pairs = zip(scores, tops, strict=True)
    return [decay(e, e.builder.fsub(score, top), fused=block.fused) for score, top in pairs]


def write_blend(module: Any, block: Block, numbers: int) -> Any:
    """Writes `void blend(v, bytes a row, keys, weights, shrink, sums)`.

    It shrinks the sums of some numbers of a head and adds weighted values to them.

    Args:
        module: The module that gets the function.
        block: Sizes.
        numbers: Numbers of the head.
    """
    name = f"blend{numbers}_{block.vectors}"
    e = private_function(module, name, [POINTER, I64, I64] + [POINTER] * 3)
    v, v_row, keys, weights, shrink, sums = e.function.args
    lines = [e.at(sums, number * block.line) for number in range(numbers)]
    factors = block.load(e, shrink)
    slots = []
    for line in lines:
        pairs = zip(block.load(e, line), factors, strict=True)
        slots.append([_slot(e, e.builder.fmul(so_far, factor)) for so_far, factor in pairs])
    with e.loop(0, keys) as key:
        loaded = block.load(e, e.at(weights, e.mul(key, block.line)))
        row = e.at(v, e.mul(key, v_row))
        for number, total in enumerate(slots):
            _add(e, block, total, e.at(row, 4 * number), loaded)
    for line, total in zip(lines, slots, strict=True):
        block.store(e, [e.builder.load(slot) for slot in total], line)
    e.builder.ret_void()
    return e.function


def write_turn_queries(module: Any, block: Block) -> Any:
    """Writes `void turn_queries(q, bytes a row, first, valid, to, bytes a number, scale)`.

    It writes one vector of scaled queries as [depth, queries].

    Args:
        module: The module that gets the function.
        block: Sizes; any number of vectors.
    """
    e = private_function(module, "turn_queries", [POINTER, I64, I64, I64, POINTER, I64, F32])
    q, q_row, first, valid, to, line, scale = e.function.args
    factor = splat(e, scale, block.lanes)
    rows = _rows(e, block, (q, q_row), first, valid)

    def turn(offset: Value, count: int) -> None:
        loaded = [load_lanes(e, e.at(row, offset), block.lanes, count) for row in rows]
        start = e.div(offset, 4)
        for number, column in enumerate(transposed(e, loaded)[:count]):
            at = e.at(to, e.mul(e.add(start, number), line))
            e.store(e.builder.fmul(column, factor), at, block.width)

    each_vector(e, block.depth, block.lanes, turn)
    e.builder.ret_void()
    return e.function


def write_turn_results(module: Any, block: Block) -> Any:
    """Writes `void turn_results(out, bytes a row, first, valid, sums, bytes a number, total)`.

    It writes one vector of sums, divided by the total of the weights, as [queries, depth].

    Args:
        module: The module that gets the function.
        block: Sizes; any number of vectors.
    """
    e = private_function(module, "turn_results", [POINTER, I64, I64, I64, POINTER, I64, POINTER])
    out, out_row, first, valid, sums, line, total = e.function.args
    inverse = e.builder.fdiv(block.filled(1.0), e.load(total, block.kind, block.width))
    rows = _rows(e, block, (out, out_row), first, valid)

    def turn(offset: Value, count: int) -> None:
        start, shares = e.div(offset, 4), []
        for number in range(count):
            at = e.at(sums, e.mul(e.add(start, number), line))
            shares.append(e.builder.fmul(e.load(at, block.kind, block.width), inverse))
        shares += [block.filled(0.0)] * (block.lanes - count)
        for row, value in zip(rows, transposed(e, shares), strict=True):
            store_lanes(e, value, e.at(row, offset), block.lanes, count)

    each_vector(e, block.depth, block.lanes, turn)
    e.builder.ret_void()
    return e.function


def _rows(
    e: Emitter, block: Block, place: tuple[Value, Value], first: Value, valid: Value
) -> list[Value]:
    """Where the rows of one vector of queries lie.

    Lanes behind the last valid query do that one again and write the same numbers to the same
    place, so that no row needs a branch.
    """
    base, stride = place
    numbers = [clamped(e, e.add(first, lane), valid) for lane in range(block.lanes)]
    return [e.at(base, e.mul(number, stride)) for number in numbers]


def clamped(e: Emitter, number: Value, count: Value) -> Value:
    """Returns a number, or the last one below a count."""
    return e.least(number, e.sub(count, 1))


def private_function(module: Any, name: str, arguments: list[Any]) -> Emitter:
    """Begins a function that keeps registers of its own."""
    function = ir.Function(module, ir.FunctionType(VOID, arguments), name)
    function.linkage = "internal"
    function.attributes.add("nounwind")
    function.attributes.add("noinline")
    return Emitter(function)


def _slot(e: Emitter, value: Value) -> Any:
    return e.variable(value.type, value)


def _add(e: Emitter, block: Block, slots: list[Any], number: Value, vectors: list[Value]) -> None:
    """Adds vectors times one number in memory to sums."""
    factor = splat(e, e.load(number, F32, 4), block.lanes)
    for slot, value in zip(slots, vectors, strict=True):
        total = multiply_add(e, value, factor, e.builder.load(slot), fused=block.fused)
        e.builder.store(total, slot)


@contextmanager
def _unrolled(e: Emitter, count: int, most: int) -> Iterator[list[Value]]:
    """Writes a loop over numbers whose body takes several at once."""
    unroll = max(size for size in range(1, most + 1) if count % size == 0)
    with e.loop(0, count, unroll) as place:
        yield [e.add(place, ahead) for ahead in range(unroll)]
