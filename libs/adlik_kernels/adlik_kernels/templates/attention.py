"""The template of attention: softmax(q kᵀ + mask) v, head by head, without the matrix of scores.

Queries lie along the lanes of vectors. A block of queries is turned once; then keys and values are
read where they lie, number by number, and broadcast: nothing of them is packed, and a row's largest
score and sum need nothing from other lanes. Scores of a block of keys stay in the nearest cache;
sums are corrected when a larger score appears (Milakov and Gimelshein, 2018, "Online normalizer
calculation for softmax"; Dao et al., 2022, "FlashAttention").
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
    kernel_function,
    splat,
    splat_constant,
    vector,
)
from adlik_kernels.codegen.isa import multiply_add
from adlik_kernels.codegen.transpose import transposed
from adlik_kernels.codegen.vectormath import decay
from adlik_kernels.machine.target import Target
from adlik_kernels.schedules.conv import even_tiles
from adlik_kernels.templates.small import each_vector, load_lanes, store_lanes

Q, K, V, OUT, MASK, SCALE = range(6)
"""Places of addresses in the block of words; of the mask, 0 for none; the scale's float32 bits."""

BATCH, HEADS, TOKENS, KEYS = range(6, 10)
"""Places of the sizes."""

Q_ROW, K_ROW, V_ROW, OUT_ROW, MASK_ROW = range(10, 15)
"""Places of the bytes from one token to the next; of the mask, from one query to the next."""

Q_BATCH, K_BATCH, V_BATCH, OUT_BATCH, MASK_BATCH, MASK_HEAD = range(15, 21)
"""Places of the bytes from one element of the batch to the next; MASK_HEAD, of the heads."""

WORDS = 21
"""Words of the block."""

MASKS = ("", "keys", "scores")
"""No mask; one number a key for all queries; one number for each query and key."""

_SCORES = 192
"""Vectors of scores that are kept at once: 12 KiB, with room for the queries beside them."""

_DEEP = 64
"""Above this depth, fewer queries are taken at once, or they would leave the nearest cache."""


@dataclass(frozen=True, slots=True)
class Attention:
    """softmax(scale q kᵀ + mask) v for float arrays [batch, tokens, heads * depth].

    Attributes:
        depth: Numbers of one head.
        mask: One of `MASKS`.
    """

    depth: int
    mask: str = ""


@dataclass(frozen=True, slots=True)
class _Block:
    """How many queries are taken at once, and the tiles for them.

    Attributes:
        vectors: Vectors of queries.
        keys: Keys of a tile of scores.
        numbers: Numbers of a head in a tile of results, at most.
    """

    vectors: int
    keys: int
    numbers: int

    @property
    def kept(self) -> int:
        """Keys whose scores are kept at once: whole tiles."""
        return _SCORES // self.vectors


_WIDE = (_Block(1, 8, 16), _Block(2, 8, 12), _Block(3, 8, 8), _Block(4, 6, 6))
_NARROW = (_Block(1, 8, 8), _Block(2, 6, 6))
"""Blocks for 32 and for 16 registers."""


def attention_module(workload: Attention, target: Target) -> Any:
    """Returns the LLVM module of an attention; its one public function is `kernel`.

    Args:
        workload: What is computed.
        target: For which machine.
    """
    module = ir.Module("attention")
    kernel = kernel_function(module, "kernel")
    blocks = _WIDE if target.registers == 32 else _NARROW
    blocks = blocks[:2] if workload.depth > _DEEP else blocks
    written = [_BlockWriter(module, block, workload, target).write() for block in blocks]
    _write_kernel(Emitter(kernel), workload, written, target.lanes)
    return module


def _write_kernel(e: Emitter, workload: Attention, written: list[Any], lanes: int) -> None:
    """Shares pairs of batch and head, and their blocks of queries, among chunks."""
    chunk, chunks, words = e.function.args
    most = len(written) * lanes
    batch, heads, tokens = (e.argument(words, n, pointer=False) for n in (BATCH, HEADS, TOKENS))
    blocks = e.div(e.add(tokens, most - 1), most)
    total = e.mul(e.mul(batch, heads), blocks)
    first, last = e.mul(total, chunk), e.mul(total, e.add(chunk, 1))
    with e.loop(e.div(first, chunks), e.div(last, chunks)) as item:
        pair, query = e.div(item, blocks), e.mul(e.rem(item, blocks), most)
        place = (e.div(pair, heads), e.rem(pair, heads), query)
        valid = e.least(e.sub(tokens, query), most)
        head = e.mul(place[1], 4 * workload.depth)
        q, out = (
            e.at(_moved(e, words, base, ((part, place[0]), (row, query))), head)
            for base, part, row in ((Q, Q_BATCH, Q_ROW), (OUT, OUT_BATCH, OUT_ROW))
        )
        k, v = (
            e.at(_moved(e, words, base, ((part, place[0]),)), head)
            for base, part in ((K, K_BATCH), (V, V_BATCH))
        )
        steps = zip((MASK_BATCH, MASK_HEAD, MASK_ROW), place, strict=True)
        mask = _moved(e, words, MASK, tuple(steps)) if workload.mask else e.argument(words, MASK)
        vectors = e.div(e.add(valid, lanes - 1), lanes)
        for number, function in enumerate(written, 1):
            with e.when(e.builder.icmp_signed("==", vectors, e.word(number))):
                e.builder.call(function, [words, q, k, v, out, mask, valid])
    e.builder.ret_void()


def _moved(e: Emitter, words: Value, base: int, steps: tuple[tuple[int, Value], ...]) -> Value:
    """The address in one word, moved by counts of the strides in others."""
    pointer = e.argument(words, base)
    for stride, count in steps:
        pointer = e.at(pointer, e.mul(e.argument(words, stride, pointer=False), count))
    return pointer


class _BlockWriter:
    """Writes the functions of one block of queries."""

    def __init__(self, module: Any, block: _Block, workload: Attention, target: Target) -> None:
        self.module, self.block, self.workload, self.lanes = module, block, workload, target.lanes
        self.fused = "fma" in target.features
        self.kind = vector(F32, target.lanes)
        self.width = 4 * target.lanes
        self.line = self.width * block.vectors

    def write(self) -> Any:
        """Returns `void block(words, q, k, v, out, mask, valid queries)`."""
        score = self._score()
        blend = {size: self._blend(size) for size in set(self._tiles())}
        e = self._function("block", [POINTER] * 6 + [I64])
        words, q, k, v, out, mask, valid = e.function.args
        depth, kept, vectors = self.workload.depth, self.block.kept, self.block.vectors
        turned, sums = (self._room(e, depth * self.line) for _ in range(2))
        scores = self._room(e, kept * self.line)
        top, total, shrink = (self._room(e, self.line) for _ in range(3))
        lines = self._room(e, 8 * self.lanes * vectors)
        names = (KEYS, K_ROW, V_ROW, Q_ROW, OUT_ROW, MASK_ROW)
        keys, k_row, v_row, q_row, out_row, mask_row = (
            e.argument(words, name, pointer=False) for name in names
        )
        self._turn_queries(e, (q, q_row, valid), turned, e.load(e.at(words, 8 * SCALE), F32, 8))
        self._fill(e, sums, depth * vectors, 0.0)
        self._fill(e, total, vectors, 0.0)
        self._fill(e, top, vectors, float("-inf"))
        with e.loop(0, self.lanes * vectors) as query:
            self._mark_line(e, lines, query, e.mul(self._clamped(e, query, valid), mask_row))
        with e.loop(0, keys, kept) as start:
            count = e.least(e.sub(keys, start), kept)
            before = [e.load(at, self.kind, self.width) for at in self._across(e, top)]
            with e.loop(0, count, self.block.keys) as key:
                at = e.add(start, key)
                there = [e.at(k, e.mul(at, k_row)), k_row, e.sub(count, key)]
                seen = [e.at(mask, e.mul(at, 4)), lines]
                to = e.at(scores, e.mul(key, self.line))
                e.builder.call(score, [turned, *there, *seen, to, top])
            self._weigh(e, (scores, count), before, (top, total, shrink))
            values, place = e.at(v, e.mul(start, v_row)), 0
            for size in self._tiles():
                there = [e.at(values, 4 * place), v_row, count, scores, shrink]
                e.builder.call(blend[size], [*there, e.at(sums, place * self.line)])
                place += size
        self._turn_results(e, sums, total, (out, out_row, valid))
        e.builder.ret_void()
        return e.function

    def _score(self) -> Any:
        """Scores of some keys: `void(turned, k, bytes a row, valid keys, mask, lines, to, top)`.

        Behind the last valid key it is taken again: that changes no maximum, and such scores are
        never used.
        """
        count, vectors = self.block.keys, self.block.vectors
        e = self._function("score", [POINTER] * 2 + [I64] * 2 + [POINTER] * 4)
        turned, k, k_row, valid, mask, lines, to, top = e.function.args
        numbers = [self._clamped(e, e.word(key), valid) for key in range(count)]
        rows = [e.at(k, e.mul(number, k_row)) for number in numbers]
        slots = [
            [e.variable(self.kind, self._zero()) for _ in range(vectors)] for _ in range(count)
        ]
        for key, number in enumerate(numbers):
            starts = self._masks(e, e.at(mask, e.mul(number, 4)), lines)
            for slot, value in zip(slots[key], starts, strict=True):
                e.builder.store(value, slot)
        with self._unrolled(e, self.workload.depth, 4) as places:
            for place in places:
                queries = self._across(e, e.at(turned, e.mul(place, self.line)))
                loaded = [e.load(at, self.kind, self.width) for at in queries]
                for key in range(count):
                    number = e.load(e.at(rows[key], e.mul(place, 4)), F32, 4)
                    self._add(e, slots[key], splat(e, number, self.lanes), loaded)
        for number, at in enumerate(self._across(e, top)):
            largest = e.load(at, self.kind, self.width)
            for key in range(count):
                value = e.builder.load(slots[key][number])
                e.store(value, e.at(to, key * self.line + number * self.width), self.width)
                more = e.builder.fcmp_ordered(">", value, largest)
                largest = e.builder.select(more, value, largest)
            e.store(largest, at, self.width)
        e.builder.ret_void()
        return e.function

    def _masks(self, e: Emitter, mask: Value, lines: Value) -> list[Value]:
        """What the scores of one key begin with."""
        vectors = self.block.vectors
        if self.workload.mask == "keys":
            return [splat(e, e.load(mask, F32, 4), self.lanes)] * vectors
        if self.workload.mask == "":
            return [self._zero()] * vectors
        offsets, found = vector(I64, self.lanes), []
        name = f"llvm.masked.gather.v{self.lanes}f32.v{self.lanes}p0"
        start = splat(e, e.builder.ptrtoint(mask, I64), self.lanes)
        for number in range(vectors):
            apart = e.load(e.at(lines, 8 * self.lanes * number), offsets, 64)
            places = e.builder.inttoptr(e.builder.add(start, apart), vector(POINTER, self.lanes))
            every = splat_constant(I1, self.lanes, 1)
            found.append(
                e.intrinsic(name, self.kind, [places, ir.Constant(I32, 4), every, self._zero()])
            )
        return found

    def _weigh(
        self,
        e: Emitter,
        given: tuple[Value, Value],
        before: list[Value],
        state: tuple[Value, Value, Value],
    ) -> None:
        """Turns scores to weights, and finds how much the sums so far shrink."""
        (scores, count), (top, total, shrink) = given, state
        tops, totals = [], []
        places = (self._across(e, place) for place in (top, total, shrink))
        for old, at_top, at_total, at_shrink in zip(before, *places, strict=True):
            largest = e.load(at_top, self.kind, self.width)
            nothing = splat_constant(F32, self.lanes, float("-inf"))
            # Where every score so far is -inf, any finite number gives weights of 0.
            empty = e.builder.fcmp_ordered("==", largest, nothing)
            largest = e.builder.select(empty, self._zero(), largest)
            factor = decay(e, e.builder.fsub(old, largest), fused=self.fused)
            e.store(factor, at_shrink, self.width)
            so_far = e.builder.fmul(e.load(at_total, self.kind, self.width), factor)
            tops.append(largest)
            totals.append(e.variable(self.kind, self._zero()))
            e.builder.store(so_far, totals[-1])
        with e.loop(0, count) as key:
            line = self._across(e, e.at(scores, e.mul(key, self.line)))
            for at, largest, slot in zip(line, tops, totals, strict=True):
                score = e.load(at, self.kind, self.width)
                weight = decay(e, e.builder.fsub(score, largest), fused=self.fused)
                e.store(weight, at, self.width)
                e.builder.store(e.builder.fadd(e.builder.load(slot), weight), slot)
        for at, slot in zip(self._across(e, total), totals, strict=True):
            e.store(e.builder.load(slot), at, self.width)

    def _blend(self, numbers: int) -> Any:
        """Adds weighted values: `void(v, bytes a row, keys, weights, shrink, sums)`."""
        vectors = self.block.vectors
        e = self._function(f"blend{numbers}", [POINTER, I64, I64] + [POINTER] * 3)
        v, v_row, keys, weights, shrink, sums = e.function.args
        slots = [
            [e.variable(self.kind, self._zero()) for _ in range(vectors)] for _ in range(numbers)
        ]
        factors = [e.load(at, self.kind, self.width) for at in self._across(e, shrink)]
        for number, row in enumerate(slots):
            places = self._across(e, e.at(sums, number * self.line))
            for at, slot, factor in zip(places, row, factors, strict=True):
                so_far = e.load(at, self.kind, self.width)
                e.builder.store(e.builder.fmul(so_far, factor), slot)
        with e.loop(0, keys) as key:
            places = self._across(e, e.at(weights, e.mul(key, self.line)))
            loaded = [e.load(at, self.kind, self.width) for at in places]
            line = e.at(v, e.mul(key, v_row))
            for number, row in enumerate(slots):
                value = splat(e, e.load(e.at(line, 4 * number), F32, 4), self.lanes)
                self._add(e, row, value, loaded)
        for number, row in enumerate(slots):
            for at, slot in zip(
                self._across(e, e.at(sums, number * self.line)), row, strict=True
            ):
                e.store(e.builder.load(slot), at, self.width)
        e.builder.ret_void()
        return e.function

    def _turn_queries(
        self, e: Emitter, source: tuple[Value, Value, Value], turned: Value, scale: Value
    ) -> None:
        """Writes scaled queries as [depth, queries]."""
        factor = splat(e, scale, self.lanes)
        with e.loop(0, self.block.vectors) as number:
            rows = self._rows(e, source, number)

            def turn(offset: Value, valid: int) -> None:
                loaded = [load_lanes(e, e.at(row, offset), self.lanes, valid) for row in rows]
                to = e.at(turned, e.mul(e.div(offset, 4), self.line))
                for place, column in enumerate(transposed(e, loaded)[:valid]):
                    at = e.at(e.at(to, place * self.line), e.mul(number, self.width))
                    e.store(e.builder.fmul(column, factor), at, self.width)

            each_vector(e, self.workload.depth, self.lanes, turn)

    def _turn_results(
        self, e: Emitter, sums: Value, total: Value, result: tuple[Value, Value, Value]
    ) -> None:
        """Writes sums divided by the weights' total as [queries, depth]."""
        one = splat_constant(F32, self.lanes, 1.0)
        with e.loop(0, self.block.vectors) as number:
            across = e.mul(number, self.width)
            inverse = e.builder.fdiv(one, e.load(e.at(total, across), self.kind, self.width))
            rows = self._rows(e, result, number)

            def turn(offset: Value, valid: int) -> None:
                start = e.at(e.at(sums, e.mul(e.div(offset, 4), self.line)), across)
                places = [e.at(start, place * self.line) for place in range(valid)]
                loaded = [e.load(place, self.kind, self.width) for place in places]
                shares = [e.builder.fmul(column, inverse) for column in loaded]
                shares += [self._zero()] * (self.lanes - valid)
                for row, value in zip(rows, transposed(e, shares), strict=True):
                    store_lanes(e, value, e.at(row, offset), self.lanes, valid)

            each_vector(e, self.workload.depth, self.lanes, turn)

    def _rows(self, e: Emitter, place: tuple[Value, Value, Value], number: Value) -> list[Value]:
        """Where the rows of one vector of queries lie.

        Lanes behind the last valid query do that one again and write the same numbers to the same
        place, so that no row needs a branch.
        """
        base, stride, valid = place
        first = e.mul(number, self.lanes)
        numbers = [self._clamped(e, e.add(first, lane), valid) for lane in range(self.lanes)]
        return [e.at(base, e.mul(query, stride)) for query in numbers]

    def _clamped(self, e: Emitter, number: Value, count: Value) -> Value:
        return e.least(number, e.sub(count, 1))

    def _mark_line(self, e: Emitter, lines: Value, query: Value, offset: Value) -> None:
        """Notes how far from the mask's first line a query's own begins."""
        if self.workload.mask == "scores":
            e.store(offset, e.at(lines, e.mul(query, 8)), 8)

    def _tiles(self) -> list[int]:
        """Numbers of a head in each tile of results."""
        return even_tiles(self.workload.depth, self.block.numbers)

    def _add(self, e: Emitter, slots: list[Any], factor: Value, vectors: list[Value]) -> None:
        for slot, value in zip(slots, vectors, strict=True):
            total = multiply_add(e, value, factor, e.builder.load(slot), fused=self.fused)
            e.builder.store(total, slot)

    def _across(self, e: Emitter, line: Value) -> list[Value]:
        """Where the vectors of one line lie."""
        return [e.at(line, self.width * number) for number in range(self.block.vectors)]

    def _fill(self, e: Emitter, place: Value, vectors: int, value: float) -> None:
        with e.loop(0, vectors) as number:
            at = e.at(place, e.mul(number, self.width))
            e.store(splat_constant(F32, self.lanes, value), at, self.width)

    @contextmanager
    def _unrolled(self, e: Emitter, count: int, unroll: int) -> Iterator[list[Value]]:
        """Writes a loop over numbers whose body takes several at once."""
        unroll = next(size for size in (unroll, 3, 2, 1) if count % size == 0)
        with e.loop(0, count, unroll) as place:
            yield [e.add(place, ahead) for ahead in range(unroll)]

    def _zero(self) -> Any:
        return splat_constant(F32, self.lanes, 0.0)

    def _function(self, name: str, arguments: list[Any]) -> Emitter:
        kind = ir.FunctionType(VOID, arguments)
        function = ir.Function(self.module, kind, f"{name}_{self.block.vectors}")
        function.linkage = "internal"
        function.attributes.add("nounwind")
        function.attributes.add("noinline")  # each tile gets a register allocation of its own
        return Emitter(function)

    def _room(self, e: Emitter, size: int) -> Any:
        """Bytes on the stack, at a cache line."""
        with e.builder.goto_entry_block():
            room = e.builder.alloca(ir.ArrayType(I8, size))
        room.align, room.type = 64, POINTER  # llvmlite would insist on storing an array there
        return room
