"""The direct link from gateway to serving: requests in frames on a Unix or TCP socket.

Many requests share a connection and may be answered in any order; each can be cancelled. Chosen by
measurement over gRPC and NATS (docs/adr/0003-tensor-link.md, benchmarks/link.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from adlik_common import addresses
from adlik_common.errors import InvalidRequest
from adlik_common.frames import CANCEL, ERROR, REQUEST, RESPONSE, Buffer, Frames, LinkLost

__all__ = [
    "Buffer",
    "IncomingRequest",
    "LinkClient",
    "LinkLost",
    "LinkServer",
    "RemoteError",
    "Reply",
]

CONNECT_SECONDS = 2.0
DEFAULT_MAX_BODY_BYTES = 1 << 30


class RemoteError(Exception):
    """The other side answered with an error frame.

    Attributes:
        head: Serialized adlik.link.v1.ErrorHead.
    """

    def __init__(self, head: bytes) -> None:
        super().__init__("error frame")
        self.head = head


class Reply(NamedTuple):
    """An answer: its head and its body."""

    head: bytes
    body: Buffer


class _ClientConnection(Frames):
    """The asking end: one future per request under way."""

    def __init__(self, max_body_bytes: int) -> None:
        super().__init__(max_body_bytes)
        self.pending: dict[int, asyncio.Future[Reply]] = {}
        self.lost = asyncio.get_running_loop().create_future()

    def on_frame(self, kind: int, request_id: int, head: bytes, body: Buffer) -> None:
        future = self.pending.pop(request_id, None)
        if future is None or future.done():  # cancelled meanwhile
            return
        if kind == ERROR:
            future.set_exception(RemoteError(head))
        else:
            future.set_result(Reply(head, body))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        pending, self.pending = self.pending, {}
        for future in pending.values():
            if not future.done():
                future.set_exception(LinkLost("The replica went away before it answered."))
        if not self.lost.done():
            self.lost.set_result(None)


class LinkClient:
    """Asks one replica, many requests at once on one connection.

    Args:
        address: "unix:///path" or "tcp://host:port", IPv6 addresses in brackets.
        max_body_bytes: Largest answer that is accepted.
    """

    def __init__(self, address: str, *, max_body_bytes: int = DEFAULT_MAX_BODY_BYTES) -> None:
        self.address = address
        self._max_body = max_body_bytes
        self._ids = itertools.count(1)
        self._connection: _ClientConnection | None = None
        self._connecting = asyncio.Lock()

    @property
    def in_flight(self) -> int:
        """Requests that have not been answered."""
        return len(self._connection.pending) if self._connection else 0

    async def request(self, head: bytes, *body: Buffer) -> Reply:
        """Sends a request and returns the answer.

        Raises:
            RemoteError: The replica answered with an error.
            LinkLost: It could not be reached, or went away before it answered.
        """
        connection = self._connection
        if connection is None or not connection.alive:
            connection = await self._connect()
        if not connection.writable:
            await connection.wait_writable()
        request_id = next(self._ids)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        connection.pending[request_id] = future
        try:
            connection.send(REQUEST, request_id, head, body)
            return await future
        except asyncio.CancelledError:
            if connection.pending.pop(request_id, None) is not None:
                with contextlib.suppress(LinkLost):
                    connection.send(CANCEL, request_id, b"")
            raise
        finally:
            connection.pending.pop(request_id, None)

    async def _connect(self) -> _ClientConnection:
        async with self._connecting:
            if self._connection is None or not self._connection.alive:
                loop = asyncio.get_running_loop()
                where = _endpoint(self.address)

                def protocol() -> _ClientConnection:
                    return _ClientConnection(self._max_body)

                try:
                    async with asyncio.timeout(CONNECT_SECONDS):
                        if isinstance(where, str):
                            _, connection = await loop.create_unix_connection(protocol, where)
                        else:
                            _, connection = await loop.create_connection(protocol, *where)
                except (OSError, TimeoutError) as error:
                    raise LinkLost(f"No replica answers at {self.address}: {error}.") from error
                self._connection = connection
            return self._connection

    async def close(self) -> None:
        """Ends the connection; requests under way fail with `LinkLost`."""
        if self._connection is not None:
            lost = self._connection.lost
            self._connection.close()
            await lost


class IncomingRequest:
    """A request that waits for exactly one `respond` or `fail`.

    Attributes:
        head: Serialized head.
        body: The body as it was sent.
        cancelled: The asking side has lost interest: no work need be started.
    """

    __slots__ = ("_connection", "_id", "body", "cancelled", "head")

    def __init__(
        self, connection: _ServerConnection, request_id: int, head: bytes, body: Buffer
    ) -> None:
        self._connection, self._id = connection, request_id
        self.head, self.body = head, body
        self.cancelled = False

    def respond(self, head: bytes, *body: Buffer) -> None:
        """Answers; a caller that is gone is no error."""
        self._send(RESPONSE, head, body)

    def fail(self, head: bytes) -> None:
        """Answers with a serialized adlik.link.v1.ErrorHead."""
        self._send(ERROR, head, ())

    def _send(self, kind: int, head: bytes, body: Sequence[Buffer]) -> None:
        if self._connection.requests.pop(self._id, None) is None or self.cancelled:
            return
        with contextlib.suppress(LinkLost):
            self._connection.send(kind, self._id, head, body)


Handler = Callable[[IncomingRequest], None]


class _ServerConnection(Frames):
    """The answering end: hands every request to the handler, which answers when it likes."""

    def __init__(
        self, handler: Handler, max_body_bytes: int, peers: set[_ServerConnection]
    ) -> None:
        super().__init__(max_body_bytes)
        self._handler, self._peers = handler, peers
        self.requests: dict[int, IncomingRequest] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._peers.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._peers.discard(self)
        for request in self.requests.values():
            request.cancelled = True
        self.requests.clear()

    def on_frame(self, kind: int, request_id: int, head: bytes, body: Buffer) -> None:
        if kind == CANCEL:
            request = self.requests.pop(request_id, None)
            if request is not None:
                request.cancelled = True
            return
        request = IncomingRequest(self, request_id, head, body)
        self.requests[request_id] = request
        self._handler(request)


class LinkServer:
    """Answers requests; `handler` is called on the event loop and must not block.

    Args:
        handler: Takes each request and answers it, now or later.
        max_body_bytes: Largest request that is accepted; a larger one ends its connection.
    """

    def __init__(self, handler: Handler, *, max_body_bytes: int = DEFAULT_MAX_BODY_BYTES) -> None:
        self._handler, self._max_body = handler, max_body_bytes
        self._peers: set[_ServerConnection] = set()
        self._server: asyncio.Server | None = None
        self.address = ""

    async def start(self, address: str) -> str:
        """Listens on "unix:///path" or "tcp://host:port" (port 0: any) and returns the address."""
        loop = asyncio.get_running_loop()
        where = _endpoint(address)

        def protocol() -> _ServerConnection:
            return _ServerConnection(self._handler, self._max_body, self._peers)

        if isinstance(where, str):
            path = Path(where)
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.unlink(missing_ok=True)
            self._server = await loop.create_unix_server(protocol, where)
            self.address = address
        else:
            listener = addresses.listener(*where)
            self._server = await loop.create_server(protocol, sock=listener)
            self.address = f"tcp://{addresses.joined(where[0], listener.getsockname()[1])}"
        return self.address

    @property
    def in_flight(self) -> int:
        """Requests that have not been answered."""
        return sum(len(peer.requests) for peer in self._peers)

    async def stop(self, drain_seconds: float) -> None:
        """Waits for the requests in hand, then ends every connection."""
        if self._server is None:
            return
        self._server.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain_seconds):
                while self.in_flight:
                    await asyncio.sleep(0.01)
        for peer in list(self._peers):
            peer.close()
        while self._peers:
            await asyncio.sleep(0)
        where = _endpoint(self.address)
        if isinstance(where, str):
            Path(where).unlink(missing_ok=True)


def _endpoint(address: str) -> str | tuple[str, int]:
    """Returns the path of a Unix socket, or host and port."""
    try:
        url = urlsplit(address)
        if url.scheme == "unix":
            return url.path
        if url.scheme == "tcp" and url.hostname and url.port is not None:
            return url.hostname, url.port
    except ValueError:  # brackets that do not close, a port that is no number
        pass
    raise InvalidRequest(
        f"'{address}' is not a link address.",
        cure="Use unix:///path or tcp://host:port, with an IPv6 address in brackets.",
    )
