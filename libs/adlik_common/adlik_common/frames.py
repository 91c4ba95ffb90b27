"""The link's frames: cut out of a byte stream, and written into one.

A frame is a fixed header, a small head and a body that is passed on as it is. Bodies larger than
the read buffer are received straight into their final place.

Frame header, little endian: magic "AL", kind u8, unused u8, head length u32, request id u64,
body length u64.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from typing import cast

import numpy as np

from adlik_common.errors import InvalidRequest

Buffer = bytes | bytearray | memoryview

HEADER = struct.Struct("<2sBxIQQ")
MAGIC = b"AL"
REQUEST, RESPONSE, ERROR, CANCEL = 1, 2, 3, 4
READ_BUFFER_BYTES = 256 * 1024
# Below this a copy costs less than a write of several buffers.
JOIN_BYTES = 64 * 1024
# Of a cache line, and of the widest vector registers.
ALIGNMENT = 64
MAX_HEAD_BYTES = 1 << 20


class LinkLost(Exception):
    """The connection ended before the answer came; an inference may be tried on another replica."""


class Frames(asyncio.BufferedProtocol):
    """One end of a connection; subclasses take the frames that come in `on_frame`.

    Args:
        max_body_bytes: A frame with a larger body ends the connection.
    """

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body = max_body_bytes
        self._scratch = memoryview(bytearray(READ_BUFFER_BYTES))
        self._filled = 0
        # A frame whose body is still arriving in a buffer of its own.
        self._large: tuple[int, int, bytes, memoryview] | None = None
        self._large_filled = 0
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the transport."""
        # Not checked by class: uvloop has transports of its own.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """Forgets the transport and lets nobody wait for it."""
        self._transport = None
        self._writable.set()

    def pause_writing(self) -> None:
        """The transport has enough for now."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The transport takes more."""
        self._writable.set()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Returns where the next bytes go."""
        if self._large is not None:
            return self._large[3][self._large_filled :]
        return self._scratch[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Takes the bytes that have come."""
        if self._large is None:
            self._filled += nbytes
            try:
                self._cut()
            except InvalidRequest:
                self.close()
            return
        self._large_filled += nbytes
        kind, request_id, head, body = self._large
        if self._large_filled == len(body):
            self._large = None
            self.on_frame(kind, request_id, head, body)

    def _cut(self) -> None:
        """Hands on every whole frame in the read buffer and moves the rest to its front."""
        start = 0
        while self._filled - start >= HEADER.size:
            magic, kind, head_length, request_id, body_length = HEADER.unpack_from(
                self._scratch, start
            )
            if magic != MAGIC or head_length > MAX_HEAD_BYTES or body_length > self._max_body:
                raise InvalidRequest("The other side does not speak this link's protocol.")
            body_start = start + HEADER.size + head_length
            if head_length + HEADER.size > READ_BUFFER_BYTES:
                raise InvalidRequest("The frame's head is larger than the read buffer.")
            if self._filled < body_start:
                break
            head = bytes(self._scratch[start + HEADER.size : body_start])
            if self._filled - body_start >= body_length:
                start = body_start + body_length
                self.on_frame(kind, request_id, head, bytes(self._scratch[body_start:start]))
                continue
            if body_length + body_start - start <= READ_BUFFER_BYTES // 2:
                break
            body = _end_aligned(body_length)
            self._large_filled = self._filled - body_start
            body[: self._large_filled] = self._scratch[body_start : self._filled]
            self._large = (kind, request_id, head, body)
            start = self._filled
        rest = self._filled - start
        if start and rest:
            self._scratch[:rest] = bytes(self._scratch[start : self._filled])
        self._filled = rest

    def send(self, kind: int, request_id: int, head: bytes, body: Sequence[Buffer] = ()) -> None:
        """Writes a frame; raises `LinkLost` when the connection is gone."""
        if self._transport is None or self._transport.is_closing():
            raise LinkLost("The connection to the other service is closed.")
        length = sum(map(_size, body))
        header = HEADER.pack(MAGIC, kind, len(head), request_id, length)
        if length <= JOIN_BYTES:
            self._transport.write(b"".join((header, head, *body)))
        else:
            self._transport.writelines([header + head, *body])

    @property
    def alive(self) -> bool:
        """Whether frames can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def writable(self) -> bool:
        """Whether the socket takes more."""
        return self._writable.is_set()

    async def wait_writable(self) -> None:
        """Waits until the socket takes more."""
        await self._writable.wait()

    def close(self) -> None:
        """Ends the connection."""
        if self._transport is not None:
            self._transport.close()

    def on_frame(self, kind: int, request_id: int, head: bytes, body: Buffer) -> None:
        """Takes a frame; a large body is a memoryview whose end is aligned to `ALIGNMENT` bytes."""
        raise NotImplementedError


def _end_aligned(length: int) -> memoryview:
    """Returns fresh memory whose end is aligned, so that the tensor that ends a body is, too.

    A tensor's size is a multiple of its elements', so engines take it where it lies.
    """
    memory = np.empty(length + ALIGNMENT, np.uint8)
    start = -(memory.ctypes.data + length) % ALIGNMENT
    return memory[start : start + length].data


def _size(buffer: Buffer) -> int:
    return buffer.nbytes if isinstance(buffer, memoryview) else len(buffer)
