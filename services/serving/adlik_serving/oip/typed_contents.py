"""Typed contents of tensors in gRPC requests, read some thousand elements at a time.

A call into protobuf's parser keeps the interpreter's lock until all is parsed, like one of JSON
(see `json_lists`). Messages merge where their bytes follow each other, so a long one can be cut.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from adlik_common import wire
from adlik_common.errors import InvalidRequest, InvalidTensor
from adlik_common.tensors import DATATYPES, TensorSpec
from adlik_proto.inference import open_inference_pb2 as pb

from adlik_serving.oip.request import Array, Buffer
from adlik_serving.oip.tensor_bytes import string_array

PIECE_BYTES = 32 * 1024
"""A multiple of the size of every number of fixed size."""

_FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Datatype to the field of InferTensorContents that holds its elements."""
_BYTES_CONTENTS = pb.InferTensorContents.BYTES_CONTENTS_FIELD_NUMBER
_FIXED_SIZE = (
    pb.InferTensorContents.FP32_CONTENTS_FIELD_NUMBER,
    pb.InferTensorContents.FP64_CONTENTS_FIELD_NUMBER,
)
_STRING_TAG = _BYTES_CONTENTS << 3 | wire.BYTES
_LONGEST_NUMBER = 10


class TypedContents(NamedTuple):
    """The typed contents of one tensor.

    Attributes:
        messages: Those that merge into the tensor's.
        size: Their bytes, as they are sent.
    """

    messages: Iterable[pb.InferTensorContents]
    size: int

    @classmethod
    def of(cls, tensor: pb.ModelInferRequest.InferInputTensor) -> TypedContents:
        """Returns contents that are parsed already."""
        if not tensor.HasField("contents"):
            return _NOTHING
        return cls((tensor.contents,), tensor.contents.ByteSize())

    @classmethod
    def cut(cls, parts: Sequence[memoryview]) -> TypedContents:
        """Returns contents that are parsed in pieces, when they are read."""
        pieces = (piece for part in parts for piece in cut(part))
        messages = (pb.InferTensorContents.FromString(bytes(piece)) for piece in pieces)
        return cls(messages, sum(map(len, parts)))


_NOTHING = TypedContents((), 0)


def read_typed(spec: TensorSpec, shape: Sequence[int], contents: TypedContents) -> Array:
    """Returns the array that a tensor's typed contents stand for.

    Args:
        spec: The input that the tensor is for.
        shape: The tensor's shape, already checked against the spec.
        contents: The elements.

    Raises:
        InvalidRequest, DecodeError: The bytes are no such messages.
        InvalidTensor: The elements do not make the tensor.
    """
    field = _FIELDS.get(spec.datatype)
    if field is None:
        raise InvalidTensor(
            f"Input '{spec.name}' is {spec.datatype}, which has no typed contents.",
            cure="Send it as raw_input_contents.",
            tensor=spec.name,
        )
    count = math.prod(shape)
    # Every element has a byte at least: more than there can be need no memory.
    array = np.empty(min(count, contents.size), DATATYPES[spec.datatype])
    found = 0
    for values in _values(spec, field, contents):
        stop = found + len(values)
        if stop <= len(array):
            array[found:stop] = _elements(spec, values)
        found = stop
    if found != count:
        raise InvalidTensor(
            f"Input '{spec.name}' has {found} elements that do not make {spec.datatype} "
            f"{list(shape)}.",
            cure=f"Send {count} elements in {field}, row by row.",
            tensor=spec.name,
        )
    return array.reshape(shape)


def _values(spec: TensorSpec, field: str, contents: TypedContents) -> Iterator[Sequence[Any]]:
    """Yields the elements in their order."""
    for message in contents.messages:
        for descriptor, values in message.ListFields():
            if descriptor.name != field:
                raise InvalidTensor(
                    f"Input '{spec.name}' has elements in {descriptor.name}; those of "
                    f"{spec.datatype} stand in {field}.",
                    cure=f"Send all of them in {field}, or raw.",
                    tensor=spec.name,
                )
            yield values


def _elements(spec: TensorSpec, values: Sequence[Any]) -> Array:
    """Returns elements as an array of one dimension."""
    if spec.datatype == "BYTES":
        return string_array(spec, values)
    try:
        return np.fromiter(values, DATATYPES[spec.datatype], count=len(values))
    except OverflowError as error:
        raise InvalidTensor(
            f"Input '{spec.name}' holds a number that is out of {spec.datatype}'s range.",
            cure="Convert the numbers to the model's datatype.",
            tensor=spec.name,
        ) from error


def cut(contents: memoryview) -> Iterator[Buffer]:
    """Yields serialized InferTensorContents of some `PIECE_BYTES` that merge into the given one.

    Raises:
        InvalidRequest: The bytes are no message.
    """
    start = position = 0
    end = len(contents)
    while position < end:
        if position - start >= PIECE_BYTES:
            yield contents[start:position]
            start = position
        # Short strings are the many fields that a message of numbers does not have.
        if contents[position] == _STRING_TAG and position + 1 < end:
            length = contents[position + 1]
            if length < 0x80:
                position += 2 + length
                continue
        number, packed, after = _field(contents, position)
        if packed is not None and len(packed) > PIECE_BYTES and number != _BYTES_CONTENTS:
            yield contents[start:position]
            yield from _cut_packed(number, packed)
            start = after
        position = after
    if position > end:
        raise InvalidRequest("The message is cut off inside a string.")
    yield contents[start:]


def _field(contents: memoryview, position: int) -> tuple[int, memoryview | None, int]:
    """Returns the number of a field, its bytes if it has a length, and where it ends."""
    field = next(wire.fields(contents[position:]))
    if field.wire_type == wire.BYTES:
        _, at = wire.read_varint(contents, position)
        length, at = wire.read_varint(contents, at)
        return field.number, field.view, at + length
    _, at = wire.read_varint(contents, position)
    if field.wire_type == wire.VARINT:
        _, at = wire.read_varint(contents, at)
        return field.number, None, at
    return field.number, None, at + (8 if field.wire_type == wire.FIXED64 else 4)


def _cut_packed(number: int, packed: memoryview) -> Iterator[bytes]:
    """Yields messages that hold the numbers of a packed field."""
    start, end = 0, len(packed)
    while start < end:
        stop = min(end, start + PIECE_BYTES)
        if number not in _FIXED_SIZE:
            # The last byte of a number is the one below 128.
            longest = min(end, stop + _LONGEST_NUMBER)
            while stop < longest and packed[stop - 1] > 0x7F:
                stop += 1
        part = packed[start:stop]
        yield wire.bytes_head(number, len(part)) + part
        start = stop
