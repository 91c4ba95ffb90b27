"""Attention of many heads over float arrays, without the matrix of scores."""

from __future__ import annotations

import functools
import math
import struct

import numpy as np
from numpy.typing import NDArray

from adlik_kernels import configuration
from adlik_kernels.codegen.build import Loaded, load
from adlik_kernels.errors import InvalidOperand
from adlik_kernels.machine.pool import shared
from adlik_kernels.machine.target import Target
from adlik_kernels.operators.operands import address, check_rows, output_of
from adlik_kernels.templates.attention import WORDS, Attention, attention_module

WORTH_SHARING = 400_000
"""Operations above which a call is shared among threads."""

MOST_DEPTH = 256
"""Numbers of a head that the scratch on a thread's stack has room for."""

_pack_words = struct.Struct(f"5qf4x{WORDS - 6}q").pack


def attention(
    q: NDArray[np.float32],
    k: NDArray[np.float32],
    v: NDArray[np.float32],
    heads: int,
    mask: NDArray[np.float32] | None = None,
    *,
    scale: float | None = None,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Returns softmax(scale q kᵀ + mask) v for each head.

    q, k and v may be views, such as thirds of the columns of one product, as long as their last
    axis is contiguous. A query whose keys are all masked by -inf has no weights that add up to one:
    its result is NaN, as ONNX' operators say. Softmax on line after Milakov and Gimelshein, 2018,
    and Dao et al., 2022.

    Args:
        q: float32 [batch, tokens, heads * depth].
        k: float32 [batch, keys, heads * depth].
        v: float32 [batch, keys, heads * depth].
        heads: Heads that the last axis is cut into.
        mask: What is added to scores: float32 [batch, keys], [batch, tokens, keys] or
            [batch, heads, tokens, keys], the last axis contiguous; 0 and -inf to keep and to hide.
        scale: What scores are multiplied by; 1 / sqrt(depth) if not given.
        out: Where to write, float32 [batch, tokens, heads * depth], contiguous; it must not share
            memory with an input.

    Raises:
        InvalidOperand: An array does not fit; nothing was written.
    """
    q = check_rows("q", q, np.float32, (None, None, None))
    batch, tokens, columns = q.shape
    k = check_rows("k", k, np.float32, (batch, None, columns))
    keys = k.shape[1]
    v = check_rows("v", v, np.float32, (batch, keys, columns))
    depth = _depth(columns, heads)
    scale = 1.0 / math.sqrt(depth) if scale is None else float(scale)
    if not math.isfinite(scale):
        raise InvalidOperand(f"scale is {scale}.", cure="Give a number, or none for the usual one.")
    kind, strides = "", (0, 0, 0)
    if mask is not None:
        mask, kind, strides = _checked_mask(mask, (batch, heads, tokens, keys))
    inputs = (("q", q), ("k", k), ("v", v), ("mask", mask))
    out = output_of(out, np.float32, (batch, tokens, columns), inputs)
    code = attention_kernel(Attention(depth, kind), configuration.target()).address
    words = _pack_words(
        *(address(q), address(k), address(v), address(out)),
        *(0 if mask is None else address(mask), scale),
        *(batch, heads, tokens, keys),
        *(array.strides[1] for array in (q, k, v, out)),
        strides[2],
        *(array.strides[0] for array in (q, k, v, out)),
        *strides[:2],
    )
    pool = shared(configuration.threads())
    share = 4 * batch * tokens * keys * columns >= WORTH_SHARING
    pool.run(code, words, pool.chunks if share else 1)
    return out


@functools.cache
def attention_kernel(workload: Attention, target: Target) -> Loaded:
    """Returns an attention kernel, compiling it if no cache has it."""
    return load("attention", workload, lambda: attention_module(workload, target), target)


def _checked_mask(
    mask: NDArray[np.float32], sizes: tuple[int, int, int, int]
) -> tuple[NDArray[np.float32], str, tuple[int, int, int]]:
    """The mask, its kind, and the bytes between batches, heads and queries."""
    batch, _, tokens, keys = sizes
    axes = {2: (batch, keys), 3: (batch, tokens, keys)}
    mask = check_rows("mask", mask, np.float32, axes.get(getattr(mask, "ndim", 2), sizes))
    if mask.ndim == 2:
        return mask, "keys", (mask.strides[0], 0, 0)
    first, *middle, row, _ = mask.strides
    return mask, "scores", (first, middle[0] if middle else 0, row)


def _depth(columns: int, heads: int) -> int:
    """Numbers of a head."""
    if not isinstance(heads, int) or heads < 1 or columns % heads:
        raise InvalidOperand(
            f"{columns} columns cannot be cut into {heads!r} heads.",
            cure="Give a number of heads that divides the last axis of q.",
        )
    if columns // heads > MOST_DEPTH:
        raise InvalidOperand(
            f"A head has {columns // heads} numbers; kernels take at most {MOST_DEPTH}.",
            cure="Use more heads.",
        )
    return columns // heads
