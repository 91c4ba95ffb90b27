"""The standard gRPC health service, which probes and load balancers ask: grpc.health.v1.Health."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import grpc
import grpc.aio
from adlik_common.errors import InvalidRequest
from adlik_common.wire import VARINT, fields, write_varint

SERVICE = "grpc.health.v1.Health"
LOOK_SECONDS = 1.0
_SERVING, _NOT_SERVING, _SERVICE_UNKNOWN = 1, 2, 3

Context = grpc.aio.ServicerContext[Any, Any]


class GrpcHealth:
    """The service's methods.

    Args:
        ready: By service's name, whether it takes requests; "" is the whole server.
        changed: Waits some seconds for something that `ready` may depend on.
        stopping: Whether the server is about to stop.
    """

    def __init__(
        self,
        ready: Mapping[str, Callable[[], bool]],
        changed: Callable[[float], Awaitable[object]],
        stopping: Callable[[], bool],
    ) -> None:
        self._ready, self._changed, self._stopping = ready, changed, stopping

    def handler(self) -> grpc.GenericRpcHandler:
        """Returns the service for `add_generic_rpc_handlers`."""
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Check": grpc.unary_unary_rpc_method_handler(self._check),
            "Watch": grpc.unary_stream_rpc_method_handler(self._watch),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def _check(self, request: bytes, context: Context) -> bytes:
        status = self._status(_service(request))
        if status == _SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "There is no such service here.")
        return _answer(status)

    async def _watch(self, request: bytes, _: Context) -> AsyncIterator[bytes]:
        """Yields a service's status, and again whenever it changes."""
        service, told = _service(request), 0
        while True:
            stopping, status = self._stopping(), self._status(service)
            if status != told:
                yield _answer(status)
                told = status
            if stopping:
                return
            await self._changed(LOOK_SECONDS)

    def _status(self, service: str) -> int:
        ready = self._ready.get(service)
        if ready is None:
            return _SERVICE_UNKNOWN
        return _SERVING if ready() and not self._stopping() else _NOT_SERVING


def _service(request: bytes) -> str:
    """Returns the name in a serialized HealthCheckRequest: its field 1.

    Probes are often written by hand, bytes and all. One whose bytes can't be read gets the answer
    for the whole server, which is what every probe is for, rather than an error that means "down".
    """
    try:
        return next((field.text for field in fields(request) if field.number == 1), "")
    except InvalidRequest:
        return ""


def _answer(status: int) -> bytes:
    """Returns a serialized HealthCheckResponse: the status is its field 1."""
    return write_varint(1 << 3 | VARINT) + write_varint(status)
