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
    array = _check_kind(name, array, dtype, shape)
    flags = array.flags
    if not flags.c_contiguous or not flags.aligned:
        raise InvalidOperand(
            f"{name} is not contiguous: its strides are {array.strides}.",
            cure="Use numpy.ascontiguousarray.",
        )
    return array


def check_rows(
    name: str, array: object, dtype: DTypeLike, shape: Sequence[int | None]
) -> NDArray[Any]:
    """Returns the array if a kernel that knows its strides may read it.

    Unlike `check`, it takes views whose last axis alone is contiguous, such as a third of the
    columns of a matrix.

    Args:
        name: The operand's name, for the message.
        array: What the caller gave.
        dtype: The element type it must have, in native byte order.
        shape: The shape it must have; None for a dimension of any size above zero.

    Raises:
        InvalidOperand: It is no array, or its type, shape or layout is another, or it is empty.
    """
    array = _check_kind(name, array, dtype, shape)
    together = array.shape[-1] == 1 or array.strides[-1] == array.itemsize
    if not together or not array.flags.aligned:
        raise InvalidOperand(
            f"The last axis of {name} is not contiguous: its strides are {array.strides}.",
            cure="Use numpy.ascontiguousarray.",
        )
    return array


def _check_kind(
    name: str, array: object, dtype: DTypeLike, shape: Sequence[int | None]
) -> NDArray[Any]:
    if not isinstance(array, np.ndarray):
        raise InvalidOperand(
            f"{name} is a {type(array).__name__}, not a numpy array.", cure="Use numpy.asarray."
        )
    if array.dtype != dtype:
        wanted = np.dtype(dtype)
        raise InvalidOperand(
            f"{name} has the dtype {array.dtype}, expected {wanted}.",
            cure=f"Convert it with {name}.astype({wanted.name!r}).",
        )
    if not _fits(array.shape, shape):
        expected = ", ".join("any" if want is None else str(want) for want in shape)
        raise InvalidOperand(f"{name} has the shape {array.shape}, expected ({expected}).")
    return array


def _fits(found: tuple[int, ...], shape: Sequence[int | None]) -> bool:
    if len(found) != len(shape) or 0 in found:
        return False
    for size, want in zip(found, shape, strict=True):  # a generator is half as fast
        if want is not None and size != want:
            return False
    return True


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


def output_of(
    out: object, dtype: DTypeLike, shape: Sequence[int], inputs: Sequence[tuple[str, Any]]
) -> NDArray[Any]:
    """Returns the array that a caller wants the result in, checked, or else a new one.

    Args:
        out: What the caller gave, or None.
        dtype: The element type of the result.
        shape: The shape of the result.
        inputs: Names and arrays that are read while the result is written; None is skipped.

    Raises:
        InvalidOperand: It does not fit the result, is read-only, or shares memory with an input.
    """
    if out is None:
        return np.empty(shape, dtype)
    return check_output(out, dtype, shape, inputs)


def address(array: NDArray[Any]) -> int:
    """Returns where the elements of a checked array begin.

    `ndarray.ctypes` builds an object for every call and costs a microsecond; a contiguous array
    that may be written has a shorter way.
    """
    try:
        return _place(_view(array))  # type: ignore[arg-type] # numpy arrays are buffers
    except (TypeError, ValueError, BufferError):
        return int(array.ctypes.data)


def aligned_empty(shape: Sequence[int] | int, dtype: DTypeLike) -> NDArray[Any]:
    """Returns an uninitialised array that begins at a cache line."""
    kind = np.dtype(dtype)
    size = int(np.prod(shape)) * kind.itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -int(raw.ctypes.data) % 64
    return raw[start : start + size].view(kind).reshape(shape)
