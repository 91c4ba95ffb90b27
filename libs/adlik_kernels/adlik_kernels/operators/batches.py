"""Requests' tensors into one batch and results back out, in one pass over memory each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adlik_kernels.errors import InvalidOperand
from adlik_kernels.operators.operands import check


def gather(
    parts: Sequence[NDArray[Any]], *, rows: int = 0, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Returns requests' tensors one below the other, filled with zeros up to a number of rows.

    Args:
        parts: Contiguous arrays of one dtype whose shapes differ in the first dimension only.
        rows: Rows of the batch; 0 for as many as there are. More than there are: the rest is 0.
        out: Where to write; its first dimension is then the number of rows.

    Raises:
        InvalidOperand: The parts do not fit together or are too many for the batch.
    """
    if not parts:
        raise InvalidOperand("A batch needs a part.")
    first = parts[0]
    for part in parts:
        check("part", part, first.dtype, (None, *first.shape[1:]))
    total = sum(len(part) for part in parts)
    rows = rows or (total if out is None else len(out))
    if total > rows:
        raise InvalidOperand(f"{total} rows do not fit a batch of {rows}.")
    shape = (rows, *first.shape[1:])
    if out is None:
        out = np.empty(shape, first.dtype)
    else:
        check("out", out, first.dtype, shape)
    at = 0
    for part in parts:
        out[at : at + len(part)] = part
        at += len(part)
    out[at:] = 0
    return out


def scatter(batch: NDArray[Any], counts: Sequence[int]) -> list[NDArray[Any]]:
    """Returns each request's rows of a batch as an array of its own.

    The parts are copies: a request that is read late must not hold the whole batch.

    Args:
        batch: [rows, ...].
        counts: Rows of each request, in order; rows behind the last are left out.

    Raises:
        InvalidOperand: The counts are more than the rows, or one is negative.
    """
    if any(count < 0 for count in counts) or sum(counts) > len(batch):
        raise InvalidOperand(f"A batch of {len(batch)} rows cannot be cut into {list(counts)}.")
    ends = np.cumsum(counts)
    return [batch[end - count : end].copy() for end, count in zip(ends, counts, strict=True)]
