"""Routing: retries where another replica may do better, and nowhere else."""

import asyncio

import pytest
from adlik_common.errors import (
    DeadlineExceeded,
    InvalidTensor,
    NotFound,
    Overloaded,
    Unavailable,
)
from adlik_common.link import LinkServer
from adlik_gateway.inference.calls import Call
from adlik_gateway.inference.plane import assemble
from adlik_proto.adlik.link.v1.link_pb2 import ENCODING_JSON

from .conftest import gateway_settings, loaded, release


def call(model="m", *body, **fields):
    return Call(model, 0, ENCODING_JSON, body or (b"body",), "http", **fields)


@pytest.fixture
async def pair(replicas, table):
    """Two replicas that hold the model."""
    table.apply_release("m", release("m"))
    stubs = [await replicas(name) for name in "ab"]
    for stub in stubs:
        table.apply(f"serving.{stub.name}", stub.entry(loaded("m")))
    return stubs


def hang_up(stub):
    """Ends the stub's connections instead of answering."""

    def answer(request, head):
        for peer in list(stub.server._peers):
            peer.close()

    return answer


async def test_the_body_reaches_the_replica_in_one_piece_and_the_answer_comes_back(plane, replica):
    answer = await plane.router.infer(call("m", b"two ", b"pieces", json_length=3))
    assert bytes(answer.body) == b"two pieces"
    assert answer.head.variant == "pushed.onnxruntime-fp32"
    head = replica.heads[0]
    assert (head.model, head.version, head.json_length) == ("m", 0, 3)
    assert head.encoding == ENCODING_JSON
    assert head.traceparent == ""


async def test_the_replica_learns_how_long_the_caller_waits(plane, replica):
    await plane.router.infer(call(timeout=1.5))
    assert 1000 < replica.heads[0].timeout_ms <= 1500


async def test_load_is_shared(plane, pair):
    await asyncio.gather(*(plane.router.infer(call()) for _ in range(10)))
    assert [len(stub.heads) for stub in pair] == [5, 5]


async def test_a_request_lost_with_its_replica_is_answered_by_another(plane, pair):
    for stub in pair:
        stub.answer = stub.hold
    asked = [asyncio.create_task(plane.router.infer(call())) for _ in range(8)]
    while sum(len(stub.heads) for stub in pair) < 8:
        await asyncio.sleep(0.001)
    dead, alive = pair
    alive.answer = alive.echo
    await dead.server.stop(0)
    while len(alive.heads) < 8:
        await asyncio.sleep(0.001)
    for request in alive.requests[:4]:
        alive.echo(request, alive.heads[0])
    assert [bytes(answer.body) for answer in await asyncio.gather(*asked)] == [b"body"] * 8


async def test_a_connection_that_broke_is_made_again_at_once(plane, replica):
    await plane.router.infer(call())

    def once(request, head):
        hang_up(replica)(request, head)
        replica.answer = replica.echo

    replica.answer = once
    assert bytes((await plane.router.infer(call())).body) == b"body"


async def test_a_request_that_kills_replicas_is_given_up(replicas, table):
    table.apply_release("m", release("m"))
    stubs = [await replicas(name) for name in "abcd"]
    for stub in stubs:
        table.apply(f"serving.{stub.name}", stub.entry(loaded("m")))
        stub.answer = hang_up(stub)
    plane = assemble(table, gateway_settings(infer_attempts=3))
    with pytest.raises(Unavailable, match="3 replicas went away"):
        await plane.router.infer(call())
    assert sum(len(stub.heads) for stub in stubs) == 3


async def test_a_request_waits_for_the_replica_that_takes_over(table, replicas, replica):
    plane = assemble(table, gateway_settings(replica_wait_seconds=5))
    await replica.server.stop(0)  # dead, but its entry lives on
    asked = asyncio.create_task(plane.router.infer(call()))
    await asyncio.sleep(0.05)
    table.apply("serving.a", None)
    await asyncio.sleep(0.01)
    second = await replicas("b")
    table.apply("serving.b", second.entry(loaded("m")))
    assert bytes((await asked).body) == b"body"


async def test_a_dead_replica_counts_once_however_often_it_is_asked(table, replicas, replica):
    plane = assemble(table, gateway_settings(replica_wait_seconds=5, infer_attempts=2))
    await replica.server.stop(0)  # dead, but its entry lives on
    asked = asyncio.create_task(plane.router.infer(call()))
    for _ in range(4):
        await asyncio.sleep(0.05)
        dead = table.pick("m")
        table.done(dead)
        dead.doubtful_until = 0.0  # as if the doubt were over by then
        table.apply_release("other", release("other"))  # any change: the trip looks again
    second = await replicas("b")
    table.apply("serving.b", second.entry(loaded("m")))
    assert bytes((await asked).body) == b"body"


async def test_waiting_for_a_replica_is_bounded(plane, table):
    table.apply_release("m", release("m"))
    with pytest.raises(Unavailable, match="Start a serving replica"):
        await plane.router.infer(call())


async def test_an_unknown_model_is_not_waited_for(table):
    plane = assemble(table, gateway_settings(replica_wait_seconds=60))
    with pytest.raises(NotFound):
        await plane.router.infer(call("nothing"))


async def test_a_full_replica_is_passed_over_once(plane, pair):
    full, free = pair
    full.refuse(Overloaded("Full."))
    for _ in range(4):
        assert bytes((await plane.router.infer(call())).body) == b"body"
    free.refuse(Overloaded("Full too."))
    seen = len(full.heads) + len(free.heads)
    with pytest.raises(Overloaded):
        await plane.router.infer(call())
    assert len(full.heads) + len(free.heads) == seen + 2


async def test_a_lone_full_replica_is_not_waited_for(table, replica):
    plane = assemble(table, gateway_settings(replica_wait_seconds=60))
    replica.refuse(Overloaded("Full."))
    with pytest.raises(Overloaded, match=r"Full\."):
        await plane.router.infer(call())


async def test_a_replica_that_just_unloaded_the_model_is_passed_over(plane, pair):
    pair[0].refuse(NotFound("Not here any more."))
    for _ in range(4):
        assert bytes((await plane.router.infer(call())).body) == b"body"


async def test_the_callers_own_mistake_is_not_tried_twice(plane, pair):
    for stub in pair:
        stub.refuse(InvalidTensor("Wrong shape.", cure="Reshape.", tensor="x"))
    with pytest.raises(InvalidTensor, match=r"Wrong shape\. Reshape\.") as raised:
        await plane.router.infer(call())
    assert raised.value.details == {"tensor": "x"}
    assert sum(len(stub.heads) for stub in pair) == 1


async def test_the_deadline_ends_a_request_and_tells_the_replica(plane, replica):
    replica.answer = replica.hold
    with pytest.raises(DeadlineExceeded):
        await plane.router.infer(call(timeout=0.05))
    while not replica.requests[0].cancelled:
        await asyncio.sleep(0.001)


async def test_cancelling_one_request_spares_its_neighbour(plane, replica):
    replica.answer = replica.hold
    first, second = (asyncio.create_task(plane.router.infer(call())) for _ in range(2))
    while len(replica.requests) < 2:
        await asyncio.sleep(0.001)
    first.cancel()
    while not replica.requests[0].cancelled:
        await asyncio.sleep(0.001)
    replica.echo(replica.requests[1], replica.heads[1])
    assert bytes((await second).body) == b"body"
    assert plane.table.pick("m").in_flight == 1


async def test_a_replica_that_comes_back_at_the_same_address_is_used_again(
    table, replica, tmp_path
):
    plane = assemble(table, gateway_settings(replica_wait_seconds=0.05))
    await plane.router.infer(call())
    await replica.server.stop(0)
    with pytest.raises(Unavailable):
        await plane.router.infer(call())
    again = LinkServer(replica.take)
    await again.start(replica.address)
    assert bytes((await plane.router.infer(call())).body) == b"body"
    await table.close()
    await again.stop(0)
