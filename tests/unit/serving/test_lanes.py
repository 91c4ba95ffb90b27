"""Large bodies are read and written beside the event loop, which goes on answering meanwhile."""

import asyncio
import json
import threading

import numpy as np
import pytest
from adlik_common.errors import Overloaded
from adlik_proto.adlik.link.v1 import link_pb2
from adlik_serving import lanes
from adlik_serving.lanes import Lanes
from adlik_serving.oip import json_body, protobuf_body
from replicas import message, variant_of

JSON = link_pb2.ENCODING_JSON


def json_of(rows):
    x = np.arange(rows, dtype=np.float32).reshape(rows, 1)
    entry = {"name": "x", "datatype": "FP32", "shape": list(x.shape), "data": x.tolist()}
    return json.dumps({"inputs": [entry]}).encode()


class Gate:
    """Holds up calls of a codec that are not on the event loop's thread."""

    def __init__(self, monkeypatch, codec, name):
        self.entered, self.go = threading.Event(), threading.Event()
        self.on_loop = 0
        original, loop = getattr(codec, name), threading.get_ident()

        def gated(*arguments):
            if threading.get_ident() == loop:
                self.on_loop += 1
            else:
                self.entered.set()
                assert self.go.wait(20)
            return original(*arguments)

        monkeypatch.setattr(codec, name, gated)


@pytest.fixture(params=["decode", "encode"])
def gate(request, monkeypatch):
    gate = Gate(monkeypatch, json_body, request.param)
    yield gate
    gate.go.set()


async def test_others_are_answered_while_a_large_body_is_read_or_written(replica, gate):
    large = asyncio.create_task(replica.ask(json_of(50_000), JSON))
    while not gate.entered.is_set():
        await asyncio.sleep(0.001)
    for _ in range(5):
        _, body = await replica.ask(json_of(2), JSON)
        assert json.loads(body)["outputs"][0]["data"] == [0, 2]
        await replica.ask(message(np.ones((1, 1), np.float32)))
    assert not large.done()
    gate.go.set()
    _, body = await large
    assert json.loads(body)["outputs"][0]["data"] == [2 * n for n in range(50_000)]
    assert gate.on_loop == 5


async def test_a_body_of_a_second_does_not_wait_for_one_of_many(replica, monkeypatch):
    gate = Gate(monkeypatch, json_body, "decode")
    huge = asyncio.create_task(replica.ask(json_of(400_000), JSON))
    while not gate.entered.is_set():
        await asyncio.sleep(0.001)
    monkeypatch.undo()
    _, body = await asyncio.wait_for(replica.ask(json_of(20_000), JSON), 20)
    assert len(json.loads(body)["outputs"][0]["data"]) == 20_000
    gate.go.set()
    await huge


async def test_a_large_raw_tensor_takes_no_thread(replica, monkeypatch):
    gate = Gate(monkeypatch, protobuf_body, "decode")
    gate.go.set()
    await replica.ask(message(np.ones((100_000, 1), np.float32)))
    assert gate.on_loop == 1
    assert not gate.entered.is_set()


async def test_what_was_read_for_a_version_that_is_gone_is_read_again(replica, monkeypatch):
    gate = Gate(monkeypatch, json_body, "decode")
    asked = asyncio.create_task(replica.ask(json_of(50_000), JSON))
    while not gate.entered.is_set():
        await asyncio.sleep(0.001)
    old = replica.loaded["double"]
    replica.loaded["double"] = variant_of(type(replica.model)())
    await old.retire()
    gate.go.set()
    _, body = await asked
    assert json.loads(body)["outputs"][0]["data"][-1] == 2 * 49_999
    assert replica.model.closed


async def test_what_the_caller_takes_back_is_not_read(replica, monkeypatch):
    gate = Gate(monkeypatch, json_body, "decode")
    first = asyncio.create_task(replica.ask(json_of(50_000), JSON))
    while not gate.entered.is_set():
        await asyncio.sleep(0.001)
    second = asyncio.create_task(replica.ask(json_of(50_000), JSON))
    while replica.server.in_flight < 2:
        await asyncio.sleep(0.001)
    second.cancel()
    while replica.server.in_flight == 2:
        await asyncio.sleep(0.001)
    gate.go.set()
    await first
    assert len(replica.model.runs) == 1


async def test_an_error_found_beside_the_loop_is_told(replica):
    error = await replica.refused(json_of(50_000)[:-9], JSON)
    assert error.code == "INVALID_REQUEST"
    await replica.ask(json_of(50_000), JSON)


async def test_lanes_do_small_work_at_once_and_the_rest_on_threads():
    lane, seen = Lanes(), {}
    done = asyncio.Event()

    def work(name):
        def do():
            seen[name] = threading.current_thread().name
            return done.set

        return do

    lane(lanes.INLINE_WORK, work("small"))
    assert done.is_set()
    for name, amount in (("short", lanes.SHORT_WORK), ("long", lanes.SHORT_WORK + 1)):
        done.clear()
        lane(amount, work(name))
        await asyncio.wait_for(done.wait(), 10)
    assert seen["small"] == threading.current_thread().name
    assert seen["short"].startswith("codec_")
    assert seen["long"].startswith("codec-long_")


async def test_there_is_an_end_to_what_waits():
    lane, go, done = Lanes(), threading.Event(), asyncio.Event()

    def held():
        assert go.wait(20)
        return done.set

    lane.check_room(2 * lanes.MAX_WAITING_WORK)  # nothing waits yet
    lane(lanes.MAX_WAITING_WORK, held)
    with pytest.raises(Overloaded):
        lane.check_room(1)
    go.set()
    await asyncio.wait_for(done.wait(), 10)
    lane.check_room(1)
