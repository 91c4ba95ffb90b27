"""uvicorn's HTTP/1.1, with what it lacks for inference.

One write per answer: a second one would wake the client twice. Offers to change the protocol (every
stock Java client offers h2c) are passed over, as RFC 9110 allows: the request behind the offer is
read and answered as any other. Requests that can't be read are answered in JSON.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

import httptools
from adlik_common.errors import InvalidRequest
from adlik_common.link import Buffer
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from adlik_gateway.inference.calls import size
from adlik_gateway.inference.http_answers import error_answer

JOIN_BYTES = 64 * 1024
_HOLD = "adlik.hold_head"
_OF_THE_OFFER = frozenset((b"upgrade", b"http2-settings"))


def hold_head(scope: MutableMapping[str, Any]) -> None:
    """Has the head of the answer wait for its body, which must follow at once.

    Args:
        scope: Of an ASGI request, not of HEAD; served by another protocol nothing happens.
    """
    if hold := scope.get(_HOLD):
        hold()


class HttpProtocol(HttpToolsProtocol):
    """For uvicorn's setting `http`."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Takes a new connection."""
        super().connection_made(_HeldHead(transport))

    def on_message_begin(self) -> None:
        """Begins a request."""
        super().on_message_begin()
        extended: MutableMapping[str, Any] = self.scope  # type: ignore[assignment]  # ours is no field of ASGI
        extended[_HOLD] = self.transport.hold  # type: ignore[attr-defined]  # set above

    def data_received(self, data: bytes) -> None:
        """Reads what came; goes on behind the head of a request that offers another protocol."""
        self._unset_keepalive_if_required()
        rest = memoryview(data)
        try:
            while (behind := self._feed(rest)) is not None:
                if self.parser.get_method() == b"CONNECT":
                    self.send_400_response("CONNECT is not answered here.")
                    return
                head, rest = self._head_without_offer(), rest[behind:]
                # The parser leaves what follows an offer to the other protocol; a new one does not.
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
                self.parser.feed_data(head)
        except httptools.HttpParserError:
            self.send_400_response("The bytes are not an HTTP/1.1 request.")

    def _feed(self, data: memoryview) -> int | None:
        """Has bytes parsed; returns where a request ends that offers another protocol."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            return int(offer.args[0])
        return None

    def on_headers_complete(self) -> None:
        """Begins to answer; of a request that makes an offer only once it is read without it."""
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Ends a request's body; that of an offer has not been read yet."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def _head_without_offer(self) -> bytes:
        """Returns the head that was just read, as the client would write it without its offer."""
        version = self.parser.get_http_version().encode()
        lines = [b" ".join((self.parser.get_method(), self.url, b"HTTP/" + version))]
        for name, value in self.headers:
            if name == b"connection":
                options = [option.strip() for option in value.split(b",")]
                left = b", ".join(o for o in options if o.lower() not in _OF_THE_OFFER)
                lines.append(b": ".join((name, left)))
            elif name not in _OF_THE_OFFER:
                lines.append(b": ".join((name, value)))
        return b"\r\n".join((*lines, b"", b""))

    def send_400_response(self, msg: str) -> None:
        """Answers what can't be read, and hangs up: where the next request begins is unknown."""
        answer = error_answer(InvalidRequest(msg))
        headers = (*answer.headers, (b"content-length", b"%d" % size(answer.body)))
        lines = [b": ".join(header) for header in headers]
        head = b"\r\n".join((b"HTTP/1.1 400 Bad Request", *lines, b"connection: close", b"", b""))
        self.transport.write(head + bytes(answer.body))
        self.transport.close()


class _HeldHead(asyncio.Transport):
    """A transport that may keep one write back and send it with the next."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport
        self._holding = False
        self._held: Buffer = b""

    def hold(self) -> None:
        """Keeps the next write back."""
        self._holding = True

    def write(self, data: Buffer) -> None:
        if self._holding:
            self._holding, self._held = False, data
        elif not self._held:
            self._transport.write(data)
        else:
            held, self._held = self._held, b""
            if size(data) > JOIN_BYTES:
                self._transport.writelines((held, data))
            else:
                self._transport.write(b"".join((held, data)))

    def close(self) -> None:
        if self._held:
            self.write(b"")
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)
