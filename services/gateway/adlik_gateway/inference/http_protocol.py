"""uvicorn's HTTP/1.1 with one write per answer: a second one would wake the client twice."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

from adlik_common.link import Buffer
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from adlik_gateway.inference.calls import size

JOIN_BYTES = 64 * 1024
_HOLD = "adlik.hold_head"


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
