"""What an orchestrator asks a service: /healthz (alive), /readyz (ready for work) and /metrics."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from adlik_common import addresses


def health_routes(unready: Callable[[], str]) -> list[Route]:
    """Returns the three routes.

    Args:
        unready: Why the service can't take work right now, "" where it can.
    """

    async def alive(_: Request) -> Response:
        return PlainTextResponse("alive\n")

    async def ready(_: Request) -> Response:
        reason = unready()
        return PlainTextResponse(f"{reason or 'ready'}\n", 503 if reason else 200)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return [Route("/healthz", alive), Route("/readyz", ready), Route("/metrics", metrics)]


@contextlib.asynccontextmanager
async def serve_http(app: object, host: str, port: int, **options: object) -> AsyncIterator[int]:
    """Serves an ASGI app on this event loop and yields its port.

    Args:
        app: The application.
        host: Address to listen on.
        port: Port; 0: any free one.
        options: Further settings of uvicorn.
    """
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_config=None,
        access_log=False,
        lifespan="off",
        **options,  # type: ignore[arg-type]
    )
    server = _Server(config)
    listener = addresses.listener(host, port)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        listener.close()


class _Server(uvicorn.Server):
    """uvicorn, without its signal handlers: the service's own life cycle stops it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
