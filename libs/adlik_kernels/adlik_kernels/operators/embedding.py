"""Rows of a table looked up by numbers, one by one or joined in bags."""

from __future__ import annotations

import functools
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adlik_kernels import configuration
from adlik_kernels.codegen.build import Loaded, load
from adlik_kernels.errors import InvalidOperand
from adlik_kernels.machine.pool import shared
from adlik_kernels.machine.target import Target
from adlik_kernels.operators.operands import address, check, output_of
from adlik_kernels.templates.embedding import (
    MODES,
    NO_BAGS,
    NO_ROW,
    Embedding,
    check_module,
    embedding_module,
)

WORTH_SHARING = 100_000
"""Numbers above which a call is shared among threads."""

_pack_words = struct.Struct("7q").pack
_pack_check = struct.Struct("6q").pack


def embedding(
    table: NDArray[np.float32],
    indices: NDArray[Any],
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Returns table[indices]: one row of the table for each index.

    Args:
        table: float32 [rows, columns], contiguous.
        indices: int64 or int32 of any shape, contiguous, each from 0 to rows - 1.
        out: Where to write, float32 [*indices.shape, columns]; it must not share memory with an
            input.

    Raises:
        InvalidOperand: An array does not fit, or an index is no row; nothing was written.
    """
    table = check("table", table, np.float32, (None, None))
    indices = _integers(indices)
    level = configuration.configured().level
    checker, kernel = _code(table.shape[1], indices.itemsize, "", False, level)
    _check_rows_exist(checker, indices, None, table.shape[0])
    shape = (*indices.shape, table.shape[1])
    out = output_of(out, np.float32, shape, (("table", table), ("indices", indices)))
    words = _pack_words(address(table), address(indices), address(out), indices.size, 0, 0, 0)
    _run(kernel, words, out.size)
    return out


def embedding_bag(
    table: NDArray[np.float32],
    indices: NDArray[Any],
    offsets: NDArray[Any] | None = None,
    weights: NDArray[np.float32] | None = None,
    mode: str = "sum",
    *,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Returns the sum, mean or maximum of the rows of each bag; an empty bag becomes zeros.

    Args:
        table: float32 [rows, columns], contiguous.
        indices: int64 or int32, contiguous, each from 0 to rows - 1: [lookups], or [bags, lookups]
            for bags of one size.
        offsets: Where each bag begins, [bags], of the dtype of the indices, the first 0, none below
            the one before; not with indices of two dimensions.
        weights: float32, shaped like the indices: what rows are multiplied by; for sums only.
        mode: "sum", "mean" or "max".
        out: Where to write, float32 [bags, columns]; it must not share memory with an input.

    Raises:
        InvalidOperand: An array does not fit, or an index is no row; nothing was written.
    """
    table = check("table", table, np.float32, (None, None))
    indices = _integers(indices)
    if mode not in MODES:
        raise InvalidOperand(f"There is no mode {mode!r}.", cure=f"Use one of {MODES}.")
    if weights is not None:
        weights = check("weights", weights, np.float32, indices.shape)
        if mode != "sum":
            raise InvalidOperand(f"Weights have no meaning for a {mode}.", cure="Use sums.")
    offsets = _offsets(offsets, indices)
    weighted, level = weights is not None, configuration.configured().level
    checker, kernel = _code(table.shape[1], indices.itemsize, mode, weighted, level)
    _check_rows_exist(checker, indices, offsets, table.shape[0])
    operands = (("table", table), ("indices", indices), ("offsets", offsets), ("weights", weights))
    out = output_of(out, np.float32, (len(offsets), table.shape[1]), operands)
    words = _pack_words(
        *(address(table), address(indices), address(out), indices.size, address(offsets)),
        *(0 if weights is None else address(weights), len(offsets)),
    )
    _run(kernel, words, indices.size * table.shape[1])
    return out


def embedding_kernel(workload: Embedding, target: Target) -> Loaded:
    """Returns an embedding's kernel, compiling it if no cache has it."""
    return load("embedding", workload, lambda: embedding_module(workload, target), target)


def check_kernel(target: Target, *, wide: bool) -> Loaded:
    """Returns the kernel that checks indices of int64, if wide, or int32."""
    return load("indices", wide, lambda: check_module(wide=wide, target=target), target)


@functools.cache
def _code(columns: int, size: int, mode: str, weighted: bool, _level: str) -> tuple[int, int]:  # noqa: FBT001
    """Addresses of the kernels that check and compute; the level is the one configured now."""
    target, wide = configuration.target(), size == 8
    kernel = embedding_kernel(Embedding(columns, wide, mode, weighted), target)
    return check_kernel(target, wide=wide).address, kernel.address


def _check_rows_exist(
    checker: int, indices: NDArray[Any], offsets: NDArray[Any] | None, rows: int
) -> None:
    """Refuses indices that are no row of the table, and offsets that make no bags of them."""
    verdict = np.empty(1, np.int64)
    bags = (0, 0) if offsets is None else (address(offsets), len(offsets))
    words = _pack_check(address(indices), indices.size, rows, *bags, address(verdict))
    shared(configuration.threads()).run(checker, words, 1)
    if verdict[0] == NO_ROW:
        wrong = indices[(indices < 0) | (indices >= rows)].flat[0]
        raise InvalidOperand(
            f"The index {wrong} is no row of a table of {rows}.",
            cure=f"Give indices from 0 to {rows - 1}.",
        )
    if verdict[0] == NO_BAGS:
        raise InvalidOperand(
            f"The offsets do not cut {indices.size} indices into bags.",
            cure="Begin with 0, and let none be below the one before or behind the last index.",
        )


def _integers(indices: object) -> NDArray[Any]:
    dtype = np.int32 if getattr(indices, "dtype", None) == np.int32 else np.int64
    return check("indices", indices, dtype, (None,) * getattr(indices, "ndim", 1))


def _offsets(offsets: object, indices: NDArray[Any]) -> NDArray[Any]:
    """The offsets given, or those of bags of one size."""
    if offsets is None:
        if indices.ndim != 2:
            raise InvalidOperand(
                f"Indices of shape {indices.shape} are no bags.",
                cure="Give offsets, or indices of shape [bags, lookups].",
            )
        return np.arange(0, indices.size, indices.shape[1], dtype=indices.dtype)
    if indices.ndim != 1:
        raise InvalidOperand(f"Offsets need indices in one line, not {indices.shape}.")
    return check("offsets", offsets, indices.dtype, (None,))


def _run(kernel: int, words: bytes, numbers: int) -> None:
    pool = shared(configuration.threads())
    pool.run(kernel, words, pool.chunks if numbers >= WORTH_SHARING else 1)
