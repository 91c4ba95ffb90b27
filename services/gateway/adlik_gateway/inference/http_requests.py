"""Requests over HTTP: headers, body in pieces, compression, and clients that go away."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from types import TracebackType
from typing import Any

from adlik_common.errors import Cancelled, InvalidRequest, TooLarge

from adlik_gateway.inference.http_compression import Inflater, content_encoding

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# Deflate makes at most 1032 bytes of one: this many are decompressed within a millisecond.
INLINE_DECOMPRESS_BYTES = 1024
DISCONNECT_WATCH_SECONDS = 0.02


def number(headers: Mapping[bytes, bytes], name: bytes) -> int:
    """Returns the whole number in a header, 0 where it is not set."""
    text = headers.get(name)
    if text is None:
        return 0
    text = text.strip()
    if not (text.isdigit() and len(text) <= 18):
        raise InvalidRequest(
            f"The header {name.decode()} is '{text[:40].decode('latin-1')}', no whole number."
        )
    return int(text)


async def read_body(
    receive: Receive, headers: Mapping[bytes, bytes], limit: int
) -> tuple[bytes, ...]:
    """Returns the body in the pieces it came in, decompressed where it says so.

    Raises:
        TooLarge: It is larger than `limit` bytes, before or after decompression.
        InvalidRequest: Its compression is unknown or broken.
        Cancelled: The client went away before it was whole.
    """
    encoding = content_encoding(headers.get(b"content-encoding", b""))
    if number(headers, b"content-length") > limit:
        raise _too_large(limit)
    pieces: list[bytes] = []
    total, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Cancelled("The client went away before its request was whole.")
        piece, more = message.get("body", b""), message.get("more_body", False)
        total += len(piece)
        if total > limit:
            raise _too_large(limit)
        if piece:
            pieces.append(piece)
    if not encoding:
        return tuple(pieces)
    if total <= INLINE_DECOMPRESS_BYTES:
        return (decompress(pieces, encoding, limit),)
    return (await asyncio.to_thread(decompress, pieces, encoding, limit),)


def decompress(pieces: Sequence[bytes], encoding: bytes, limit: int) -> bytes:
    """Returns the decompressed body, never making much more than `limit` bytes of it."""
    inflater = Inflater(encoding)
    out: list[bytes] = []
    room = limit
    for piece in pieces:
        for made in inflater.feed(piece):
            room -= len(made)
            if room < 0:
                raise _too_large(limit)
            out.append(made)
    inflater.end()
    return b"".join(out)


class CancelOnDisconnect:
    """A block that is cancelled, as `Cancelled`, when the HTTP client goes away.

    Watching costs a task, so it begins only for blocks that last.
    """

    __slots__ = ("_gone", "_receive", "_task", "_timer", "_watcher")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> None:
        self._task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(DISCONNECT_WATCH_SECONDS, self._begin, loop)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        if self._gone and kind is asyncio.CancelledError and self._task is not None:
            self._task.uncancel()
            raise Cancelled("The client went away.") from error

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watcher = loop.create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._task is not None:
            self._gone = True
            self._task.cancel()


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"The request's body is larger than {limit} bytes.",
        cure="Send smaller batches, or raise ADLIK_MAX_REQUEST_BYTES.",
        limit_bytes=limit,
    )
