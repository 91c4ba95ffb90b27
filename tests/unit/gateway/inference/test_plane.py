"""The data plane follows the real shared state."""

import asyncio

import pytest
from adlik_common import bus as bus_module
from adlik_common.artifacts import open_store
from adlik_common.errors import NotFound
from adlik_common.service import Context
from adlik_common.state import open_state
from adlik_gateway.catalog.view import CatalogView
from adlik_gateway.inference import build
from adlik_gateway.inference.calls import Call
from adlik_proto.adlik.control.v1.control_pb2 import Replica
from adlik_proto.adlik.link.v1.link_pb2 import ENCODING_JSON

from .conftest import gateway_settings, loaded, release


@pytest.fixture
async def context(settings):
    bus = await bus_module.connect(settings, "adlik/gateway/test")
    store = await open_store(settings, bus)
    context = Context("gateway", "g", settings, bus, await open_state(bus), store, Replica())
    yield context
    await context.finish()
    assert context.failure is None
    await bus.close()


async def test_requests_follow_releases_and_replicas_as_they_come_and_go(context, replicas):
    state = context.state
    await state.releases.put("m", release("m"))
    unserved = CatalogView(state).why_unserved
    plane = build(context, gateway_settings(replica_wait_seconds=10), unserved)
    stub = await replicas()
    asked = asyncio.create_task(plane.router.infer(Call("m", 0, ENCODING_JSON, (b"x",), "http")))
    await asyncio.sleep(0.05)
    await state.replicas.put("serving.a", stub.entry(loaded("m")))
    assert bytes((await asked).body) == b"x"
    assert plane.metadata.server_ready()

    await state.replicas.delete("serving.a")
    while plane.table.serving:
        await asyncio.sleep(0.01)
    await state.releases.delete("m")
    while plane.table.releases:
        await asyncio.sleep(0.01)
    with pytest.raises(NotFound):
        plane.table.pick("m")
    await plane.close()
