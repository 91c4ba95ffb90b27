"""Events through a real NATS server: shared work, retries, dead letters, restarts, traces."""

from __future__ import annotations

import asyncio

import pytest
from adlik_common import bus as bus_module
from adlik_common import events, telemetry
from adlik_common.errors import InvalidModel, Unavailable
from adlik_proto.adlik.events.v1 import events_pb2
from adlik_proto.adlik.model.v1 import model_pb2


def pushed(name: str, version: int = 1) -> events_pb2.ModelPushed:
    return events_pb2.ModelPushed(pushed=model_pb2.PushedModel(name=name, version=version))


async def until(condition, seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.fixture
async def bus(settings):
    connected = await bus_module.connect(settings, "test")
    yield connected
    await connected.close()


async def consuming(bus, durable, handlers):
    task = asyncio.create_task(bus.consume(durable, handlers))

    async def stop():
        bus.draining.set()
        await asyncio.wait_for(task, 10)

    return stop


async def test_the_same_fact_published_twice_is_handled_once(bus):
    seen = []

    async def handle(event, delivery):
        seen.append((event.pushed.name, delivery.attempt))

    for _ in range(2):
        await bus.publish(pushed("a.b"))
    await bus.publish(pushed("c"))
    stop = await consuming(bus, "compiler", {events_pb2.ModelPushed: handle})
    await until(lambda: len(seen) == 2)
    await asyncio.sleep(0.3)
    await stop()
    assert sorted(seen) == [("a.b", 1), ("c", 1)]


async def test_two_processes_share_the_work_of_one_consumer(bus, settings):
    other = await bus_module.connect(settings, "other")
    seen = {"one": [], "two": []}

    def handler(who):
        async def handle(event, delivery):
            await asyncio.sleep(0.05)
            seen[who].append(event.pushed.name)

        return handle

    for i in range(10):
        await bus.publish(pushed(f"m{i}"))
    stops = [
        await consuming(bus, "compiler", {events_pb2.ModelPushed: handler("one")}),
        await consuming(other, "compiler", {events_pb2.ModelPushed: handler("two")}),
    ]
    await until(lambda: len(seen["one"]) + len(seen["two"]) == 10)
    for stop in stops:
        await stop()
    assert sorted(seen["one"] + seen["two"]) == sorted(f"m{i}" for i in range(10))
    assert seen["one"]
    assert seen["two"]
    await other.close()


async def test_a_retryable_error_is_tried_again(bus):
    attempts = []

    async def handle(event, delivery):
        attempts.append(delivery.attempt)
        if delivery.attempt < 2:
            raise Unavailable("not yet")

    await bus.publish(pushed("m"))
    stop = await consuming(bus, "compiler", {events_pb2.ModelPushed: handle})
    await until(lambda: attempts == [1, 2])
    await stop()


async def test_a_final_error_is_dead_lettered_and_announced(bus):
    failures = []

    async def handle(event, delivery):
        raise InvalidModel("broken", cure="mend it")

    async def note(event, delivery):
        failures.append(event.failure)

    await bus.publish(pushed("m"))
    stop = await consuming(bus, "compiler", {events_pb2.ModelPushed: handle})
    other = asyncio.create_task(bus.consume("catalog", {events_pb2.StageFailed: note}))
    await until(lambda: failures)
    await stop()
    await other
    assert failures[0].error.code == "INVALID_MODEL"
    assert failures[0].error.cure == "mend it"
    assert failures[0].stage == "compiler"
    dead = await bus.jetstream.get_msg(events.DEAD_STREAM, seq=1)
    assert dead.subject == "adlik.v1.dead.compiler.m"
    assert dead.headers["adlik-error-code"] == "INVALID_MODEL"
    assert events_pb2.ModelPushed.FromString(dead.data) == pushed("m")


async def test_unreadable_events_do_not_stop_the_consumer(bus):
    seen = []

    async def handle(event, delivery):
        seen.append(event.pushed.name)

    good = pushed("m")
    await bus.jetstream.publish(
        events.subject(good), b"\xff\xff", headers={"ce-type": events.type_name(good)}
    )
    await bus.publish(good)
    stop = await consuming(bus, "compiler", {events_pb2.ModelPushed: handle})
    await until(lambda: seen == ["m"])
    await stop()
    assert (await bus.jetstream.stream_info(events.DEAD_STREAM)).state.messages == 1


async def test_events_survive_a_killed_server(bus, nats_server):
    seen = []

    async def handle(event, delivery):
        seen.append(event.pushed.name)

    stop = await consuming(bus, "compiler", {events_pb2.ModelPushed: handle})
    await bus.publish(pushed("before"))
    await until(lambda: seen == ["before"])
    nats_server.kill()
    publishing = asyncio.create_task(bus.publish(pushed("during")))
    await asyncio.sleep(0.5)
    nats_server.start()
    await asyncio.wait_for(publishing, 20)
    await bus.publish(pushed("after"))
    await until(lambda: {"during", "after"} <= set(seen), 30)
    await stop()


async def test_the_trace_context_travels_with_the_event(bus, settings):
    telemetry.configure("test", "t", settings, bus)
    found = []

    async def handle(event, delivery):
        found.append(telemetry.current_trace_id())

    trace_id = "0af7651916cd43dd8448eb211c80319c"
    await bus.publish(pushed("m"), traceparent=f"00-{trace_id}-b7ad6b7169203331-01")
    stop = await consuming(bus, "compiler", {events_pb2.ModelPushed: handle})
    await until(lambda: found == [trace_id])
    await stop()
