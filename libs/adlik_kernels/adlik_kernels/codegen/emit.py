"""A thin hand on LLVM's builder, so that kernels read as loops and vectors and not as blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llvmlite import ir

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
F32 = ir.FloatType()
POINTER = ir.PointerType()
VOID = ir.VoidType()

Value = Any
"""An LLVM value; llvmlite carries no types."""

KERNEL_TYPE = ir.FunctionType(VOID, [I64, I64, POINTER])
"""The one signature of kernels: `void kernel(chunk, chunks, arguments)`; arguments are words."""


class Emitter:
    """Writes the body of one LLVM function.

    Integers are 64 bits wide, pointers are opaque and offsets are in bytes.
    """

    def __init__(self, function: Any) -> None:
        self.function = function
        self.module = function.module
        self.builder = ir.IRBuilder(function.append_basic_block("entry"))

    def word(self, value: int | Value) -> Value:
        """Returns a 64-bit integer constant; values that are LLVM's already pass through."""
        return ir.Constant(I64, value) if isinstance(value, int) else value

    def add(self, left: Value, right: int | Value) -> Value:
        """Returns left + right."""
        return self.builder.add(self.word(left), self.word(right))

    def sub(self, left: Value, right: int | Value) -> Value:
        """Returns left - right."""
        return self.builder.sub(self.word(left), self.word(right))

    def mul(self, left: Value, right: int | Value) -> Value:
        """Returns left * right."""
        return self.builder.mul(self.word(left), self.word(right))

    def div(self, left: Value, right: int | Value) -> Value:
        """Returns left / right of numbers that are not negative."""
        return self.builder.udiv(self.word(left), self.word(right))

    def rem(self, left: Value, right: int | Value) -> Value:
        """Returns left % right of numbers that are not negative."""
        return self.builder.urem(self.word(left), self.word(right))

    def least(self, left: Value, right: int | Value) -> Value:
        """Returns the smaller of two numbers."""
        right = self.word(right)
        return self.builder.select(self.less(left, right), left, right)

    def less(self, left: Value, right: int | Value) -> Value:
        """Returns whether left < right."""
        return self.builder.icmp_signed("<", self.word(left), self.word(right))

    def at(self, pointer: Value, offset: int | Value) -> Value:
        """Returns the pointer moved by an offset in bytes."""
        return self.builder.gep(pointer, [self.word(offset)], source_etype=I8)

    def load(self, pointer: Value, kind: Any, align: int = 1) -> Value:
        """Returns the value of a type at a pointer."""
        return self.builder.load(pointer, typ=kind, align=align)

    def store(self, value: Value, pointer: Value, align: int = 1) -> None:
        """Writes a value at a pointer."""
        self.builder.store(value, pointer, align=align)

    def argument(self, arguments: Value, index: int, *, pointer: bool = True) -> Value:
        """Returns one word of a kernel's argument block, as a pointer or as a number."""
        value = self.load(self.at(arguments, 8 * index), I64, align=8)
        return self.builder.inttoptr(value, POINTER) if pointer else value

    def intrinsic(self, name: str, result: Any, arguments: Sequence[Value]) -> Value:
        """Calls an LLVM intrinsic or a C function, declaring it on first use."""
        return self.builder.call(self._declared(name, result, arguments), arguments)

    def _declared(self, name: str, result: Any, arguments: Sequence[Value]) -> Any:
        found = self.module.globals.get(name)
        if found is None:
            kind = ir.FunctionType(result, [argument.type for argument in arguments])
            found = ir.Function(self.module, kind, name)
        return found

    def variable(self, kind: Any, value: Value) -> Any:
        """Returns a slot in the entry block that holds a value; LLVM makes it a register."""
        with self.builder.goto_entry_block():
            slot = self.builder.alloca(kind)
        self.builder.store(value, slot)
        return slot

    def space(self, size: int) -> Value:
        """Returns so many bytes of the stack, at the beginning of a line of cache."""
        with self.builder.goto_entry_block():
            slot = self.builder.alloca(ir.ArrayType(I8, size))
        slot.align = 64
        return slot

    def copy(self, target: Value, source: Value, size: int) -> None:
        """Copies bytes from one place to another that it does not overlap."""
        arguments = [target, source, self.word(size), ir.Constant(I1, 0)]
        self.intrinsic("llvm.memcpy.p0.p0.i64", VOID, arguments)

    @contextmanager
    def loop(self, start: int | Value, stop: int | Value, step: int | Value = 1) -> Iterator[Value]:
        """Writes `for i in range(start, stop, step)` around the body and gives it `i`."""
        builder, before = self.builder, self.builder.block
        head, body, done = (self.function.append_basic_block(n) for n in ("head", "body", "done"))
        builder.branch(head)
        builder.position_at_end(head)
        index = builder.phi(I64)
        index.add_incoming(self.word(start), before)
        builder.cbranch(self.less(index, stop), body, done)
        builder.position_at_end(body)
        yield index
        index.add_incoming(self.add(index, step), builder.block)
        builder.branch(head)
        builder.position_at_end(done)

    @contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        """Writes `if condition:` around the body."""
        with self.builder.if_then(condition):
            yield


def vector(element: Any, lanes: int) -> Any:
    """Returns the type of a vector."""
    return ir.VectorType(element, lanes)


def splat_constant(element: Any, lanes: int, value: float) -> Any:
    """Returns a vector constant whose lanes are all one value."""
    return ir.Constant(ir.VectorType(element, lanes), [value] * lanes)


def splat(e: Emitter, scalar: Value, lanes: int) -> Value:
    """Returns a vector whose lanes all hold a scalar."""
    kind = ir.VectorType(scalar.type, lanes)
    nothing = ir.Constant(kind, ir.Undefined)
    first = e.builder.insert_element(nothing, scalar, ir.Constant(I32, 0))
    zeros = ir.Constant(ir.VectorType(I32, lanes), [0] * lanes)
    return e.builder.shuffle_vector(first, nothing, zeros)


def kernel_function(module: Any, name: str) -> Any:
    """Declares a kernel of the one signature in a module."""
    function = ir.Function(module, KERNEL_TYPE, name)
    function.attributes.add("nounwind")
    return function
