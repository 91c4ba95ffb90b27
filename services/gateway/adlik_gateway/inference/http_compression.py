"""Compressed bodies: gzip of any number of members, deflate with zlib's head or without it."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

from adlik_common.errors import InvalidRequest

CHUNK_BYTES = 1 << 20
FEED_BYTES = 64 * 1024
MAX_MEMBERS = 10_000
_NAMES = {b"gzip": b"gzip", b"x-gzip": b"gzip", b"deflate": b"deflate"}
_ZLIB_METHOD = 8  # of zlib's head, RFC 1950


class _Decompressor(Protocol):
    """What `zlib.decompressobj` returns."""

    @property
    def eof(self) -> bool: ...

    @property
    def unconsumed_tail(self) -> bytes: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def content_encoding(header: bytes) -> bytes:
    """Returns what a Content-Encoding header stands for: b"gzip", b"deflate", or b"" for nothing.

    Raises:
        InvalidRequest: It is another encoding, or several.
    """
    names = [name for part in header.lower().split(b",") if (name := part.strip())]
    applied = [name for name in names if name != b"identity"]
    if not applied:
        return b""
    if len(applied) > 1 or applied[0] not in _NAMES:
        raise InvalidRequest(
            f"The content encoding '{header[:40].decode('latin-1')}' is not known.",
            cure="Use gzip or deflate, or send the body as it is.",
        )
    return _NAMES[applied[0]]


class Inflater:
    """Decompresses a body piece by piece; nothing behind its end is thrown away silently.

    Args:
        encoding: b"gzip" or b"deflate".
    """

    def __init__(self, encoding: bytes) -> None:
        self._encoding = encoding
        self._current: _Decompressor | None = None
        self._members = 0
        self._start = b""

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Yields what a piece stands for, at most `CHUNK_BYTES` at once.

        Raises:
            InvalidRequest: The bytes are not of this encoding.
        """
        for at in range(0, len(piece), FEED_BYTES):
            yield from self._feed(piece[at : at + FEED_BYTES])

    def _feed(self, data: bytes) -> Iterator[bytes]:
        more = False  # what the decompressor holds back, all its input taken
        while data or more:
            if self._current is None or self._current.eof:
                self._start += data
                if len(self._start) < 2:  # the two bytes that zlib's head would have
                    return
                data, self._start = self._start, b""
                self._current = self._begin(data)
            try:
                made = self._current.decompress(data, CHUNK_BYTES)
            except zlib.error as error:
                name = self._encoding.decode()
                raise InvalidRequest(f"The body is not {name} data: {error}.") from error
            if made:
                yield made
            ended = self._current.eof
            data = self._current.unused_data if ended else self._current.unconsumed_tail
            more = not ended and len(made) == CHUNK_BYTES

    def _begin(self, data: bytes) -> _Decompressor:
        """Returns the decompressor of the member that begins with `data`."""
        self._members += 1
        if self._encoding == b"gzip":
            if self._members > MAX_MEMBERS:
                raise InvalidRequest(f"The gzip data has more than {MAX_MEMBERS} members.")
            return zlib.decompressobj(zlib.MAX_WBITS | 16)
        if self._members > 1:
            raise InvalidRequest("There are bytes behind the end of the deflate data.")
        has_head = data[0] & 15 == _ZLIB_METHOD and int.from_bytes(data[:2]) % 31 == 0
        return zlib.decompressobj(zlib.MAX_WBITS if has_head else -zlib.MAX_WBITS)

    def end(self) -> None:
        """Raises `InvalidRequest` unless the data that was fed is whole."""
        if self._start or self._current is None or not self._current.eof:
            raise InvalidRequest(f"The {self._encoding.decode()} data of the body is cut off.")


async def inflated(pieces: AsyncIterator[bytes], header: bytes) -> AsyncIterator[bytes]:
    """Yields a body as it was before the encoding that its Content-Encoding header names.

    Raises:
        InvalidRequest: The encoding is unknown, or the bytes are not of it.
    """
    encoding = content_encoding(header)
    if not encoding:
        async for piece in pieces:
            yield piece
        return
    inflater = Inflater(encoding)
    async for piece in pieces:
        chunks = inflater.feed(piece)
        while (chunk := await asyncio.to_thread(next, chunks, None)) is not None:
            yield chunk
    inflater.end()
