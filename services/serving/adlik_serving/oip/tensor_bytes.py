"""Tensors as raw bytes: little-endian, row-major, BYTES elements behind 4-byte lengths.

Engines take BYTES as arrays of Python strings: what models call a string is UTF-8 text.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence

import numpy as np
from adlik_common.errors import InvalidTensor
from adlik_common.tensors import DATATYPES, TensorSpec

from adlik_serving.oip.request import Array, Buffer

_LENGTH = struct.Struct("<I")


def read_tensor(spec: TensorSpec, shape: Sequence[int], data: Buffer) -> Array:
    """Returns the array that raw bytes stand for.

    Numbers become a view of the bytes; they are copied only where they do not lie on a multiple of
    their size, which engines need not accept.

    Args:
        spec: The input that the tensor is for.
        shape: The tensor's shape, already checked against the spec.
        data: The bytes.

    Raises:
        InvalidTensor: There are more or fewer bytes than the shape needs.
    """
    count = math.prod(shape)
    if spec.datatype == "BYTES":
        return _read_strings(spec, count, memoryview(data)).reshape(shape)
    dtype = DATATYPES[spec.datatype]
    size = len(data)
    if size != count * dtype.itemsize:
        raise InvalidTensor(
            f"Input '{spec.name}' has {size} bytes; {spec.datatype} {list(shape)} has "
            f"{count * dtype.itemsize}.",
            cure="Send the elements row by row, little endian, without padding.",
            tensor=spec.name,
        )
    array = (np.frombuffer(data, dtype) if count else np.empty(0, dtype)).reshape(shape)
    if not array.flags.aligned:
        array = array.copy()
    if dtype == np.bool_ and (array.view(np.uint8) > 1).any():
        raise InvalidTensor(
            f"Input '{spec.name}' has BOOL bytes other than 0 and 1.",
            cure="Send 1 for true and 0 for false.",
            tensor=spec.name,
        )
    return array


def _read_strings(spec: TensorSpec, count: int, data: memoryview) -> Array:
    """Returns `count` length-prefixed byte strings as an array of strings."""
    if count > len(data) // _LENGTH.size:
        raise _wrong_strings(spec, count)
    strings = np.empty(count, np.object_)
    position, end = 0, len(data)
    for at in range(count):
        start = position + _LENGTH.size
        if start > end:
            raise _wrong_strings(spec, count)
        position = start + _LENGTH.unpack_from(data, position)[0]
        if position > end:
            raise _wrong_strings(spec, count)
        strings[at] = string_of(spec, data[start:position])
    if position != end:
        raise _wrong_strings(spec, count)
    return strings


def string_array(spec: TensorSpec, elements: Sequence[Buffer]) -> Array:
    """Returns the array, of one dimension, of the strings that byte strings stand for."""
    strings = np.empty(len(elements), np.object_)
    strings[:] = [string_of(spec, element) for element in elements]
    return strings


def string_of(spec: TensorSpec, element: Buffer) -> str:
    """Returns the string that bytes stand for; `InvalidTensor` if they are not UTF-8."""
    try:
        return str(element, "utf-8")
    except UnicodeDecodeError as error:
        raise InvalidTensor(
            f"Input '{spec.name}' has elements that are not UTF-8 text.",
            cure="Models take text: encode the strings as UTF-8.",
            tensor=spec.name,
        ) from error


def _wrong_strings(spec: TensorSpec, count: int) -> InvalidTensor:
    return InvalidTensor(
        f"Input '{spec.name}' does not hold exactly {count} byte strings.",
        cure="Write a 4-byte little-endian length before each element.",
        tensor=spec.name,
    )


def write_tensor(array: Array) -> Buffer:
    """Returns the raw bytes of an array: a view where it is contiguous."""
    if array.dtype == np.object_:
        return b"".join(map(_write_string, array.reshape(-1)))
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _write_string(value: object) -> bytes:
    data = value if isinstance(value, bytes) else str(value).encode()
    return _LENGTH.pack(len(data)) + data
