"""Reads protobuf messages field by field in place: large fields are neither parsed nor copied.

Used where only a little of a big message matters: the model's name in an inference request that
is forwarded, the signature of a pushed ONNX file. Source: the protobuf encoding specification.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from adlik_common.errors import InvalidRequest

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Field(NamedTuple):
    """One field of a message, where it lies.

    Attributes:
        number: Field number.
        wire_type: VARINT, FIXED64, BYTES or FIXED32.
        value: The number for VARINT; otherwise the bytes, as a view of the message.
    """

    number: int
    wire_type: int
    value: int | memoryview

    @property
    def view(self) -> memoryview:
        """The bytes; raises `InvalidRequest` for a number, of fixed size too.

        Protobuf skips a known field of another wire type: who took it would read another message.
        """
        if isinstance(self.value, int) or self.wire_type != BYTES:
            raise InvalidRequest(f"Field {self.number} is a number where bytes were expected.")
        return self.value

    @property
    def text(self) -> str:
        """The bytes as UTF-8; raises `InvalidRequest` where they are not."""
        try:
            return str(self.view, "utf-8")
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"Field {self.number} is not UTF-8 text.") from error

    @property
    def signed(self) -> int:
        """The number as int64 (protobuf's two's complement); raises `InvalidRequest` for bytes."""
        if not isinstance(self.value, int):
            raise InvalidRequest(f"Field {self.number} is bytes where a number was expected.")
        return self.value - (1 << 64) if self.value >> 63 else self.value


def fields(message: bytes | bytearray | memoryview) -> Iterator[Field]:
    """Yields the top-level fields of a serialized message in the order they are written.

    Raises:
        InvalidRequest: The bytes end inside a field or use a wire type that does not exist.
    """
    view = memoryview(message)
    position, end = 0, len(view)
    while position < end:
        tag, position = read_varint(view, position)
        number, wire_type = tag >> 3, tag & 7
        if number == 0:
            raise InvalidRequest(f"Not a protobuf message: field number 0 at byte {position}.")
        if wire_type == VARINT:
            value, position = read_varint(view, position)
            yield Field(number, wire_type, value)
            continue
        if wire_type == BYTES:
            length, position = read_varint(view, position)
        elif wire_type in (FIXED64, FIXED32):
            length = 8 if wire_type == FIXED64 else 4
        else:
            raise InvalidRequest(f"Not a protobuf message: wire type {wire_type}.")
        if length > end - position:
            raise InvalidRequest(
                f"The message is cut off: field {number} has {length} bytes, "
                f"{end - position} are there."
            )
        yield Field(number, wire_type, view[position : position + length])
        position += length


def read_varint(view: memoryview, position: int) -> tuple[int, int]:
    """Returns the variable-length integer at a position and the position behind it."""
    result = shift = 0
    while True:
        if position >= len(view) or shift > 63:
            raise InvalidRequest("The message is cut off inside a number.")
        byte = view[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & 0xFFFFFFFFFFFFFFFF, position
        shift += 7


def bytes_head(number: int, length: int) -> bytes:
    """Returns what is written before the bytes of a length-delimited field."""
    return write_varint(number << 3 | BYTES) + write_varint(length)


def write_varint(value: int) -> bytes:
    """Returns a non-negative integer in variable-length form."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
