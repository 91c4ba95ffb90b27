"""The load client, in a process of its own: closed loops over HTTP, gRPC or into an engine.

Reads one JSON command a line and answers each with one JSON line:

    {"open": way}                                    a way to ask: see `WAYS`
    {"ask": name}                                    one request; answers {"body", "json_length"}
    {"measure": name, "clients": 8, "seconds": .25}  answers {"latencies", "seconds", "errors"}

Every client sends its next request when its last one is answered. The client is lean, so that the
server is what is measured: requests are built once, answers are counted and not parsed.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import grpc
import numpy as np
import uvloop
from adlik_runtimes.registry import engine

JSON_LENGTH = b"inference-header-content-length"
GRPC_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
]
WARM_UP_CALLS = 20


class Answer(NamedTuple):
    """An answer's body, and how many bytes of it are JSON where raw tensors follow (else 0)."""

    body: bytes
    json_length: int = 0


class Way(Protocol):
    """A way to ask; `call` is for one client at a time."""

    async def connect(self, clients: int) -> None:
        """Makes ready for a number of clients; servers hang up on those that were idle long."""

    async def call(self, client: int) -> Answer:
        """Asks once; raises `ConnectionError` where the answer is an error."""


class HttpConnection(asyncio.Protocol):
    """One HTTP/1.1 connection, kept alive, with one request at a time."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._body_start = self._end = 0
        self._answer: asyncio.Future[Answer] | None = None

    def connection_made(self, transport) -> None:
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError(f"hung up: {error}"))

    def close(self) -> None:
        self._transport.close()

    def ask(self, request: bytes) -> asyncio.Future[Answer]:
        if self._transport.is_closing():
            raise ConnectionError("The server has hung up.")
        self._received.clear()
        self._body_start = self._end = 0
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        if not self._end:
            found = received.find(b"\r\n\r\n")
            if found < 0:
                return
            self._body_start = found + 4
            self._end = self._body_start + _header(received[:found], b"content-length")
        if len(received) >= self._end and self._answer is not None:
            self._finish(received, self._answer)

    def _finish(self, received: bytearray, answer: asyncio.Future[Answer]) -> None:
        body = bytes(received[self._body_start : self._end])
        if received[9:12] != b"200":
            answer.set_exception(ConnectionError(f"{bytes(received[9:12])}: {body[:300]}"))
        else:
            json_length = _header(received[: self._body_start], JSON_LENGTH)
            answer.set_result(Answer(body, json_length))


def _header(head: bytearray, name: bytes) -> int:
    _, found, rest = bytes(head).lower().partition(b"\r\n" + name + b":")
    return int(rest.partition(b"\r\n")[0]) if found else 0


class OverHttp:
    """One connection per client.

    Args:
        way: "host", "port", "path", "headers" (names to values) and "body" (a file).
    """

    def __init__(self, way: dict[str, Any]) -> None:
        body = Path(way["body"]).read_bytes()
        headers = {"Host": way["host"], **way["headers"], "Content-Length": str(len(body))}
        lines = [f"POST {way['path']} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items()), "\r\n"]
        self._request = "\r\n".join(lines).encode() + body
        self._where = way["host"], way["port"]
        self._connections: list[HttpConnection] = []

    async def connect(self, clients: int) -> None:
        for connection in self._connections:
            connection.close()
        loop = asyncio.get_running_loop()
        made = [await loop.create_connection(HttpConnection, *self._where) for _ in range(clients)]
        self._connections = [connection for _, connection in made]

    async def call(self, client: int) -> Answer:
        return await self._connections[client].ask(self._request)


class OverGrpc:
    """One channel that all clients share; messages are passed as the bytes they are.

    Args:
        way: "target", "method" and "body" (a file).
    """

    def __init__(self, way: dict[str, Any]) -> None:
        channel = grpc.aio.insecure_channel(way["target"], options=GRPC_OPTIONS)
        self._method = channel.unary_unary(way["method"])
        self._body = Path(way["body"]).read_bytes()

    async def connect(self, clients: int) -> None:
        pass

    async def call(self, client: int) -> Answer:  # noqa: ARG002 - a channel is shared
        try:
            return Answer(await self._method(self._body))
        except grpc.aio.AioRpcError as error:
            raise ConnectionError(f"{error.code()}: {error.details()}") from error


class InProcess:
    """The engine itself; takes one call at a time, so more clients would only wait.

    Args:
        way: "engine", "precision", "path", "threads" and "inputs" (an .npz file).
    """

    def __init__(self, way: dict[str, Any]) -> None:
        path, precision, threads = Path(way["path"]), way["precision"], way["threads"]
        self._model = engine(way["engine"]).load(path, precision=precision, threads=threads)
        with np.load(way["inputs"]) as inputs:
            self._inputs = dict(inputs)

    async def connect(self, clients: int) -> None:
        pass

    async def call(self, client: int) -> Answer:  # noqa: ARG002 - see above
        outputs = self._model.run(self._inputs)
        return Answer(next(iter(outputs.values())).tobytes())

    def measure(self, seconds: float) -> tuple[list[float], float]:
        run, inputs, latencies = self._model.run, self._inputs, []
        before = started = time.perf_counter()
        while before < started + seconds:
            run(inputs)
            after = time.perf_counter()
            latencies.append(after - before)
            before = after
        return latencies, before - started


WAYS = {"http": OverHttp, "grpc": OverGrpc, "engine": InProcess}


async def measure(way: Way, clients: int, seconds: float) -> dict[str, Any]:
    """Runs closed loops for a slice of time; latencies are in seconds."""
    if isinstance(way, InProcess):
        latencies, took = way.measure(seconds)
        return {"latencies": latencies, "seconds": took, "errors": 0}
    await way.connect(clients)
    latencies: list[float] = []
    errors = 0
    started = time.perf_counter()
    end = started + seconds

    async def loop(client: int) -> None:
        nonlocal errors
        while (before := time.perf_counter()) < end:
            try:
                await way.call(client)
            except OSError:
                errors += 1
            else:
                latencies.append(time.perf_counter() - before)

    await asyncio.gather(*(loop(client) for client in range(clients)))
    return {"latencies": latencies, "seconds": time.perf_counter() - started, "errors": errors}


async def obey(ways: dict[str, Way], command: dict[str, Any]) -> dict[str, Any]:
    """Carries out one command."""
    match command:
        case {"open": way}:
            ways[way["name"]] = WAYS[way["kind"]](way)
            return {}
        case {"ask": name}:
            await ways[name].connect(1)
            for _ in range(WARM_UP_CALLS):
                answer = await ways[name].call(0)
            body = base64.b64encode(answer.body).decode()
            return {"body": body, "json_length": answer.json_length}
    return await measure(ways[command["measure"]], command["clients"], command["seconds"])


async def main() -> None:
    ways: dict[str, Way] = {}
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        try:
            answer = await obey(ways, json.loads(line))
        except (OSError, KeyError, ValueError) as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    uvloop.run(main())
