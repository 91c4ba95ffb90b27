"""JSON values as tensor elements, and tensor elements as JSON: nothing is rounded or lost silently.

What JSON has no number for is written as Python's json and RapidJSON write it: NaN, Infinity and
-Infinity. Inputs may also hold these in quotes, for writers of strict JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import orjson
from adlik_common.errors import InvalidRequest, InvalidTensor
from adlik_common.tensors import DATATYPES, TensorSpec

from adlik_serving.oip.request import MAX_RANK, Array, Buffer

PIECE_ELEMENTS = 16 * 1024
"""Elements that are written or converted at once: some 2 ms in which no other thread gets on."""

NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_NULL = b"null"
_TYPES: dict[str, set[type]] = {
    "b": {bool},
    "i": {int},
    "u": {int},
    "f": {int, float},
    "O": {str},
}
"""Kind of a dtype to the JSON values that may stand for its elements."""
_WORDS = {
    bool: "true and false",
    int: "whole numbers",
    float: "fractions or numbers beyond 64 bits",
    str: "strings",
    type(None): "null",
    list: "unevenly nested lists",
    dict: "objects",
}


def read_values(spec: TensorSpec, shape: Sequence[int], data: object) -> Array:
    """Returns the array of a (nested or flat) list of JSON values.

    Raises:
        InvalidTensor: Elements are missing, too many, of another type or out of range, or the lists
            do not end where an axis of the shape does.
    """
    values, sizes = _flatten(data)
    if sizes != (math.prod(shape),):  # of flat lists nothing else need be checked
        check_nesting(spec, shape, sizes)
    return convert(spec, values).reshape(shape)


def _flatten(data: object) -> tuple[list[Any], tuple[int, ...]]:
    """Returns the elements of evenly nested lists in order, and how many each level has."""
    values: list[Any] = [data]
    sizes: list[int] = []
    while set(map(type, values)) == {list} and len(sizes) < MAX_RANK:
        lengths = set(map(len, values))
        if len(lengths) > 1:
            break  # the lists that are left are told to be no elements
        sizes += lengths
        values = list(chain.from_iterable(values))
    return values, tuple(sizes)


def check_nesting(spec: TensorSpec, shape: Sequence[int], sizes: Sequence[int]) -> None:
    """Raises `InvalidTensor` unless every list ends where an axis of the shape does.

    Args:
        spec: The input.
        shape: Its shape as the request says.
        sizes: Elements of the nested lists, the outermost first; () for a value without a list.
    """
    if math.prod(sizes) != math.prod(shape):
        raise wrong_data(spec, shape, f"there are {math.prod(sizes)} elements")
    if not _ends(sizes) <= _ends(shape):
        raise wrong_data(spec, shape, f"its lists make {list(sizes)}")


def _ends(shape: Sequence[int]) -> set[int]:
    """Returns after how many elements the lists of each level end."""
    if 0 in shape:
        return {0}
    ends = {1}
    count = 1
    for size in reversed(shape):
        count *= size
        ends.add(count)
    return ends


def convert(spec: TensorSpec, values: list[Any]) -> Array:
    """Returns JSON values as an array of one dimension.

    Raises:
        InvalidTensor: A value is of another type, or out of the datatype's range.
    """
    dtype = DATATYPES[spec.datatype]
    types = set(map(type, values))
    if dtype.kind == "f" and str in types:
        # What is no such name stays a string and is refused as one.
        values = [NOT_FINITE.get(v, v) if type(v) is str else v for v in values]
        types = set(map(type, values))
    if not types <= _TYPES[dtype.kind]:
        odd = sorted(_WORDS[kind] for kind in types - _TYPES[dtype.kind])
        raise wrong_data(spec, None, f"it holds {', '.join(odd)}")
    if dtype == np.object_:
        strings = np.empty(len(values), np.object_)
        strings[:] = values
        return strings
    try:
        with np.errstate(over="raise"):
            if dtype.kind == "f":
                return np.array(values, np.float64).astype(dtype, copy=False)
            return np.array(values, dtype)
    except (OverflowError, FloatingPointError) as error:
        raise wrong_data(spec, None, f"a number is out of {spec.datatype}'s range") from error


def wrong_data(spec: TensorSpec, shape: Sequence[int] | None, reason: str) -> InvalidTensor:
    """Returns the error for values that do not make an input's tensor."""
    tensor = spec.datatype if shape is None else f"{spec.datatype} {list(shape)}"
    return InvalidTensor(
        f"The data of input '{spec.name}' does not make {tensor}: {reason}.",
        cure="Send every element once, row by row, flat or nested as the shape is.",
        tensor=spec.name,
    )


def write_values(name: str, array: Array) -> Iterator[Buffer]:
    """Yields the pieces of the flat JSON list of an output's elements.

    Raises:
        InvalidRequest: A string is not UTF-8 text, which JSON can't hold.
    """
    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.dtype == np.float16:
        flat = flat.astype(np.float32)
    yield b"["
    for start in range(0, len(flat), PIECE_ELEMENTS):
        if start:
            yield b","
        piece = flat[start : start + PIECE_ELEMENTS]
        if piece.dtype == np.object_:
            yield orjson.dumps(_texts(name, piece))[1:-1]
            continue
        text = orjson.dumps(piece, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
        yield _named(text, piece) if _NULL in text else text
    yield b"]"


def _named(text: bytes, piece: Array) -> bytes:
    """Returns the JSON of floats with the names of those that orjson has written as null."""
    parts = text.split(_NULL)
    names = [json.dumps(value).encode() for value in piece[~np.isfinite(piece)].tolist()]
    return b"".join(chain.from_iterable(zip(parts, [*names, b""], strict=True)))


def _texts(name: str, piece: Array) -> list[str]:
    try:
        return [value.decode() if isinstance(value, bytes) else str(value) for value in piece]
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"Output '{name}' holds bytes that are not UTF-8 text.",
            cure="Ask for it with the parameter binary_data: true.",
        ) from error
