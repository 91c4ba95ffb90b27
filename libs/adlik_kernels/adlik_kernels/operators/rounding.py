"""float32 to bfloat16, rounded to nearest even, in one pass over memory."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from adlik_kernels import configuration
from adlik_kernels.codegen.build import load
from adlik_kernels.codegen.emit import I16, I32, Emitter, Value, kernel_function, vector
from adlik_kernels.machine.pool import shared
from adlik_kernels.machine.target import Target
from adlik_kernels.operators.operands import address

WORTH_SHARING = 200_000
"""Numbers above which a call is shared among threads."""


def round_to_bf16(x: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Returns the bits of bfloat16 numbers; NaN stays NaN.

    Args:
        x: float32 of any shape, contiguous.
    """
    target, threads = configuration.target(), configuration.threads()
    out = np.empty(x.shape, np.uint16)
    code = load("rounding", "bf16", lambda: _module(target), target).address
    words = struct.pack("3q", address(x), address(out), x.size)
    shared(threads).run(code, words, threads if x.size >= WORTH_SHARING else 1)
    return out


def _module(target: Target) -> Any:
    module, lanes = ir.Module("rounding"), target.lanes
    e = Emitter(kernel_function(module, "kernel"))
    chunk, chunks, block = e.function.args
    source, result = e.argument(block, 0), e.argument(block, 1)
    count = e.argument(block, 2, pointer=False)
    whole = e.div(count, lanes)
    first = e.div(e.mul(whole, chunk), chunks)
    last = e.div(e.mul(whole, e.add(chunk, 1)), chunks)
    with e.loop(first, last) as number:
        bits = e.load(e.at(source, e.mul(number, 4 * lanes)), vector(I32, lanes), align=4)
        rounded = e.builder.trunc(_rounded(e, bits), vector(I16, lanes))
        e.store(rounded, e.at(result, e.mul(number, 2 * lanes)), align=2)
    is_first = e.builder.icmp_signed("==", chunk, e.word(0))
    with e.when(is_first), e.loop(e.mul(whole, lanes), count) as number:
        bits = e.load(e.at(source, e.mul(number, 4)), I32, align=4)
        e.store(e.builder.trunc(_rounded(e, bits), I16), e.at(result, e.mul(number, 2)), 2)
    e.builder.ret_void()
    return module


def _rounded(e: Emitter, bits: Value) -> Value:
    """The upper half of a float's bits, rounded; a NaN is cut off and made quiet instead."""
    b = e.builder

    def number(value: int) -> Any:
        kind = bits.type
        return ir.Constant(kind, [value] * kind.count if hasattr(kind, "count") else value)

    upper = b.lshr(bits, number(16))
    odd = b.and_(upper, number(1))
    even = b.lshr(b.add(b.add(bits, number(0x7FFF)), odd), number(16))
    size = b.and_(bits, number(0x7FFFFFFF))
    is_nan = b.icmp_unsigned(">", size, number(0x7F800000))
    return b.select(is_nan, b.or_(upper, number(0x40)), even)
