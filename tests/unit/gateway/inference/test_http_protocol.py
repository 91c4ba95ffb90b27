"""Answers leave whole: head and body in one write, whatever their size, and streams at once."""

import asyncio
import contextlib
import json

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


H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
WEBSOCKET = (
    b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n"
)
LENGTH, CHUNKED = (
    b"Content-Length: 5\r\n\r\nhello",
    (b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
)
HEAD = b"POST /p%61th?q=1 HTTP/1.1\r\nHost: a\r\nX-Mine: 1\r\n"


async def repeat(scope, receive, send):
    """Answers with the request's line, its own header and its body."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    mine = dict(scope["headers"]).get(b"x-mine", b"").decode()
    line = f"{scope['method']} {scope['path']}?{scope['query_string'].decode()} {mine} "
    answer = line.encode() + body
    headers = [(b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


async def answer_of(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return head.split(b"\r\n")[0], await reader.readexactly(length)


@pytest.mark.parametrize("body", [LENGTH, CHUNKED], ids=["length", "chunked"])
@pytest.mark.parametrize("offer", [H2C, WEBSOCKET], ids=["h2c", "websocket"])
@pytest.mark.parametrize("step", [1, 7, 1 << 16])
async def test_an_offer_of_another_protocol_is_passed_over(offer, body, step):
    """Every stock Java client makes one; what is behind it is a request like any other."""
    data = HEAD + offer + body + HEAD + body + HEAD + offer + body
    async with connected(repeat, http=HttpProtocol, ws="none") as (reader, writer):
        for at in range(0, len(data), step):
            writer.write(data[at : at + step])
            await asyncio.sleep(0)
        for _ in range(3):
            line, answer = await asyncio.wait_for(answer_of(reader), 10)
            assert line == b"HTTP/1.1 200 OK"
            assert answer == b"POST /path?q=1 1 hello"


async def test_an_offer_without_a_body_is_passed_over():
    request = b"GET /x HTTP/1.1\r\nHost: a\r\n" + H2C + b"\r\n"
    async with connected(repeat, http=HttpProtocol, ws="none") as (reader, writer):
        for _ in range(3):
            writer.write(request)
            assert (await answer_of(reader))[1] == b"GET /x?  "


async def test_an_offer_may_ask_to_hang_up():
    request = b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n"
    async with connected(repeat, http=HttpProtocol, ws="none") as (reader, writer):
        writer.write(request)
        assert (await answer_of(reader))[1] == b"GET /x?  "
        assert await reader.read() == b""


async def test_an_offer_that_expects_to_be_asked_for_its_body_is_asked():
    async with connected(repeat, http=HttpProtocol, ws="none") as (reader, writer):
        head = b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        writer.write(b"POST /x HTTP/1.1\r\nHost: a\r\n" + H2C + head)
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hello")
        assert (await answer_of(reader))[1] == b"POST /x?  hello"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"garbage\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n" + H2C + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST / HTTP/1.1\r\n" + H2C + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
async def test_what_is_no_request_is_told_so_in_json(request_bytes):
    async with connected(repeat, http=HttpProtocol, ws="none") as (reader, writer):
        writer.write(request_bytes)
        line, answer = await asyncio.wait_for(answer_of(reader), 10)
        assert line == b"HTTP/1.1 400 Bad Request"
        assert json.loads(answer)["code"] == "INVALID_REQUEST"
        assert json.loads(answer)["error"]
        assert await reader.read() == b""


async def test_very_many_offers_at_once_are_passed_over():
    offer = b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: a\r\n\r\n"
    async with connected(repeat, http=HttpProtocol, ws="none") as (reader, writer):
        writer.write(offer * 2000)
        for _ in range(2000):
            assert (await asyncio.wait_for(answer_of(reader), 20))[1] == b"GET /x?  "
