"""Kernels written as Python and compiled by numba, with the one signature that the threads run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba.core import types
from numba.extending import intrinsic

_WORDS = types.CPointer(types.int64)  # type: ignore[attr-defined] # numba is untyped
_SIGNATURE = types.void(types.int64, types.int64, _WORDS)


def kernel(function: Callable[..., None]) -> int:
    """Compiles `function(chunk, chunks, words)` and returns its address.

    The code is kept beside the source, or in the user's cache folder where that cannot be written.

    Args:
        function: Reads its arguments from `words` with `array_at` and `float_at`.
    """
    compiled = numba.cfunc(_SIGNATURE, cache=True, error_model="numpy", fastmath={"contract"})
    made = compiled(function)
    _made.append(made)
    return int(made.address)


_made: list[Any] = []
"""What keeps compiled code in memory."""


@intrinsic  # type: ignore[untyped-decorator] # numba is untyped
def _pointer(_context: Any, word: Any) -> Any:
    """Makes an address of a word."""

    def write(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(word), write


@numba.njit(inline="always")  # type: ignore[untyped-decorator] # numba is untyped
def array_at(words: Any, place: int, shape: Any, dtype: Any) -> Any:
    """Returns the array whose address is an argument word."""
    return numba.carray(_pointer(words[place]), shape, dtype)
