"""The framed link: whole frames, many at once, loss, cancellation, limits."""

import asyncio
import contextlib

import numpy as np
import pytest
from adlik_common.frames import ALIGNMENT, HEADER, JOIN_BYTES, READ_BUFFER_BYTES
from adlik_common.link import LinkClient, LinkLost, LinkServer, RemoteError


@pytest.fixture(params=["unix", "tcp"])
async def address(request, tmp_path):
    return f"unix://{tmp_path}/l.sock" if request.param == "unix" else "tcp://127.0.0.1:0"


async def started(handler, address, **options):
    server = LinkServer(handler, **options)
    return server, LinkClient(await server.start(address))


@pytest.mark.parametrize(
    "size", [0, 1, 1000, JOIN_BYTES - 1, JOIN_BYTES, 130_000, 262_144, 300_000, 5_000_000]
)
async def test_bodies_of_any_size_come_back_unchanged(address, size):
    server, client = await started(lambda r: r.respond(b"h" + r.head, r.body, b"!"), address)
    body = bytes(i % 251 for i in range(min(size, 4096))) * (size // 4096 + 1)
    body = body[:size]
    reply = await client.request(b"meta", body)
    assert reply.head == b"hmeta"
    assert bytes(reply.body) == body + b"!"
    await client.close()
    await server.stop(0)


@pytest.mark.parametrize("odd", [0, 1, 143])
async def test_a_large_body_ends_on_an_aligned_address(address, odd):
    """So the tensor at its end need not be copied, whatever lies before it."""
    ends = []

    def look(request):
        body = np.frombuffer(request.body, np.uint8)
        ends.append((body.ctypes.data + body.size) % ALIGNMENT)
        request.respond(b"")

    server, client = await started(look, address)
    for size in (READ_BUFFER_BYTES + odd, 600_000 + odd):
        await client.request(b"", bytes(size))
    assert ends == [0, 0]
    await client.close()
    await server.stop(0)


async def test_many_requests_share_a_connection_and_may_finish_in_any_order(address):
    waiting = []
    server, client = await started(waiting.append, address)
    tasks = [asyncio.create_task(client.request(b"", bytes([i]) * 70_000)) for i in range(20)]
    while len(waiting) < 20:
        await asyncio.sleep(0.001)
    for request in reversed(waiting):
        request.respond(b"", request.body)
    replies = await asyncio.gather(*tasks)
    assert [reply.body[0] for reply in replies] == list(range(20))
    await client.close()
    await server.stop(0)


async def test_an_error_frame_raises(address):
    server, client = await started(lambda r: r.fail(b"why"), address)
    with pytest.raises(RemoteError) as raised:
        await client.request(b"")
    assert raised.value.head == b"why"
    await client.close()
    await server.stop(0)


async def test_a_lost_connection_fails_what_was_under_way_and_the_next_request_reconnects(tmp_path):
    address = f"unix://{tmp_path}/l.sock"
    server, client = await started(lambda r: None, address)
    asked = asyncio.create_task(client.request(b"", b"x"))
    while not server.in_flight:
        await asyncio.sleep(0.001)
    await server.stop(0)
    with pytest.raises(LinkLost):
        await asked
    with pytest.raises(LinkLost):
        await client.request(b"")
    second = LinkServer(lambda r: r.respond(b"back"))
    await second.start(address)
    assert (await client.request(b"")).head == b"back"
    await client.close()
    await second.stop(0)


async def test_cancellation_reaches_the_other_side_and_spares_the_neighbours(address):
    waiting = []
    server, client = await started(waiting.append, address)
    first, second = (asyncio.create_task(client.request(bytes([i]))) for i in range(2))
    while len(waiting) < 2:
        await asyncio.sleep(0.001)
    first.cancel()
    while not waiting[0].cancelled:
        await asyncio.sleep(0.001)
    for request in waiting:
        request.respond(b"ok")
    assert (await second).head == b"ok"
    await client.close()
    await server.stop(0)


async def test_too_large_a_body_ends_the_connection_not_the_server(address):
    server, client = await started(lambda r: r.respond(b"ok"), address, max_body_bytes=1000)
    with pytest.raises(LinkLost):
        await client.request(b"", b"x" * 1001)
    assert (await client.request(b"", b"x" * 1000)).head == b"ok"
    await client.close()
    await server.stop(0)


async def test_a_stranger_is_hung_up_on(tmp_path):
    server = LinkServer(lambda r: r.respond(b""))
    await server.start(f"unix://{tmp_path}/l.sock")
    reader, writer = await asyncio.open_unix_connection(f"{tmp_path}/l.sock")
    writer.write(b"GET / HTTP/1.1\r\n".ljust(HEADER.size, b"."))
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
    await server.stop(0)
