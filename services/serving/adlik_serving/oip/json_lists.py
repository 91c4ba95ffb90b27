"""Large JSON bodies, read in pieces: no call into C holds the interpreter for more than moments.

A parser of JSON keeps Python's lock from the first byte to the last: half a second for 20 MB of
numbers, in which the event loop answers nobody, whatever thread it runs in. Here the lists behind
"data" are cut out of the text and read some thousand elements at a time, straight into the tensor's
memory; what is left is small and is parsed as usual. It also reads NaN and the infinities, which
the parser itself refuses.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson
from adlik_common.errors import InvalidRequest
from adlik_common.tensors import DATATYPES, TensorSpec

from adlik_serving.oip.json_values import check_nesting, convert, read_values, wrong_data
from adlik_serving.oip.request import MAX_RANK, Array

FIRST_WINDOW_BYTES = 1024
WINDOW_BYTES = 128 * 1024
MAX_SMALL_BYTES = 4 << 20
"""Most that a JSON text may have outside of its lists of data."""
PLACEHOLDER = "\x01"
"""Key of the object that stands for a list that was cut out."""

_LIST = re.compile(rb'"data"\s*:\s*(?=\[)')
# One value that a parser would not take, or read as another.
_SINGLE = re.compile(rb'("data"\s*:\s*)(NaN|-?Infinity|-0)(?![\w.])')
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NOT_FINITE = re.compile(rb"-?\bInfinity\b|\bNaN\b")
# As an integer it would lose its sign. "1e-0" has no such zero.
_MINUS_ZERO = re.compile(rb"-0(?![\d.eE])")
_ONLY_MINUS_ZERO = re.compile(rb"(?<![eE])-0(?![\d.eE])")
_WHITE = b" \t\r\n"
_FLATTENED = bytes.maketrans(b"[]", b"  ")
# Stands for a string in the text of a list: JSON has no such byte.
_PLACE = b"\x01"


class JsonList(NamedTuple):
    """A list that stands in a text.

    Attributes:
        text: The JSON text.
        start: Where its first bracket is.
        end: Behind its last.
    """

    text: memoryview
    start: int
    end: int


def needs_lists(text: memoryview) -> bool:
    """Returns whether a small text holds what only lists that are cut out are read right with."""
    data = bytes(text)
    return b"NaN" in data or b"Infinity" in data or bool(_MINUS_ZERO.search(data))


def cut_lists(text: memoryview) -> tuple[bytes, list[JsonList]]:
    """Returns a JSON text with an object for each list behind "data", and these lists.

    The objects have the one key `PLACEHOLDER`; its value is the list's index, or the text of a
    single value that is no list: NaN, an infinity or -0.

    Raises:
        InvalidRequest: A list does not end, or what is not such a list is large.
    """
    lists: list[JsonList] = []
    parts: list[bytes | memoryview] = []
    position = search = 0
    while found := _LIST.search(text, search):
        start = search = found.end()
        if found.start() and text[found.start() - 1] == ord("\\"):  # a quote inside of a string
            continue
        end = search = _end_of(text, start)
        parts += (text[position:start], b'{"\\u0001":%d}' % len(lists))
        lists.append(JsonList(text, start, end))
        position = end
    parts.append(text[position:])
    if sum(map(len, parts)) > MAX_SMALL_BYTES:
        raise InvalidRequest(
            f"The JSON has more than {MAX_SMALL_BYTES} bytes outside of its lists of data.",
            cure="Send large tensors as lists or as binary tensor data.",
        )
    return _SINGLE.sub(rb'\1{"\\u0001":"\2"}', b"".join(parts)), lists


def read_list(spec: TensorSpec, shape: Sequence[int], found: JsonList) -> Array:
    """Returns the array of a list that was cut out.

    Raises:
        InvalidRequest: The list is not JSON.
        InvalidTensor: It does not make the tensor, see `json_values.read_values`.
    """
    count = math.prod(shape)
    if not count:
        return _read_empty(spec, shape, found)
    if count > found.end - found.start:
        raise wrong_data(spec, shape, f"there are fewer than {count} elements")
    array = np.empty(count, DATATYPES[spec.datatype])
    nesting = _Nesting()
    filled = 0
    for piece, strings in _pieces(found):
        compact = piece.translate(None, _WHITE)
        if b",]" in compact or b"[]" in compact:
            raise wrong_data(spec, shape, "a list in it is empty or ends with a comma")
        values = _values(piece, strings, array.dtype.kind)
        if not nesting.take(piece):
            raise wrong_data(spec, shape, "its lists are nested unevenly")
        if filled + len(values) > count:
            raise wrong_data(spec, shape, f"there are more than {count} elements")
        array[filled : filled + len(values)] = convert(spec, values)
        filled += len(values)
    sizes = nesting.sizes(filled)
    if sizes is None:
        raise wrong_data(spec, shape, "its lists are nested unevenly")
    check_nesting(spec, shape, sizes)
    return array.reshape(shape)


def _read_empty(spec: TensorSpec, shape: Sequence[int], found: JsonList) -> Array:
    """Returns the array of a list that must hold nothing but empty lists."""
    if found.end - found.start > MAX_SMALL_BYTES:
        raise wrong_data(spec, shape, "its lists are too many")
    try:
        return read_values(spec, shape, orjson.loads(found.text[found.start : found.end]))
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not JSON: in a list of data, {error}.") from error


def _windows(text: memoryview, start: int, end: int) -> Iterator[tuple[bytes, bytes]]:
    """Yields a text in windows that cut no string, and each with its strings as `_PLACE`."""
    size = FIRST_WINDOW_BYTES
    while start < end:
        window = bytes(text[start : min(end, start + size)])
        if _PLACE in window:
            raise InvalidRequest("The body is not JSON: it holds control characters.")
        blanked = _STRING.sub(_PLACE, window) if b'"' in window else window
        cut = blanked.find(b'"')  # where a string begins that does not end in this window
        if cut >= 0:
            kept = len(window) - (len(blanked) - cut)
            window, blanked = window[:kept], blanked[:cut]
        if window:
            yield window, blanked
        elif start + size >= end:
            raise InvalidRequest("The body is not JSON: a string does not end.")
        start += len(window)
        size = max(2 * size, WINDOW_BYTES) if not window else min(2 * size, WINDOW_BYTES)


def _end_of(text: memoryview, start: int) -> int:
    """Returns where the list that begins at `start` ends."""
    depth, at = 0, start
    for window, blanked in _windows(text, start, len(text)):
        places, steps = _brackets(blanked)
        depths = depth + np.cumsum(steps)
        ends = np.flatnonzero(depths == 0)
        if ends.size:
            end = int(places[ends[0]]) + 1
            strings = blanked.count(_PLACE, 0, end)
            lengths = (len(m[0]) for m in itertools.islice(_STRING.finditer(window), strings))
            return at + end - strings + sum(lengths)
        if places.size:
            depth = int(depths[-1])
        at += len(window)
    raise InvalidRequest("The body is not JSON: a list does not end.")


def _brackets(blanked: bytes) -> tuple[Array, Array]:
    """Returns the places of brackets, and +1 for each that opens, -1 for each that closes."""
    codes = np.frombuffer(blanked, np.uint8)
    places = np.flatnonzero((codes == ord("[")) | (codes == ord("]")))
    return places, np.where(codes[places] == ord("["), 1, -1)


def _pieces(found: JsonList) -> Iterator[tuple[bytes, list[bytes]]]:
    """Yields a list's text in pieces, strings as `_PLACE`, and each piece's strings.

    Pieces but the first begin with the comma that parts them from the one before.
    """
    rest = b""
    waiting: list[bytes] = []
    for window, blanked in _windows(*found):
        if b'"' in window:
            waiting += _STRING.findall(window)
        rest += blanked
        cut = rest.rfind(b",")
        if cut <= 0:
            continue
        piece, rest = rest[:cut], rest[cut:]
        strings = piece.count(_PLACE)
        yield piece, waiting[:strings]
        waiting = waiting[strings:]
    yield rest, waiting


def _values(piece: bytes, strings: list[bytes], kind: str) -> list[Any]:
    """Returns the elements, for a dtype of this kind, in a piece of a list's text."""
    text = piece.removeprefix(b",").translate(_FLATTENED)
    if strings and text.translate(None, _WHITE) == b",".join([_PLACE] * len(strings)):
        return _parsed(b",".join(strings))
    if kind != "O" and (b"N" in text or b"I" in text):
        text = _NOT_FINITE.sub(rb'"\g<0>"', text)
    if kind == "f" and _MINUS_ZERO.search(text):
        text = _ONLY_MINUS_ZERO.sub(b"-0.0", text)
    values = _parsed(text.replace(_PLACE, b'""'))
    if strings:
        given = iter(_parsed(b",".join(strings)))
        values = [next(given) if value == "" else value for value in values]
    return values


def _parsed(elements: bytes) -> list[Any]:
    """Returns the elements of a list whose brackets are left out."""
    try:
        return orjson.loads(b"".join((b"[", elements, b"]")))  # type: ignore[no-any-return]
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not JSON: in a list of data, {error}.") from error


class _Nesting:
    """Checks that lists are nested evenly, from their brackets alone."""

    def __init__(self) -> None:
        self._depth = self._commas = 0
        self._opened = [0] * (MAX_RANK + 2)
        self._closed = [0] * (MAX_RANK + 2)
        self._length: dict[int, int] = {}

    def take(self, piece: bytes) -> bool:
        """Takes the next piece of a list's text; returns False where it is uneven."""
        places, steps = _brackets(piece)
        commas = np.flatnonzero(np.frombuffer(piece, np.uint8) == ord(","))
        # Elements that are whole at each bracket: every comma but for the last element ends one.
        elements = self._commas + np.searchsorted(commas, places) + (steps < 0)
        depths = self._depth + np.cumsum(steps) + (steps < 0)
        self._commas += len(commas)
        if not places.size:
            return True
        self._depth += int(steps.sum())
        deepest = int(depths.max())
        return deepest <= MAX_RANK and all(
            self._take_level(depth, elements[level & (steps > 0)], elements[level & (steps < 0)])
            for depth in range(1, deepest + 1)
            if (level := depths == depth).any()
        )

    def _take_level(self, depth: int, opens: Array, closes: Array) -> bool:
        """Takes the element counts at which lists of one level begin and end."""
        if closes.size and depth not in self._length:
            self._length[depth] = int(closes[0])
        length = self._length.get(depth, 0)
        begun, ended = self._opened[depth], self._closed[depth]
        self._opened[depth] += len(opens)
        self._closed[depth] += len(closes)
        return bool(
            (opens == length * np.arange(begun, begun + len(opens))).all()
            and (closes == length * np.arange(ended + 1, ended + 1 + len(closes))).all()
        )

    def sizes(self, elements: int) -> tuple[int, ...] | None:
        """Returns how many each level has, the outermost first; None where not all are there."""
        sizes: list[int] = []
        outer = elements
        for depth in sorted(self._length):
            length = self._length[depth]
            if self._closed[depth] * length != elements:
                return None
            if depth > 1:
                sizes.append(outer // length)
            outer = length
        return (*sizes, outer)
