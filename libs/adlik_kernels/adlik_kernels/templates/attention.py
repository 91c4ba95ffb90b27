"""The template of attention: softmax(q kᵀ + mask) v, head by head, without the matrix of scores.

Queries lie along the lanes of vectors. A block of queries is turned once; then keys and values are
read where they lie, number by number, and broadcast: nothing of them is packed, and a row's largest
score and sum need nothing from other lanes. Scores of a block of keys stay in the nearest cache;
sums are corrected when a larger score appears (Milakov and Gimelshein, 2018, "Online normalizer
calculation for softmax"; Dao et al., 2022, "FlashAttention").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from adlik_kernels.codegen.emit import (
    F32,
    I8,
    I32,
    I64,
    POINTER,
    VOID,
    Emitter,
    Value,
    kernel_function,
)
from adlik_kernels.machine.target import Target
from adlik_kernels.schedules.conv import even_tiles
from adlik_kernels.templates.attention_tiles import (
    Block,
    clamped,
    private_function,
    write_blend,
    write_score,
    write_turn_queries,
    write_turn_results,
    write_weigh,
)

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

_CACHE_LINE = 64
"""Bytes that memory is read by."""

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


_SHAPES = ((1, 8, 16), (2, 8, 12), (3, 8, 8), (4, 6, 6))
_NARROW_SHAPES = ((1, 8, 8), (2, 6, 6))
"""Vectors of queries, keys and numbers of tiles that fit 32 and 16 registers."""


def attention_module(workload: Attention, target: Target) -> Any:
    """Returns the LLVM module of an attention; its one public function is `kernel`.

    Args:
        workload: What is computed.
        target: For which machine.
    """
    module = ir.Module("attention")
    kernel = kernel_function(module, "kernel")
    shapes: tuple[tuple[int, int, int], ...] = _SHAPES if target.registers == 32 else _NARROW_SHAPES
    fused = "fma" in target.features
    blocks = [
        Block(*shape, workload.depth, workload.mask, target.lanes, fused)
        for shape in shapes[: 2 if workload.depth > _DEEP else 4]
    ]
    turns = write_turn_queries(module, blocks[0]), write_turn_results(module, blocks[0])
    written = [_BlockWriter(module, block, turns).write() for block in blocks]
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
    """Writes `void block(words, q, k, v, out, mask, valid queries)`."""

    def __init__(self, module: Any, block: Block, turns: tuple[Any, Any]) -> None:
        self.block = block
        self.turn_queries, self.turn_results = turns
        self.tiles = even_tiles(block.depth, block.numbers)
        self.score, self.weigh = write_score(module, block), write_weigh(module, block)
        self.blend = {size: write_blend(module, block, size) for size in set(self.tiles)}
        name = f"block_{block.vectors}"
        self.e = private_function(module, name, [POINTER] * 6 + [I64])
        self.queries, self.sums = (self._room(block.depth * block.line) for _ in range(2))
        self.scores = self._room(block.kept * block.line)
        self.before, self.top, self.total, self.shrink = (self._room(block.line) for _ in range(4))
        self.lines = self._room(8 * block.lanes * block.vectors)

    def write(self) -> Any:
        """Returns the function."""
        e, block = self.e, self.block
        words, q, k, v, out, mask, valid = e.function.args
        keys, q_row, out_row = (
            e.argument(words, name, pointer=False) for name in (KEYS, Q_ROW, OUT_ROW)
        )
        self._begin(words, valid)
        scale = e.load(e.at(words, 8 * SCALE), F32, 8)
        self._turn(self.turn_queries, (q, q_row, valid), self.queries, lambda _across: scale)
        with e.loop(0, keys, block.kept) as start:
            count = e.least(e.sub(keys, start), block.kept)
            block.store(e, block.load(e, self.top), self.before)
            self._score_keys(words, (k, v, mask), start, count)
            state = [self.before, self.top, self.total, self.shrink]
            e.builder.call(self.weigh, [self.scores, count, *state])
            self._blend_values(words, v, start, count)
        result = (out, out_row, valid)
        self._turn(self.turn_results, result, self.sums, lambda across: e.at(self.total, across))
        e.builder.ret_void()
        return e.function

    def _begin(self, words: Value, valid: Value) -> None:
        """No sums yet, and how far from the mask's first line each query's own begins."""
        e, block = self.e, self.block
        zeros = [block.filled(0.0)] * block.vectors
        block.store(e, zeros, self.total)
        block.store(e, [block.filled(float("-inf"))] * block.vectors, self.top)
        with e.loop(0, block.depth) as number:
            block.store(e, zeros, e.at(self.sums, e.mul(number, block.line)))
        if block.mask == "scores":
            mask_row = e.argument(words, MASK_ROW, pointer=False)
            with e.loop(0, block.lanes * block.vectors) as query:
                offset = e.mul(clamped(e, query, valid), mask_row)
                e.store(offset, e.at(self.lines, e.mul(query, 8)), 8)

    def _turn(
        self,
        function: Any,
        rows: tuple[Value, Value, Value],
        place: Value,
        last: Callable[[Value], Value],
    ) -> None:
        """Calls one of the turning functions for each vector of queries."""
        e, block = self.e, self.block
        base, stride, valid = rows
        with e.loop(0, block.vectors) as number:
            across = e.mul(number, block.width)
            first = e.mul(number, block.lanes)
            line = e.word(block.line)
            e.builder.call(
                function, [base, stride, first, valid, e.at(place, across), line, last(across)]
            )

    def _score_keys(
        self, words: Value, places: tuple[Value, Value, Value], start: Value, count: Value
    ) -> None:
        """The scores of some keys."""
        e, block, (k, v, mask) = self.e, self.block, places
        k_row, v_row = (e.argument(words, name, pointer=False) for name in (K_ROW, V_ROW))
        with e.loop(0, count, block.keys) as key:
            at = e.add(start, key)
            there = [e.at(k, e.mul(at, k_row)), k_row, e.sub(count, key)]
            self._fetch(e.at(k, e.mul(e.add(at, block.keys), k_row)), k_row)
            self._fetch(e.at(v, e.mul(at, v_row)), v_row)
            seen = [e.at(mask, e.mul(at, 4)), self.lines]
            to = e.at(self.scores, e.mul(key, block.line))
            e.builder.call(self.score, [self.queries, *there, *seen, to, self.top])

    def _blend_values(self, words: Value, v: Value, start: Value, count: Value) -> None:
        """The weighted values of the same keys."""
        e, place = self.e, 0
        v_row = e.argument(words, V_ROW, pointer=False)
        values = e.at(v, e.mul(start, v_row))
        for size in self.tiles:
            there = [e.at(values, 4 * place), v_row, count, self.scores, self.shrink]
            sums = e.at(self.sums, place * self.block.line)
            e.builder.call(self.blend[size], [*there, sums])
            place += size

    def _fetch(self, rows: Value, stride: Value) -> None:
        """Asks for as many rows of keys or values as a tile takes.

        Rows of a head lie apart, where no processor expects them. Addresses behind the end do no
        harm: they are never read.
        """
        e = self.e
        read, near, data = (ir.Constant(I32, value) for value in (0, 3, 1))
        for row in range(self.block.keys):
            start = e.at(rows, e.mul(stride, row))
            for line in range(0, 4 * self.block.depth, _CACHE_LINE):
                e.intrinsic("llvm.prefetch.p0", VOID, [e.at(start, line), read, near, data])

    def _room(self, size: int) -> Any:
        """Bytes on the stack, at a cache line."""
        room = self.e.builder.alloca(ir.ArrayType(I8, size))
        room.align, room.type = _CACHE_LINE, POINTER  # llvmlite would insist on storing an array
        return room
