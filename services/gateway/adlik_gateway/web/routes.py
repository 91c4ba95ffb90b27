"""The control plane over HTTP: JSON forms of the control messages under /v1."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import orjson
from adlik_common.errors import AdlikError, Internal, InvalidRequest, NotFound, to_proto
from adlik_common.health import health_routes
from adlik_common.service import Context
from adlik_proto.adlik.control.v1 import control_pb2
from google.protobuf import json_format
from google.protobuf.message import Message
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from adlik_gateway.control.operations import Control
from adlik_gateway.web.multipart import decoded, push_parts
from adlik_gateway.web.openapi import document, page

log = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 10.0
MAX_BODY_BYTES = 64 * 1024

M = TypeVar("M", bound=Message)
Endpoint = Callable[[Request], Awaitable[Response]]


class Api:
    """The endpoints; each says what it does in its docstring, which the OpenAPI page shows."""

    def __init__(self, context: Context, control: Control) -> None:
        self._context, self._control = context, control

    def routes(self, unready: Callable[[], str]) -> list[Route]:
        """Returns all routes of the control plane, the probes and the documentation."""
        name = "/v1/models/{name}"
        table: list[tuple[str, str, Endpoint]] = [
            # The whole path, so that a name with a slash is told to be no name.
            ("POST", "/v1/models/{name:path}/versions", self.push),
            ("GET", "/v1/models", self.list_models),
            ("GET", name, self.get_model),
            ("DELETE", name, self.delete_model),
            ("GET", name + "/versions/{version:int}", self.get_version),
            ("GET", name + "/versions/{version:int}/variants/{variant}/artifact", self.artifact),
            ("POST", f"{name}/release", self.release),
            ("POST", f"{name}/rollback", self.rollback),
            ("GET", "/v1/watch", self.watch),
            ("GET", "/v1/jobs", self.jobs),
            ("GET", "/v1/replicas", self.replicas),
            ("GET", "/v1/traces", self.find_trace),
            ("GET", "/v1/traces/{trace_id}", self.get_trace),
        ]
        described = document(table)

        async def openapi(_: Request) -> Response:
            return JSONResponse(described)

        async def docs(_: Request) -> Response:
            return HTMLResponse(page(described))

        return [
            *(
                Route(path, _guarded(endpoint), methods=[method])
                for method, path, endpoint in table
            ),
            Route("/openapi.json", openapi),
            Route("/docs", docs),
            *health_routes(unready),
        ]

    async def push(self, request: Request) -> Response:
        """Pushes a model: multipart parts `plan`, `model`, `samples`, `external`."""
        parts = push_parts(request, request.path_params["name"])
        traceparent = request.headers.get("traceparent", "")
        response = await self._control.push(parts, traceparent)
        return json_response(response, 201 if response.created else 200)

    async def list_models(self, _: Request) -> Response:
        """Lists all models with their versions, variants and releases."""
        return json_response(control_pb2.ListModelsResponse(models=self._control.view.models()))

    async def get_model(self, request: Request) -> Response:
        """Shows a model."""
        return json_response(self._control.view.model(request.path_params["name"]))

    async def delete_model(self, request: Request) -> Response:
        """Deletes a model and all its versions."""
        await self._control.delete(request.path_params["name"])
        return JSONResponse({})

    async def get_version(self, request: Request) -> Response:
        """Shows a version; 0 is the newest."""
        path = request.path_params
        return json_response(self._control.view.version(path["name"], path["version"]))

    async def artifact(self, request: Request) -> Response:
        """Downloads a variant's compiled model."""
        path = request.path_params
        record = self._control.view.version(path["name"], path["version"])
        for variant in record.variants:
            if variant.compiled.variant == path["variant"]:
                ref = variant.compiled.artifact
                chunks = self._context.artifacts.open(ref)
                headers = {"content-length": str(ref.size_bytes)}
                return StreamingResponse(chunks, media_type=ref.media_type, headers=headers)
        raise NotFound(f"'{path['name']}' has no variant '{path['variant']}'.")

    async def release(self, request: Request) -> Response:
        """Serves a chosen variant: {"version": 0, "variant": "..."}."""
        chosen = await _body(request, control_pb2.ReleaseModelRequest())
        name = request.path_params["name"]
        return json_response(await self._control.release(name, chosen.version, chosen.variant))

    async def rollback(self, request: Request) -> Response:
        """Serves again what was served before."""
        return json_response(await self._control.rollback(request.path_params["name"]))

    async def watch(self, request: Request) -> Response:
        """Streams changes as server-sent events; ?name= for one model."""
        news = self._control.watch(request.query_params.get("name", ""))
        return StreamingResponse(_events(news), media_type="text/event-stream")

    async def jobs(self, _: Request) -> Response:
        """Shows what waits, runs and was given up."""
        return json_response(await self._control.jobs())

    async def replicas(self, _: Request) -> Response:
        """Lists every running service process."""
        return json_response(self._control.replicas())

    async def find_trace(self, request: Request) -> Response:
        """Shows the trace of a model's newest push (?model=) or the last one (?last=inference)."""
        query = request.query_params
        wanted = control_pb2.GetTraceRequest()
        if query.get("model"):
            wanted.model = query["model"]
        elif query.get("last") == "inference":
            wanted.last_inference = True
        return json_response(await self._control.trace(wanted))

    async def get_trace(self, request: Request) -> Response:
        """Shows a trace."""
        wanted = control_pb2.GetTraceRequest(trace_id=request.path_params["trace_id"])
        return json_response(await self._control.trace(wanted))


def json_response(message: Message, status: int = 200) -> Response:
    """Returns a message as JSON."""
    return Response(_json(message), status, media_type="application/json")


def error_response(error: AdlikError) -> Response:
    """Returns an error as every HTTP client of Adlik gets it."""
    said = to_proto(error)
    body = {
        "error": str(error),
        "code": said.code,
        "message": said.message,
        "cure": said.cure,
        "retryable": said.retryable,
        "details": dict(said.details),
    }
    return Response(orjson.dumps(body), error.http_status, media_type="application/json")


def _guarded(endpoint: Endpoint) -> Endpoint:
    async def guarded(request: Request) -> Response:
        try:
            return await endpoint(request)
        except AdlikError as error:
            return error_response(error)
        except Exception as error:
            log.exception("%s %s", request.method, request.url.path)
            return error_response(Internal(f"{type(error).__name__}.", cure="See the log."))

    return guarded


async def _body(request: Request, message: M) -> M:
    body = b""
    async for chunk in decoded(request):
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise InvalidRequest("The request is too large.")
    try:
        return json_format.Parse(body or b"{}", message)
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The request is no JSON of the expected form: {error}.") from error


async def _events(
    news: AsyncIterator[control_pb2.WatchModelsResponse],
) -> AsyncIterator[str]:
    """Yields server-sent events, and comments while nothing happens."""
    yield ": watching\n\n"
    pending: asyncio.Task[control_pb2.WatchModelsResponse] | None = None
    try:
        while True:
            pending = pending or asyncio.ensure_future(anext(news))
            done, _ = await asyncio.wait({pending}, timeout=KEEP_ALIVE_SECONDS)
            if not done:
                yield ": still here\n\n"
                continue
            item, pending = pending.result(), None
            yield _event(item)
    except AdlikError as error:
        yield f"event: Error\ndata: {bytes(error_response(error).body).decode()}\n\n"
    finally:
        if pending is not None:
            pending.cancel()


def _event(news: control_pb2.WatchModelsResponse) -> str:
    return f"event: {news.event}\ndata: {_json(news)}\n\n"


def _json(message: Message) -> str:
    """Returns proto3 JSON with the contract's field names, and false, 0 and [] written out."""
    return json_format.MessageToJson(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
        indent=None,
    )
