"""Which replica is picked, and what is said where there is none."""

import asyncio

import pytest
from adlik_common.errors import NotFound, Unavailable
from adlik_gateway.inference.replicas import ReplicaTable
from adlik_proto.adlik.control.v1.control_pb2 import Replica
from adlik_proto.adlik.model.v1.model_pb2 import Error

from .conftest import loaded, release


def entry(name, *models, **fields):
    return Replica(id=name, service="serving", link=f"unix:///{name}", loaded=models, **fields)


def picks(table, count, **asked):
    return [table.pick("m", **asked).id for _ in range(count)]


async def test_idle_replicas_take_turns(table):
    table.apply_release("m", release("m"))
    for name in "abc":
        table.apply(f"serving.{name}", entry(name, loaded("m")))
    chosen = []
    for _ in range(6):
        replica = table.pick("m")
        chosen.append(replica.id)
        table.done(replica)
    assert sorted(chosen) == ["a", "a", "b", "b", "c", "c"]


async def test_the_least_busy_replica_is_picked(table):
    table.apply_release("m", release("m"))
    table.apply("serving.a", entry("a", loaded("m")))
    assert picks(table, 3) == ["a", "a", "a"]
    table.apply("serving.b", entry("b", loaded("m")))
    assert picks(table, 3) == ["b", "b", "b"]
    assert sorted(picks(table, 2)) == ["a", "b"]


async def test_draining_other_services_and_other_models_are_left_out(table):
    table.apply_release("m", release("m"))
    table.apply("serving.a", entry("a", loaded("m")))
    table.apply("serving.b", entry("b", loaded("m"), draining=True))
    table.apply("serving.c", entry("c", loaded("other")))
    table.apply("compiler.d", Replica(id="d", service="compiler"))
    assert set(picks(table, 4)) == {"a"}


async def test_versions_switch_with_the_first_replica_that_has_the_released_one(table):
    table.apply_release("m", release("m", 2))
    table.apply("serving.a", entry("a", loaded("m", 1)))
    table.apply("serving.b", entry("b", loaded("m", 1)))
    assert set(picks(table, 4)) == {"a", "b"}
    table.apply("serving.b", entry("b", loaded("m", 2), loaded("m", 1)))
    assert set(picks(table, 4)) == {"b"}
    assert "a" in picks(table, 4, version=1)
    assert table.versions("m") == [1, 2]


async def test_a_replica_whose_link_was_lost_is_picked_last_for_a_while(table):
    table.apply_release("m", release("m"))
    for name in "ab":
        table.apply(f"serving.{name}", entry(name, loaded("m")))
    first = table.pick("m")
    table.lost(first)
    assert first.id not in picks(table, 5)
    first.doubtful_until = asyncio.get_running_loop().time() - 0.001
    assert first.id in picks(table, 5)


async def test_an_unknown_model_is_not_found_and_close_names_are_shown(table):
    table.apply_release("mobilenet", release("mobilenet"))
    with pytest.raises(NotFound, match=r"'mobilnet' is released\. Did you mean mobilenet\?"):
        table.pick("mobilnet")


async def test_a_version_that_is_not_served_is_not_found(table):
    table.apply_release("m", release("m", 3))
    table.apply("serving.a", entry("a", loaded("m", 3)))
    with pytest.raises(NotFound, match=r"Version 7 of model 'm' is not served; 3 is\."):
        table.pick("m", 7)


async def test_a_released_model_that_nobody_holds_is_unavailable_with_the_reason(table):
    table.apply_release("m", release("m"))
    with pytest.raises(Unavailable, match="Start a serving replica"):
        table.pick("m")
    failed = {"m": Error(message="Out of memory.")}
    table.apply("serving.a", entry("a", failed=failed))
    with pytest.raises(Unavailable, match=r"Replica a could not load it: Out of memory\."):
        table.pick("m")


async def test_a_deleted_model_is_not_found_though_a_replica_still_holds_it(table):
    table.apply_release("a=2Eb", release("a.b"))
    table.apply("serving.a", entry("a", loaded("a.b")))
    assert table.pick("a.b").id == "a"
    table.apply_release("a=2Eb", None)
    with pytest.raises(NotFound):
        table.pick("a.b")


async def test_before_the_state_is_read_nothing_is_said_to_be_missing():
    table = ReplicaTable()
    with pytest.raises(Unavailable, match="has not read"):
        table.pick("m")
    table.apply("", None)
    assert not table.complete
    table.apply_release("", None)
    assert table.complete


async def test_a_gone_replica_keeps_its_link_until_its_last_answer(table, replicas):
    stub = await replicas()
    stub.answer = stub.hold
    table.apply_release("m", release("m"))
    table.apply("serving.a", stub.entry(loaded("m")))
    replica = table.pick("m")
    asked = asyncio.create_task(replica.link.request(b""))
    while not stub.requests:
        await asyncio.sleep(0.001)
    table.apply("serving.a", None)
    with pytest.raises(Unavailable):
        table.pick("m")
    await asyncio.sleep(0.01)
    stub.requests[0].respond(b"late")
    assert (await asked).head == b"late"
    table.done(replica)
    while stub.server._peers:
        await asyncio.sleep(0.001)


async def test_waiting_ends_with_the_next_change_and_not_without(table):
    assert not await table.changed(0.01)
    waiting = asyncio.create_task(table.changed(5))
    await asyncio.sleep(0.01)
    table.apply_release("m", release("m"))
    assert await waiting
