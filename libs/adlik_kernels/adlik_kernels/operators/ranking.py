"""The k best classes of each row with their probabilities, without writing a softmax anywhere."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adlik_kernels.errors import InvalidOperand
from adlik_kernels.operators.operands import check


def softmax_top_k(
    logits: NDArray[np.float32], k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Returns the largest probabilities of each row's softmax and where they are, best first.

    Among equals the earlier comes first. A row with NaN has NaN probabilities; its places are not
    defined.

    Args:
        logits: float32 [rows, classes], contiguous.
        k: How many, at most the number of classes.

    Returns:
        float32 [rows, k] probabilities, int64 [rows, k] places.

    Raises:
        InvalidOperand: The logits do not fit, or k is out of range.
    """
    logits = check("logits", logits, np.float32, (None, None))
    if not 1 <= k <= logits.shape[1]:
        raise InvalidOperand(f"k is {k}; there are {logits.shape[1]} classes to choose from.")
    found: tuple[NDArray[np.float32], NDArray[np.int64]] = _code()(logits, k)
    return found


@functools.cache
def _code() -> Any:
    """The compiled loops; numba is imported on first use, for it takes a while."""
    from adlik_kernels.templates import ranking as rankcode

    return rankcode.softmax_top_k
