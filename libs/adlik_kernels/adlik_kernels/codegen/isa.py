"""The instructions of a dot product, per element type and CPU, and how LLVM spells them.

Everything is counted in 32-bit words: one float, two bfloat16 or four bytes lie along `k` in one
word of either operand, so one micro-kernel serves all element types.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from llvmlite import ir

from adlik_kernels.codegen.emit import (
    F32,
    I8,
    I16,
    I32,
    Emitter,
    Value,
    splat,
    splat_constant,
    vector,
)
from adlik_kernels.machine.target import Target

DTYPES = ("fp32", "bf16", "int8")
"""Element types of matrix products; "int8" is unsigned activations times signed weights."""

GROUP = {"fp32": 1, "bf16": 2, "int8": 4}
"""Elements along k in one 32-bit word."""


class Dot(Protocol):
    """How one word of an activation row meets one vector of weight words."""

    @property
    def fused(self) -> bool:
        """Whether the CPU multiplies and adds floats in one instruction."""

    @property
    def accumulator(self) -> Any:
        """LLVM type of one accumulator lane."""

    def spread(self, e: Emitter, word: Value) -> tuple[Value, ...]:
        """Prepares an activation word (i32): done once per row and step."""

    def open(self, e: Emitter, words: Value) -> tuple[Value, ...]:
        """Prepares a vector of weight words (i32 lanes): done once per vector and step."""

    def step(self, e: Emitter, total: Value, a: tuple[Value, ...], b: tuple[Value, ...]) -> Value:
        """Returns total + a · b, lane by lane."""


@dataclass(frozen=True, slots=True)
class MultiplyAdd:
    """fp32: one fused multiply-add a step, or multiply and add where the CPU has no FMA."""

    lanes: int
    fused: bool

    @property
    def accumulator(self) -> Any:
        """Float lanes."""
        return F32

    def spread(self, e: Emitter, word: Value) -> tuple[Value, ...]:
        """The float on all lanes."""
        return (splat(e, e.builder.bitcast(word, F32), self.lanes),)

    def open(self, e: Emitter, words: Value) -> tuple[Value, ...]:
        """The words as floats."""
        return (e.builder.bitcast(words, vector(F32, self.lanes)),)

    def step(self, e: Emitter, total: Value, a: tuple[Value, ...], b: tuple[Value, ...]) -> Value:
        """One multiply-add."""
        return multiply_add(e, a[0], b[0], total, fused=self.fused)


@dataclass(frozen=True, slots=True)
class WideningMultiplyAdd:
    """bf16 without its instructions: a shift makes each half a float; two multiply-adds a step."""

    lanes: int
    fused: bool

    @property
    def accumulator(self) -> Any:
        """Float lanes."""
        return F32

    def spread(self, e: Emitter, word: Value) -> tuple[Value, ...]:
        """The low and the high half as floats on all lanes."""
        return self.open(e, splat(e, word, self.lanes))

    def open(self, e: Emitter, words: Value) -> tuple[Value, ...]:
        """The low and the high halves as floats: a bfloat16 is the upper half of a float."""
        floats = vector(F32, self.lanes)
        low = e.builder.shl(words, splat_constant(I32, self.lanes, 16))
        high = e.builder.and_(words, splat_constant(I32, self.lanes, 0xFFFF0000))
        return e.builder.bitcast(low, floats), e.builder.bitcast(high, floats)

    def step(self, e: Emitter, total: Value, a: tuple[Value, ...], b: tuple[Value, ...]) -> Value:
        """Two multiply-adds."""
        total = multiply_add(e, a[0], b[0], total, fused=self.fused)
        return multiply_add(e, a[1], b[1], total, fused=self.fused)


@dataclass(frozen=True, slots=True)
class Bf16Dot:
    """bf16 with AVX512-BF16: `vdpbf16ps` adds two products a lane."""

    lanes: int = 16
    fused: bool = True

    @property
    def accumulator(self) -> Any:
        """Float lanes."""
        return F32

    def spread(self, e: Emitter, word: Value) -> tuple[Value, ...]:
        """The pair on all lanes."""
        return (e.builder.bitcast(splat(e, word, self.lanes), _bf16_pairs(self.lanes)),)

    def open(self, e: Emitter, words: Value) -> tuple[Value, ...]:
        """The words as pairs."""
        return (e.builder.bitcast(words, _bf16_pairs(self.lanes)),)

    def step(self, e: Emitter, total: Value, a: tuple[Value, ...], b: tuple[Value, ...]) -> Value:
        """One `vdpbf16ps`."""
        name = f"llvm.x86.avx512bf16.dpbf16ps.{32 * self.lanes}"
        return e.intrinsic(name, total.type, [total, a[0], b[0]])


@dataclass(frozen=True, slots=True)
class Vnni:
    """int8 with AVX512-VNNI: `vpdpbusd` adds four products a lane, without saturation."""

    lanes: int = 16
    fused: bool = True

    @property
    def accumulator(self) -> Any:
        """Integer lanes."""
        return I32

    def spread(self, e: Emitter, word: Value) -> tuple[Value, ...]:
        """The four unsigned bytes on all lanes."""
        return (e.builder.bitcast(splat(e, word, self.lanes), vector(I8, 4 * self.lanes)),)

    def open(self, e: Emitter, words: Value) -> tuple[Value, ...]:
        """The words as signed bytes."""
        return (e.builder.bitcast(words, vector(I8, 4 * self.lanes)),)

    def step(self, e: Emitter, total: Value, a: tuple[Value, ...], b: tuple[Value, ...]) -> Value:
        """One `vpdpbusd`."""
        name = f"llvm.x86.avx512.vpdpbusd.{32 * self.lanes}"
        return e.intrinsic(name, total.type, [total, a[0], b[0]])


@dataclass(frozen=True, slots=True)
class PairwiseMultiplyAdd:
    """int8 anywhere: even and odd bytes as 16-bit numbers, products added in pairs.

    `vpmaddubsw` would be shorter but saturates at 16 bits; two `vpmaddwd` are exact. LLVM finds
    `vpmaddwd` in the plain multiplication below.
    """

    lanes: int
    fused: bool

    @property
    def accumulator(self) -> Any:
        """Integer lanes."""
        return I32

    def spread(self, e: Emitter, word: Value) -> tuple[Value, ...]:
        """The even and the odd unsigned bytes as 16-bit numbers."""
        b, shorts = e.builder, vector(I16, 2 * self.lanes)
        mask = ir.Constant(I32, 0x00FF00FF)
        even = b.and_(word, mask)
        odd = b.and_(b.lshr(word, ir.Constant(I32, 8)), mask)
        return tuple(b.bitcast(splat(e, half, self.lanes), shorts) for half in (even, odd))

    def open(self, e: Emitter, words: Value) -> tuple[Value, ...]:
        """The even and the odd signed bytes as 16-bit numbers."""
        b = e.builder
        shorts = b.bitcast(words, vector(I16, 2 * self.lanes))
        eight = splat_constant(I16, 2 * self.lanes, 8)
        return b.ashr(b.shl(shorts, eight), eight), b.ashr(shorts, eight)

    def step(self, e: Emitter, total: Value, a: tuple[Value, ...], b: tuple[Value, ...]) -> Value:
        """Two exact 16-bit dot products of pairs."""
        for left, right in zip(a, b, strict=True):
            total = e.builder.add(total, self._pairs(e, left, right))
        return total

    def _pairs(self, e: Emitter, left: Value, right: Value) -> Value:
        wide = vector(I32, 2 * self.lanes)
        product = e.builder.mul(e.builder.sext(left, wide), e.builder.sext(right, wide))
        halves = [
            e.builder.shuffle_vector(product, product, _every_second(self.lanes, start))
            for start in (0, 1)
        ]
        return e.builder.add(*halves)


def multiply_add(e: Emitter, a: Value, b: Value, c: Value, *, fused: bool = True) -> Value:
    """Returns a * b + c on float vectors."""
    if not fused:
        return e.builder.fadd(e.builder.fmul(a, b), c)
    return e.intrinsic(f"llvm.fma.v{c.type.count}f32", c.type, [a, b, c])


def dot_of(dtype: str, target: Target) -> Dot:
    """Returns the best dot product of an element type that a machine has.

    Args:
        dtype: One of `DTYPES`.
        target: The machine, possibly masked.
    """
    lanes, fused = target.lanes, "fma" in target.features
    if dtype == "fp32":
        return MultiplyAdd(lanes, fused)
    if dtype == "bf16":
        native = "avx512bf16" in target.features
        return Bf16Dot(lanes) if native else WideningMultiplyAdd(lanes, fused)
    native = "avx512vnni" in target.features
    return Vnni(lanes) if native else PairwiseMultiplyAdd(lanes, fused)


def _bf16_pairs(lanes: int) -> Any:
    return vector(_Bfloat(), 2 * lanes)


class _Bfloat(ir.types.Type):  # type: ignore[misc] # llvmlite is untyped
    """LLVM's bfloat, which llvmlite has no name for."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Bfloat)

    def __hash__(self) -> int:
        return hash(_Bfloat)


def _every_second(lanes: int, start: int) -> Any:
    return ir.Constant(vector(I32, lanes), list(range(start, 2 * lanes, 2)))
