"""The template of operators that go number by number: activation(x), x + y or x * y.

Rows and columns are arguments, so one kernel serves arrays of every shape. What is added or
multiplied may be smaller than x: its row is row / REPEAT % PERIOD, which says all that broadcasting
needs. A vector for all rows has the period 1; one vector for every picture of h * w pixels repeats
h * w times; embeddings of places have a period of so many tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from adlik_kernels.codegen.emit import (
    F32,
    I32,
    I64,
    VOID,
    Emitter,
    Value,
    kernel_function,
    splat,
    vector,
)
from adlik_kernels.codegen.vectormath import ACTIVATIONS

IN, OUT, SECOND, ROWS, COLUMNS, REPEAT, PERIOD = range(7)
"""Places of the arguments in the kernel's block of words; the last two only with a second."""

OPERATIONS = ("", "add", "multiply")
"""Nothing before the activation; x + second; x * second."""

SECONDS = ("vector", "number")
"""A row of the second operand is as long as one of x, or a single number."""

PIECE = 4096
"""Numbers of a row that one thread takes at once."""


@dataclass(frozen=True, slots=True)
class Elementwise:
    """activation(x operation second) on float arrays; the result may lie where x does.

    Attributes:
        operation: One of `OPERATIONS`.
        second: One of `SECONDS`.
        activation: One of `workload.ACTIVATION_NAMES`, or "".
    """

    operation: str = ""
    second: str = "vector"
    activation: str = ""


def elementwise_module(workload: Elementwise, lanes: int) -> Any:
    """Returns the LLVM module of an elementwise operator; its one public function is `kernel`.

    Args:
        workload: What is computed.
        lanes: Floats of a vector.
    """
    module = ir.Module("elementwise")
    e = Emitter(kernel_function(module, "kernel"))
    chunk, chunks, words = e.function.args
    rows, columns = (e.argument(words, n, pointer=False) for n in (ROWS, COLUMNS))
    pieces = e.div(e.add(columns, PIECE - 1), PIECE)
    total = e.mul(rows, pieces)
    first, last = e.mul(total, chunk), e.mul(total, e.add(chunk, 1))
    writer = _Writer(e, workload, lanes)
    with e.loop(e.div(first, chunks), e.div(last, chunks)) as item:
        row, start = e.div(item, pieces), e.mul(e.rem(item, pieces), PIECE)
        writer.write(row, start, e.least(e.sub(columns, start), PIECE), columns)
    e.builder.ret_void()
    return module


class _Writer:
    def __init__(self, e: Emitter, workload: Elementwise, lanes: int) -> None:
        self.e, self.workload, self.lanes = e, workload, lanes
        self.kind = vector(F32, lanes)
        words = e.function.args[2]
        self.x, self.out, self.second = (e.argument(words, n) for n in (IN, OUT, SECOND))
        self.repeat, self.period = (e.argument(words, n, pointer=False) for n in (REPEAT, PERIOD))

    def write(self, row: Value, start: Value, count: Value, columns: Value) -> None:
        """A piece of one row."""
        e = self.e
        begin = e.mul(e.add(e.mul(row, columns), start), 4)
        x, out = e.at(self.x, begin), e.at(self.out, begin)
        other = self._other(row, start, columns)
        whole = e.mul(e.div(count, self.lanes), self.lanes)
        with e.loop(0, whole, self.lanes) as number:
            at = e.mul(number, 4)
            value = e.load(e.at(x, at), self.kind, 4)
            second = e.load(e.at(other, at), self.kind, 4) if self._has("vector") else other
            e.store(self._computed(value, second), e.at(out, at), 4)
        with e.when(e.less(whole, count)):
            self._rest(e.mul(whole, 4), e.sub(count, whole), (x, other, out))

    def _other(self, row: Value, start: Value, columns: Value) -> Value:
        """Where the second operand's row begins, or its number on all lanes."""
        e = self.e
        if not self.workload.operation:
            return None
        index = e.rem(e.div(row, self.repeat), self.period)
        if self._has("vector"):
            return e.at(self.second, e.mul(e.add(e.mul(index, columns), start), 4))
        return splat(e, e.load(e.at(self.second, e.mul(index, 4)), F32, 4), self.lanes)

    def _rest(self, at: Value, count: Value, places: tuple[Value, Value, Value]) -> None:
        """What is left of a row, less than a vector."""
        e, (x, other, out) = self.e, places
        numbers = ir.Constant(vector(I64, self.lanes), list(range(self.lanes)))
        mask = e.builder.icmp_signed("<", numbers, splat(e, count, self.lanes))
        value = self._masked(e.at(x, at), mask)
        second = self._masked(e.at(other, at), mask) if self._has("vector") else other
        arguments = [self._computed(value, second), e.at(out, at), ir.Constant(I32, 4), mask]
        e.intrinsic(f"llvm.masked.store.v{self.lanes}f32.p0", VOID, arguments)

    def _masked(self, pointer: Value, mask: Value) -> Value:
        nothing = ir.Constant(self.kind, [0.0] * self.lanes)
        arguments = [pointer, ir.Constant(I32, 4), mask, nothing]
        name = f"llvm.masked.load.v{self.lanes}f32.p0"
        return self.e.intrinsic(name, self.kind, arguments)

    def _has(self, second: str) -> bool:
        return bool(self.workload.operation) and self.workload.second == second

    def _computed(self, value: Value, second: Value) -> Value:
        b = self.e.builder
        if self.workload.operation:
            join = b.fadd if self.workload.operation == "add" else b.fmul
            value = join(value, second)
        if self.workload.activation:
            value = ACTIVATIONS[self.workload.activation](self.e, value)
        return value
