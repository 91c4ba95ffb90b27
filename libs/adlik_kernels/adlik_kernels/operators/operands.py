"""The checks that stand between a caller's arrays and code that trusts its addresses."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from adlik_kernels.errors import InvalidOperand

_view = ctypes.c_char.from_buffer
_place = ctypes.addressof


def check(name: str, array: object, dtype: DTypeLike, shape: Sequence[int | None]) -> NDArray[Any]:
    """Returns the array if a kernel may read it.

    Args:
        name: The operand's name, for the message.
        array: What the caller gave.
        dtype: The element type it must have, in native byte order.
        shape: The shape it must have; None for a dimension of any size above zero.

    Raises:
        InvalidOperand: It is no array, or its type, shape or layout is another, or it is empty.
    """
    if not isinstance(array, np.ndarray):
        raise InvalidOperand(
            f"{name} is a {type(array).__name__}, not a numpy array.", cure="Use numpy.asarray."
        )
    wanted = np.dtype(dtype)
    if array.dtype != wanted:
        raise InvalidOperand(
            f"{name} has the dtype {array.dtype}, expected {wanted}.",
            cure=f"Convert it with {name}.astype({wanted.name!r}).",
        )
    if len(array.shape) != len(shape) or any(
        size < 1 or (want is not None and size != want)
        for size, want in zip(array.shape, shape, strict=True)
    ):
        expected = ", ".join("any" if want is None else str(want) for want in shape)
        raise InvalidOperand(f"{name} has the shape {array.shape}, expected ({expected}).")
    if not array.flags.c_contiguous or not array.flags.aligned:
        raise InvalidOperand(
            f"{name} is not contiguous: its strides are {array.strides}.",
            cure="Use numpy.ascontiguousarray.",
        )
    return array


def check_output(
    out: object, dtype: DTypeLike, shape: Sequence[int], inputs: Sequence[tuple[str, Any]]
) -> NDArray[Any]:
    """Returns the array if a kernel may write its result there.

    Args:
        out: What the caller gave.
        dtype: The element type of the result.
        shape: The shape of the result.
        inputs: Names and arrays that are read while the result is written; None is skipped.

    Raises:
        InvalidOperand: It does not fit the result, is read-only, or shares memory with an input.
    """
    array = check("out", out, dtype, shape)
    if not array.flags.writeable:
        raise InvalidOperand("out is read-only.", cure="Give an array that may be written.")
    for name, operand in inputs:
        if operand is not None and np.may_share_memory(array, operand):
            raise InvalidOperand(
                f"out shares memory with {name}, which is read while out is written.",
                cure="Give an array of its own.",
            )
    return array


def address(array: NDArray[Any]) -> int:
    """Returns where the elements of a checked array begin.

    `ndarray.ctypes` builds an object for every call and costs a microsecond; a writeable array has
    a shorter way.
    """
    if array.flags.writeable and array.flags.c_contiguous:
        return _place(_view(array))  # type: ignore[arg-type] # numpy arrays are buffers
    return int(array.ctypes.data)


def aligned_empty(shape: Sequence[int] | int, dtype: DTypeLike) -> NDArray[Any]:
    """Returns an uninitialised array that begins at a cache line."""
    kind = np.dtype(dtype)
    size = int(np.prod(shape)) * kind.itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -int(raw.ctypes.data) % 64
    return raw[start : start + size].view(kind).reshape(shape)
