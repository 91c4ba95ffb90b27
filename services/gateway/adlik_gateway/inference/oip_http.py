"""The Open Inference Protocol over HTTP: an ASGI application for everything under /v2.

Plain ASGI, no framework: this is the hot path.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson
from adlik_common.errors import AdlikError, InvalidRequest, NotFound
from adlik_proto.adlik.link.v1.link_pb2 import ENCODING_JSON, ENCODING_TENSOR

from adlik_gateway.inference.calls import HTTP, Answer, Call, parse_version, size
from adlik_gateway.inference.http_answers import (
    HttpAnswer,
    error_answer,
    json_answer,
    method_answer,
    plain,
)
from adlik_gateway.inference.http_protocol import hold_head
from adlik_gateway.inference.http_requests import (
    CancelOnDisconnect,
    Receive,
    Scope,
    Send,
    number,
    read_body,
)
from adlik_gateway.inference.metadata import Metadata
from adlik_gateway.inference.recording import Recorder
from adlik_gateway.inference.router import Router

MAX_INDEX_BYTES = 64 * 1024

_BINARY = (b"content-type", b"application/octet-stream")
_JSON = (b"content-type", b"application/json")
_JSON_LENGTH = b"inference-header-content-length"
_TIMEOUT = b"x-request-timeout-ms"
_HEADERS = frozenset(
    (b"content-length", b"content-encoding", _JSON_LENGTH, _TIMEOUT, b"traceparent")
)


_READING = ("GET", "HEAD")
_STATS = "stats"
_ACTIONS = frozenset(("", "config", _STATS, "ready", "infer"))
_SERVER_PATHS = frozenset(("", "health/live", "health/ready"))


class _Target(NamedTuple):
    """What a path under /v2/models names."""

    model: str
    version: int
    action: str


class OipHttp:
    """The application.

    Args:
        router: Answers inferences.
        metadata: Answers everything else.
        recorder: Counts requests that are refused here.
        max_request_bytes: Largest body of an inference.
    """

    def __init__(
        self, router: Router, metadata: Metadata, recorder: Recorder, *, max_request_bytes: int
    ) -> None:
        self._router, self._metadata, self._recorder = router, metadata, recorder
        self._limit = max_request_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        try:
            answer = await self._answer(scope, receive)
        except Exception as error:  # noqa: BLE001 - the server's edge
            answer = error_answer(error)
        answer.headers.append((b"content-length", str(size(answer.body)).encode()))
        if scope["method"] == "POST":
            hold_head(scope)
        await send(
            {"type": "http.response.start", "status": answer.status, "headers": answer.headers}
        )
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Scope, receive: Receive) -> HttpAnswer:
        method, parts = scope["method"], scope["path"].rstrip("/").split("/")[2:]
        if parts[:1] == ["models"] and len(parts) > 1:
            target = self._target(parts[1:])
            if target.action not in _ACTIONS:
                raise _no_path("/".join(parts))
            if target.action == "infer":
                if method != "POST":
                    return method_answer("POST")
                return await self._infer(target, scope, receive)
            return self._describe(target) if method in _READING else method_answer("GET, HEAD")
        path = "/".join(parts)
        if path == "repository/index":
            if method != "POST":
                return method_answer("POST")
            body = await read_body(receive, _read_headers(scope), MAX_INDEX_BYTES)
            return self._index(b"".join(body))
        if path not in _SERVER_PATHS:
            raise _no_path(path)
        return self._server(path) if method in _READING else method_answer("GET, HEAD")

    async def _infer(self, target: _Target, scope: Scope, receive: Receive) -> HttpAnswer:
        try:
            call = await self._call(target, scope, receive)
        except AdlikError as error:
            self._recorder.refused(HTTP, error)
            raise
        with CancelOnDisconnect(receive):
            answer = await self._router.infer(call)
        return _inferred(answer)

    async def _call(self, target: _Target, scope: Scope, receive: Receive) -> Call:
        headers = _read_headers(scope)
        json_length = number(headers, _JSON_LENGTH)
        raw = _JSON_LENGTH in headers and not json_length
        timeout_ms = number(headers, _TIMEOUT)
        body = await read_body(receive, headers, self._limit)
        if json_length > (total := sum(map(len, body))):
            raise InvalidRequest(
                f"Inference-Header-Content-Length is {json_length}, "
                f"but the body has {total} bytes.",
                cure="Set it to the length of the JSON before the tensors.",
            )
        return Call(
            model=target.model,
            version=target.version,
            encoding=ENCODING_TENSOR if raw else ENCODING_JSON,
            body=body,
            protocol=HTTP,
            json_length=json_length,
            timeout=timeout_ms / 1000 if timeout_ms else None,
            traceparent=headers.get(b"traceparent", b"").decode("latin-1"),
        )

    def _describe(self, target: _Target) -> HttpAnswer:
        """Answers a GET under /v2/models."""
        model, version, action = target
        match action:
            case "":
                return json_answer(plain(self._metadata.model(model, version)))
            case "config":
                return json_answer(plain(self._metadata.config(model, version)))
            case "stats":
                return json_answer(plain(self._metadata.statistics(model, version)))
            case _:  # "ready"
                self._metadata.model(model, version)
                return json_answer({"name": model, "ready": True})

    def _server(self, path: str) -> HttpAnswer:
        """Answers a GET of anything else under /v2."""
        match path:
            case "":
                return json_answer(plain(self._metadata.server()))
            case "health/live":
                return json_answer({"live": True})
            case _:  # "health/ready"
                ready = self._metadata.server_ready()
                return json_answer({"ready": ready}, 200 if ready else 503)

    def _index(self, body: bytes) -> HttpAnswer:
        try:
            wanted: Any = orjson.loads(body or b"{}")
        except orjson.JSONDecodeError as error:
            raise InvalidRequest(f"The body is not JSON: {error}.") from error
        if not isinstance(wanted, dict):
            raise InvalidRequest("The body is not a JSON object.")
        repository, ready = wanted.get("repository_name"), wanted.get("ready")
        if not (isinstance(repository, str | None) and isinstance(ready, bool | None)):
            raise InvalidRequest(
                "Of the index, 'repository_name' is a text and 'ready' is true or false."
            )
        index = self._metadata.index(repository or "", only_ready=ready is True)
        return json_answer([plain(entry) for entry in index.models])

    def _target(self, parts: list[str]) -> _Target:
        """Reads "{model}[/versions/{version}][/{action}]".

        "stats" alone asks for all models' statistics, unless a model bears that name.
        """
        if parts == [_STATS] and not self._metadata.known(_STATS):
            return _Target("", 0, _STATS)
        model, version, rest = parts[0], 0, parts[1:]
        if rest[:1] == ["versions"] and len(rest) > 1:
            version, rest = parse_version(rest[1]), rest[2:]
        return _Target(model, version, "/".join(rest))


def _read_headers(scope: Scope) -> dict[bytes, bytes]:
    """Returns the headers that are looked at here."""
    return {name: value for name, value in scope["headers"] if name in _HEADERS}


def _inferred(answer: Answer) -> HttpAnswer:
    headers = [_JSON]
    if json_length := answer.head.json_length:
        headers = [_BINARY, (_JSON_LENGTH, str(json_length).encode())]
    if answer.traceparent:
        headers.append((b"traceparent", answer.traceparent.encode()))
    return HttpAnswer(200, headers, answer.body)


def _no_path(path: str) -> NotFound:
    return NotFound(f"There is no path /v2/{path[:200]}.", cure="See /openapi.json.")
