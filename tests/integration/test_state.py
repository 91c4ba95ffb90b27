"""Shared state in a real NATS server: compare-and-set, watching, expiry, restarts."""

from __future__ import annotations

import asyncio

import pytest
from adlik_common import bus as bus_module
from adlik_common.errors import Conflict
from adlik_common.state import open_bucket, open_state
from adlik_proto.adlik.model.v1 import model_pb2


@pytest.fixture
async def bus(settings):
    connected = await bus_module.connect(settings, "test")
    yield connected
    await connected.close()


def head(version: int) -> model_pb2.ModelHead:
    return model_pb2.ModelHead(name="m", last_version=version)


async def test_compare_and_set(bus):
    heads = (await open_state(bus)).heads
    assert await heads.get("m") is None
    await heads.create("m", head(1))
    with pytest.raises(Conflict):
        await heads.create("m", head(1))
    entry = await heads.get("m")
    await heads.update("m", head(2), entry.revision)
    with pytest.raises(Conflict):
        await heads.update("m", head(3), entry.revision)
    await heads.delete("m")
    assert await heads.get("m") is None


async def test_concurrent_changes_all_count(bus):
    heads = (await open_state(bus)).heads

    def count(value):
        return head(value.last_version + 1 if value else 1)

    await asyncio.gather(*(heads.modify("m", count) for _ in range(8)))
    assert (await heads.get("m")).value.last_version == 8


async def next_change(changes):
    return await asyncio.wait_for(anext(changes), 15)


async def test_a_watcher_sees_what_is_there_then_every_change_across_a_restart(bus, nats_server):
    heads = (await open_state(bus)).heads
    await heads.put("a", head(1))
    changes = heads.watch()
    assert await next_change(changes) == ("a", head(1))
    assert await next_change(changes) == ("", None)
    await heads.put("a", head(2))
    assert await next_change(changes) == ("a", head(2))
    nats_server.kill()
    nats_server.start()
    await heads.put("b", head(3))
    assert await next_change(changes) == ("b", head(3))
    await heads.delete("a")
    assert await next_change(changes) == ("a", None)
    await changes.aclose()


async def test_entries_that_are_not_written_again_are_gone(bus):
    bucket = await open_bucket(bus, "short", model_pb2.ModelHead, ttl=1.0)
    await bucket.put("a", head(1))
    changes = bucket.watch()
    assert await next_change(changes) == ("a", head(1))
    assert await next_change(changes) == ("", None)
    assert await next_change(changes) == ("a", None)
    await changes.aclose()


async def test_an_outage_of_nats_makes_nobody_expire(bus, nats_server):
    bucket = await open_bucket(bus, "short", model_pb2.ModelHead, ttl=1.0)
    await bucket.put("a", head(1))
    changes = bucket.watch()
    assert await next_change(changes) == ("a", head(1))
    assert await next_change(changes) == ("", None)
    following = asyncio.ensure_future(anext(changes))
    nats_server.kill()
    await asyncio.sleep(2)
    assert not following.done()
    nats_server.start()
    await bucket.put("a", head(2))
    seen = [await asyncio.wait_for(following, 15)]
    while seen[-1] != ("a", head(2)):
        seen.append(await next_change(changes))
    assert await next_change(changes) == ("a", None)
    await changes.aclose()
