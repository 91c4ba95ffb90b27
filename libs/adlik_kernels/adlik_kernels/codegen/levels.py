"""The end of a requantized product: limits, the nearest levels, and levels packed into bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from adlik_kernels.codegen.emit import F32, I8, I16, I32, Emitter, Value, splat_constant, vector
from adlik_kernels.codegen.isa import multiply_add
from adlik_kernels.machine.target import Target

INVERSE, ZERO, RESIDUAL_SCALE, SUM_SCALE, AFTER = range(5)
"""Places of the numbers of a requantization; `operators.ends` tells what they are."""

CLIPPED = ("", "relu", "relu6")
"""Activations that the limits of the levels apply: they cost nothing."""

GROUP = 4
"""Vectors of levels that become one vector of bytes."""


def packs(target: Target) -> bool:
    """Returns whether a machine has the instructions of `packed`."""
    return target.lanes == 16 and "avx512bw" in target.features


@dataclass(frozen=True, slots=True)
class Levels:
    """How real numbers become levels: vectors of one value each.

    Attributes:
        inverse: Factor from real numbers to levels.
        zero: Level that stands for 0.
        low: Lowest level, which NaN becomes.
        high: Highest level.
    """

    inverse: Value
    zero: Value
    low: Value
    high: Value

    @classmethod
    def read(
        cls, e: Emitter, activation: str, number: Callable[[int], Value], *, fused: bool
    ) -> Levels:
        """Reads the numbers of a requantization and finds the limits.

        Args:
            e: Where to write.
            activation: The workload's; if it is one of `CLIPPED`, the limits apply it.
            number: Reads the number at a place, on all lanes.
            fused: Whether the CPU multiplies and adds in one instruction.
        """
        inverse, zero = number(INVERSE), number(ZERO)
        low, high, six = (splat_constant(F32, zero.type.count, n) for n in (0.0, 255.0, 6.0))
        if activation == "relu6":
            six = multiply_add(e, six, inverse, zero, fused=fused)
            high = e.builder.select(e.builder.fcmp_ordered("<", six, high), six, high)
        return cls(inverse, zero, zero if activation in {"relu", "relu6"} else low, high)

    def nearest(self, e: Emitter, level: Value) -> Value:
        """Returns the nearest whole levels, even ones of two, within the limits.

        The conversion rounds; in this order each limit is one instruction.
        """
        b, lanes = e.builder, level.type.count
        level = b.select(b.fcmp_ordered(">", level, self.low), level, self.low)
        level = b.select(b.fcmp_ordered("<", level, self.high), level, self.high)
        name = f"llvm.lrint.v{lanes}i32.v{lanes}f32"
        return e.intrinsic(name, vector(I32, lanes), [level])


def packed(e: Emitter, levels: list[Value]) -> Value:
    """Returns 2 to 4 vectors of 16 levels from 0 to 255 as 64 bytes, one vector behind the other.

    Half the instructions of a conversion of each vector: AVX-512 packs two vectors at a time within
    quarters, and one exchange puts the words in order. Bytes behind the last vector are waste.
    """
    full = levels * 2 if len(levels) == 2 else [*levels, levels[-1]][:GROUP]
    shorts, bytes_ = vector(I16, 32), vector(I8, 64)
    pairs = [
        e.intrinsic("llvm.x86.avx512.packssdw.512", shorts, full[first : first + 2])
        for first in (0, 2)
    ]
    mixed = e.intrinsic("llvm.x86.avx512.packuswb.512", bytes_, pairs)
    words = e.builder.bitcast(mixed, vector(I32, 16))
    order: Any = ir.Constant(words.type, [place % 4 * 4 + place // 4 for place in range(16)])
    words = e.builder.shuffle_vector(words, words, order)
    return e.builder.bitcast(words, bytes_)


def put_bytes(e: Emitter, value: Value, pointer: Value, valid: int) -> None:
    """Writes the first bytes of a vector, in powers of two.

    LLVM would make one `vpmovdb` of a masked store behind a truncation, and that instruction
    faults where the bytes that are masked out may not be touched.

    Args:
        e: Where to write.
        value: A vector of bytes.
        pointer: Where the first one goes.
        valid: How many are written.
    """
    start = 0
    while start < valid:
        width = 1 << ((valid - start).bit_length() - 1)
        lanes = ir.Constant(vector(I32, width), list(range(start, start + width)))
        e.store(e.builder.shuffle_vector(value, value, lanes), e.at(pointer, start))
        start += width
