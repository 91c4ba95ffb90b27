"""The gateway's one ASGI application: inference on the short way, the rest by routes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from adlik_common.errors import NotFound
from adlik_common.service import Context
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from adlik_gateway.control.operations import Control
from adlik_gateway.inference.http_answers import method_answer
from adlik_gateway.web.routes import Api, error_response


def make_app(context: Context, control: Control, inference: ASGIApp) -> ASGIApp:
    """Returns the application.

    Args:
        context: The service.
        control: Answers everything under /v1.
        inference: Answers everything under /v2.
    """

    def unready() -> str:
        return "stopping" if context.stopping.is_set() else ""

    async def unknown(request: Request, _: Exception) -> Response:
        return error_response(NotFound(f"There is no {request.url.path[:200]}.", cure="See /docs."))

    routes = Api(context, control).routes(unready)

    async def wrong_method(request: Request, _: Exception) -> Response:
        answer = method_answer(_allowed(routes, request.scope))
        return Response(answer.body, answer.status, dict(_text(answer.headers)))

    api = Starlette(routes=routes, exception_handlers={404: unknown, 405: wrong_method})

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and f"{scope['path']}/".startswith("/v2/"):
            await inference(scope, receive, send)
        else:
            await api(scope, receive, send)

    return app


def _allowed(routes: Sequence[BaseRoute], scope: Scope) -> str:
    """Returns the methods that the routes of a path have together, as a header lists them."""
    methods: set[str] = set()
    for route in routes:
        if isinstance(route, Route) and route.matches(scope)[0] is not Match.NONE:
            methods |= route.methods or set()
    return ", ".join(sorted(methods))


def _text(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[str, str]]:
    for name, value in headers:
        yield name.decode(), value.decode()
