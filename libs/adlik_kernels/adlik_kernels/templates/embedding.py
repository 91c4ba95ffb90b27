"""The template of embeddings: rows of a table looked up, or added up in bags.

The rows of a bag are added in registers; those of some lookups ahead are asked for meanwhile, for a
table is larger than any cache and its rows come in no order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from adlik_kernels.codegen.emit import (
    F32,
    I1,
    I32,
    I64,
    VOID,
    Emitter,
    Value,
    kernel_function,
    splat,
    splat_constant,
    vector,
)
from adlik_kernels.codegen.isa import multiply_add
from adlik_kernels.machine.target import Target
from adlik_kernels.templates.small import load_lanes, store_lanes

TABLE, INDICES, OUT, LOOKUPS, OFFSETS, WEIGHTS, BAGS = range(7)
"""Places of the arguments in the kernel's block of words; the last three of bags only."""

CHECKED, COUNT, TABLE_ROWS, CHECKED_OFFSETS, CHECKED_BAGS, VERDICT = range(6)
"""Places of the arguments of the kernel that checks indices; offsets may be 0, for none."""

SOUND, NO_ROW, NO_BAGS = range(3)
"""Verdicts: all is well; an index is no row of the table; offsets do not cut indices into bags."""

MODES = ("sum", "mean", "max")
"""What becomes of the rows of a bag."""

_IN_FLIGHT = 36
"""Cache lines that are asked for ahead: about what a core can wait for at once."""

_CACHE_LINE = 64


@dataclass(frozen=True, slots=True)
class Embedding:
    """table[indices], or the rows of each bag joined; indices must have been checked.

    Attributes:
        columns: Numbers of a row of the table.
        wide: Whether indices and offsets are int64; int32 else.
        mode: One of `MODES`, or "" for one row an index.
        weighted: Whether each row is multiplied by a weight before it is added.
    """

    columns: int
    wide: bool
    mode: str = ""
    weighted: bool = False


def embedding_module(workload: Embedding, target: Target) -> Any:
    """Returns the LLVM module of an embedding; its one public function is `kernel`.

    Args:
        workload: What is computed.
        target: For which machine.
    """
    module = ir.Module("embedding")
    e = Emitter(kernel_function(module, "kernel"))
    chunk, chunks, words = e.function.args
    writer = _Writer(e, workload, target)
    total = e.argument(words, BAGS if workload.mode else LOOKUPS, pointer=False)
    first, last = e.mul(total, chunk), e.mul(total, e.add(chunk, 1))
    with e.loop(e.div(first, chunks), e.div(last, chunks)) as number:
        if workload.mode:
            writer.join_bag(number, total)
        else:
            writer.copy_row(number)
    e.builder.ret_void()
    return module


def check_module(*, wide: bool, target: Target) -> Any:
    """Returns the LLVM module that checks indices and offsets; it writes its verdict, an int64.

    Only chunk 0 works: call it with one.

    Args:
        wide: Whether indices and offsets are int64; int32 else.
        target: For which machine.
    """
    module = ir.Module("checked")
    e = Emitter(kernel_function(module, "kernel"))
    words, kind = e.function.args[2], I64 if wide else I32
    indices, offsets, verdict = (e.argument(words, n) for n in (CHECKED, CHECKED_OFFSETS, VERDICT))
    count, rows, bags = (
        e.argument(words, n, pointer=False) for n in (COUNT, TABLE_ROWS, CHECKED_BAGS)
    )
    outside = _outside(e, (indices, count, rows), kind, target.lanes * 32 // kind.width)
    wrong = _out_of_order(e, (offsets, bags, count), kind)
    found = e.builder.select(outside, e.word(NO_ROW), e.word(SOUND))
    e.store(e.builder.select(wrong, e.word(NO_BAGS), found), verdict, 8)
    e.builder.ret_void()
    return module


def _outside(e: Emitter, given: tuple[Value, Value, Value], kind: Any, lanes: int) -> Value:
    """Whether an index is no row.

    A negative number without its sign is larger than any number of rows: one look is enough.
    """
    (indices, count, rows), b = given, e.builder
    size, several = kind.width // 8, vector(kind, lanes)
    limit = splat(e, b.trunc(rows, kind) if kind != I64 else rows, lanes)
    worst = e.variable(several, splat_constant(kind, lanes, 0))
    whole = e.mul(e.div(count, lanes), lanes)
    with e.loop(0, whole, lanes) as number:
        seen = e.load(e.at(indices, e.mul(number, size)), several, size)
        so_far = b.load(worst)
        b.store(b.select(b.icmp_unsigned(">", seen, so_far), seen, so_far), worst)
    with e.loop(whole, count) as number:
        seen = splat(e, e.load(e.at(indices, e.mul(number, size)), kind, size), lanes)
        so_far = b.load(worst)
        b.store(b.select(b.icmp_unsigned(">", seen, so_far), seen, so_far), worst)
    above = b.icmp_unsigned(">=", b.load(worst), limit)
    return e.intrinsic(f"llvm.vector.reduce.or.v{lanes}i1", I1, [above])


def _out_of_order(e: Emitter, given: tuple[Value, Value, Value], kind: Any) -> Value:
    """Whether offsets, if there are any, do not rise from 0 to the number of indices at most."""
    (offsets, bags, count), b, size = given, e.builder, kind.width // 8
    before, wrong = e.variable(I64, e.word(0)), e.variable(I1, ir.Constant(I1, 0))
    with e.loop(0, bags) as number:
        seen = e.load(e.at(offsets, e.mul(number, size)), kind, size)
        seen = seen if kind == I64 else b.sext(seen, I64)
        first = b.icmp_signed("==", number, e.word(0))
        below = b.or_(e.less(seen, b.load(before)), b.and_(first, e.less(0, seen)))
        b.store(b.or_(b.load(wrong), b.or_(below, e.less(count, seen))), wrong)
        b.store(seen, before)
    return b.load(wrong)


class _Writer:
    def __init__(self, e: Emitter, workload: Embedding, target: Target) -> None:
        self.e, self.workload, self.lanes = e, workload, target.lanes
        self.fused = "fma" in target.features
        self.kind, self.width = vector(F32, target.lanes), 4 * target.lanes
        self.row = 4 * workload.columns
        words = e.function.args[2]
        self.table, self.indices, self.out = (
            e.argument(words, place) for place in (TABLE, INDICES, OUT)
        )
        self.lookups = e.argument(words, LOOKUPS, pointer=False)
        if workload.mode:
            self.offsets, self.weights = (e.argument(words, n) for n in (OFFSETS, WEIGHTS))
        most = target.registers * 3 // 4 * target.lanes
        lines = -(-self.row // _CACHE_LINE)
        self.ahead = min(max(_IN_FLIGHT // lines, 2), 12)
        starts = range(0, workload.columns, most)
        self.panels = [(start, min(most, workload.columns - start)) for start in starts]

    def copy_row(self, number: Value) -> None:
        """Copies the row of one lookup."""
        e = self.e
        source, to = self._source(number), e.at(self.out, e.mul(number, self.row))
        self._fetch(number, 0, self.workload.columns)
        for panel in self.panels:
            for offset, valid in self._vectors(panel):
                value = load_lanes(e, e.at(source, offset), self.lanes, valid)
                store_lanes(e, value, e.at(to, offset), self.lanes, valid)

    def join_bag(self, bag: Value, bags: Value) -> None:
        """Joins the rows of one bag; an empty one becomes zeros."""
        e = self.e
        first = self._integer(self.offsets, bag)
        following = e.add(bag, 1)
        behind = self._integer(self.offsets, e.least(following, e.sub(bags, 1)))
        last = e.builder.select(e.less(following, bags), behind, self.lookups)
        to = e.at(self.out, e.mul(bag, self.row))
        for panel in self.panels:
            self._join_panel(panel, first, last, to)

    def _join_panel(self, panel: tuple[int, int], first: Value, last: Value, to: Value) -> None:
        """Joins some columns of the rows of a bag."""
        e, (start, columns) = self.e, panel
        # Among the rows of a maximum is the first; zeros are the maximum of none.
        begin = self._begin(panel, first, last)
        slots = [e.variable(self.kind, value) for value in begin]
        with e.loop(first, last) as number:
            self._fetch(number, start, columns)
            source = self._source(number)
            weight = self._weight(number)
            for slot, (offset, valid) in zip(slots, self._vectors(panel), strict=True):
                value = load_lanes(e, e.at(source, offset), self.lanes, valid)
                e.builder.store(self._join(e.builder.load(slot), value, weight), slot)
        share = self._share(first, last)
        for slot, (offset, valid) in zip(slots, self._vectors(panel), strict=True):
            value = e.builder.load(slot)
            value = e.builder.fmul(value, share) if share else value
            store_lanes(e, value, e.at(to, offset), self.lanes, valid)

    def _begin(self, panel: tuple[int, int], first: Value, last: Value) -> list[Value]:
        e, zero = self.e, splat_constant(F32, self.lanes, 0.0)
        if self.workload.mode != "max":
            return [zero for _ in self._vectors(panel)]
        lowest = splat_constant(F32, self.lanes, float("-inf"))
        start = e.builder.select(e.less(first, last), lowest, zero)
        return [start for _ in self._vectors(panel)]

    def _join(self, so_far: Value, value: Value, weight: Value) -> Value:
        e = self.e
        if self.workload.mode == "max":
            # A NaN stays once it is there, as in numpy.
            kept = e.builder.fcmp_unordered(">=", so_far, value)
            lost = e.builder.fcmp_unordered("uno", value, value)
            return e.builder.select(lost, value, e.builder.select(kept, so_far, value))
        if weight is not None:
            return multiply_add(e, value, weight, so_far, fused=self.fused)
        return e.builder.fadd(so_far, value)

    def _weight(self, number: Value) -> Value:
        """The weight of one lookup on all lanes, or None."""
        if not self.workload.weighted:
            return None
        at = self.e.at(self.weights, self.e.mul(number, 4))
        return splat(self.e, self.e.load(at, F32, 4), self.lanes)

    def _share(self, first: Value, last: Value) -> Value:
        """What one row counts for in a mean, on all lanes; None for other modes."""
        e = self.e
        if self.workload.mode != "mean":
            return None
        count = e.sub(last, first)
        count = e.builder.select(e.less(0, count), count, e.word(1))
        share = e.builder.fdiv(ir.Constant(F32, 1.0), e.builder.sitofp(count, F32))
        return splat(e, share, self.lanes)

    def _vectors(self, panel: tuple[int, int]) -> list[tuple[int, int]]:
        """Offset in bytes and valid lanes of each vector of a panel."""
        start, columns = panel
        places = range(0, columns, self.lanes)
        return [(4 * (start + place), min(self.lanes, columns - place)) for place in places]

    def _integer(self, base: Value, number: Value) -> Value:
        e, size = self.e, 8 if self.workload.wide else 4
        value = e.load(e.at(base, e.mul(number, size)), I64 if size == 8 else I32, size)
        return value if size == 8 else e.builder.sext(value, I64)

    def _source(self, number: Value) -> Value:
        """Where the row of one lookup begins."""
        return self.e.at(self.table, self.e.mul(self._integer(self.indices, number), self.row))

    def _fetch(self, number: Value, start: int, columns: int) -> None:
        """Asks for some columns of the row of a later lookup; the last one, again, at the end."""
        e = self.e
        later = e.least(e.add(number, self.ahead), e.sub(self.lookups, 1))
        source = self._source(later)
        read, near, data = (ir.Constant(I32, value) for value in (0, 3, 1))
        for line in range(4 * start, 4 * (start + columns), _CACHE_LINE):
            e.intrinsic("llvm.prefetch.p0", VOID, [e.at(source, line), read, near, data])
