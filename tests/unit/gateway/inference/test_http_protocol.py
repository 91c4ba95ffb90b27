"""Answers leave whole: head and body in one write, whatever their size, and streams at once."""

import asyncio
import contextlib

import pytest
from adlik_common.health import serve_http
from adlik_gateway.inference.http_protocol import JOIN_BYTES, HttpProtocol, hold_head

SIZES = [0, 1, 1000, JOIN_BYTES, JOIN_BYTES + 1, 3_000_000]


def sized(scope):
    return int(scope["path"].strip("/"))


async def whole(scope, receive, send):
    """Answers with as many bytes as the path says."""
    while (await receive()).get("more_body"):
        pass
    hold_head(scope)
    length = str(sized(scope)).encode()
    headers = [(b"content-length", length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"x" * sized(scope)})


@contextlib.asynccontextmanager
async def connected(app, **options):
    async with serve_http(app, "127.0.0.1", 0, **options) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        yield reader, writer
        writer.close()
        await writer.wait_closed()


async def ask(connection, size):
    reader, writer = connection
    writer.write(f"POST /{size} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    return await reader.readexactly(size)


@pytest.mark.parametrize("protocol", [HttpProtocol, "httptools"])
async def test_answers_of_any_size_follow_each_other_on_a_connection(protocol):
    async with connected(whole, http=protocol) as connection:
        for size in SIZES * 2:
            assert await ask(connection, size) == b"x" * size


async def test_head_and_body_arrive_together():
    async with connected(whole, http=HttpProtocol) as (reader, writer):
        for _ in range(20):
            writer.write(b"POST /10 HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await reader.read(1 << 16)).endswith(b"\r\n\r\n" + b"x" * 10)


async def test_a_stream_is_not_held_up():
    go_on = asyncio.Event()

    async def stream(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await go_on.wait()
        await send({"type": "http.response.body", "body": b"last"})

    async with connected(stream, http=HttpProtocol) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await reader.readuntil(b"first\r\n")
        go_on.set()
        assert await reader.readuntil(b"last\r\n0\r\n\r\n")


async def test_a_head_whose_body_never_comes_is_sent_when_the_connection_ends():
    async def broken(scope, receive, send):
        hold_head(scope)
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]}
        )

    async with connected(broken, http=HttpProtocol) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
