"""The gateway's one ASGI application: inference on the short way, the rest by routes."""

from __future__ import annotations

from adlik_common.errors import AdlikError, NotFound
from adlik_common.service import Context
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from adlik_gateway.control.operations import Control
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
        error: AdlikError = NotFound(
            f"There is no {request.method} {request.url.path}.", cure="See /docs."
        )
        return error_response(error)

    api = Starlette(
        routes=Api(context, control).routes(unready),
        exception_handlers={404: unknown, 405: unknown},
    )

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/v2"):
            await inference(scope, receive, send)
        else:
            await api(scope, receive, send)

    return app
