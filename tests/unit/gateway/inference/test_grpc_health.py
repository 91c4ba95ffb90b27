"""grpc.health.v1.Health beside a real server: what probes and load balancers see."""

import asyncio

import grpc
import grpc.aio
import pytest
from adlik_gateway.inference.plane import assemble

from .conftest import gateway_settings, loaded

SERVING, NOT_SERVING, UNKNOWN = b"\x08\x01", b"\x08\x02", b"\x08\x03"
INFERENCE = b"\x0a\x1einference.GRPCInferenceService"


@pytest.fixture
def stopping():
    return asyncio.Event()


@pytest.fixture
async def channel(table, stopping):
    plane = assemble(table, gateway_settings(), stopping.is_set)
    server = grpc.aio.server()
    plane.add_to_grpc(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(0)


async def check(channel, request):
    return await channel.unary_unary("/grpc.health.v1.Health/Check")(request, timeout=5)


@pytest.mark.parametrize("service", [b"", INFERENCE])
async def test_it_serves_once_a_replica_lives_and_until_it_stops(
    table, replicas, channel, stopping, service
):
    assert await check(channel, service) == NOT_SERVING
    replica = await replicas()
    table.apply("serving.a", replica.entry(loaded("m")))
    assert await check(channel, service) == SERVING
    stopping.set()
    assert await check(channel, service) == NOT_SERVING


async def test_the_control_service_needs_no_replica(channel):
    name = b"adlik.control.v1.ControlService"
    assert await check(channel, bytes((10, len(name))) + name) == SERVING


async def test_an_unknown_service_is_not_found(channel):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await check(channel, b"\x0a\x03foo")
    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_what_can_not_be_read_asks_for_the_whole_server(table, replicas, channel):
    assert await check(channel, b"\xff\xff") == NOT_SERVING
    replica = await replicas()
    table.apply("serving.a", replica.entry(loaded("m")))
    assert await check(channel, b"\x0a\x05foo") == SERVING


async def test_a_watch_tells_every_change_and_ends_with_the_server(
    table, replicas, channel, stopping
):
    watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(INFERENCE, timeout=20)
    assert await watch.read() == NOT_SERVING
    replica = await replicas()
    table.apply("serving.a", replica.entry(loaded("m")))
    assert await watch.read() == SERVING
    table.apply("serving.a", None)
    assert await watch.read() == NOT_SERVING
    table.apply("serving.a", replica.entry(loaded("m")))
    assert await watch.read() == SERVING
    stopping.set()
    assert await watch.read() == NOT_SERVING
    assert await watch.read() is grpc.aio.EOF


async def test_a_watch_of_an_unknown_service_goes_on(channel):
    watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"\x0a\x03foo", timeout=5)
    assert await watch.read() == UNKNOWN
    watch.cancel()
