"""What is tuned while a compiler is idle, and how that yields to work."""

from __future__ import annotations

import asyncio

import pytest
from adlik_common.bus import Delivery
from adlik_compiler.activity import Activity
from adlik_compiler.idle import candidates_of
from adlik_proto.adlik.model.v1 import model_pb2

ONCE = Delivery(attempt=1, last=False)


def compiled(variant, digest):
    engine = variant.partition(".")[2].partition("-")[0]
    artifact = model_pb2.ArtifactRef(digest=digest)
    return model_pb2.CompiledModel(variant=variant, engine=engine, artifact=artifact)


def release_of(served, *, pinned=False):
    pushed = model_pb2.PushedModel(name="m", version=3)
    return model_pb2.Release(pushed=pushed, compiled=served, pinned=pinned, traceparent="t")


def record_of(*variants):
    record = model_pb2.ModelVersion()
    for made, speedup, accepted in variants:
        variant = record.variants.add(compiled=made)
        variant.verification.speedup, variant.verification.accepted = speedup, accepted
    return record


FP32 = compiled("clean.kernels-fp32", "sha256:1")
INT8 = compiled("int8.kernels-int8", "sha256:2")
BETTER = compiled("clean.kernels-fp32", "sha256:3")
OTHER = compiled("clean.openvino-fp32", "sha256:4")


def test_what_is_served_comes_first_then_the_fastest_that_passed():
    record = record_of((INT8, 1.5, True), (BETTER, 2.0, True), (OTHER, 9.0, True))
    found = candidates_of(release_of(FP32), record)
    assert [c.digest for c in found] == ["sha256:1", "sha256:3", "sha256:2"]
    assert [c.is_released for c in found] == [True, False, False]
    assert found[2].pushed.version == 3
    assert found[2].traceparent == "t"


def test_other_engines_and_what_was_rejected_are_left_alone():
    assert candidates_of(release_of(OTHER), record_of((FP32, 3.0, False), (OTHER, 1.0, True))) == []


def test_the_same_bundle_is_named_once_and_a_missing_record_does_no_harm():
    found = candidates_of(release_of(FP32), record_of((FP32, 1.0, True)))
    assert [c.digest for c in found] == ["sha256:1"]
    assert candidates_of(release_of(FP32), None) == found


def test_a_choice_by_hand_would_stay_so_nothing_is_tuned():
    assert candidates_of(release_of(FP32, pinned=True), record_of((INT8, 1.0, True))) == []


async def hang():
    await asyncio.Event().wait()


async def test_idle_work_ends_when_there_is_work_and_not_before():
    activity, go, ended = Activity(), asyncio.Event(), []

    async def idle():
        try:
            await hang()
        finally:
            ended.append(True)

    async def handler(event, delivery):
        await go.wait()
        return [event]

    task = asyncio.create_task(activity.unless_working(idle()))
    await asyncio.sleep(0.05)
    assert not task.done()
    work = asyncio.create_task(activity.watched(handler)("e", ONCE))
    assert await task is None
    assert ended == [True]
    assert await activity.unless_working(hang()) is None, "the work still goes on"
    go.set()
    assert await work == ["e"]


async def test_work_that_failed_is_over():
    activity = Activity()

    async def handler(event, delivery):
        raise ValueError(event)

    with pytest.raises(ValueError, match="e"):
        await activity.watched(handler)("e", ONCE)

    async def idle():
        return 7

    assert await activity.unless_working(idle()) == 7


async def test_rest_comes_only_after_the_last_work():
    activity, go = Activity(), asyncio.Event()

    async def handler(event, delivery):
        await go.wait()

    await activity.rest(0)
    work = asyncio.create_task(activity.watched(handler)("e", ONCE))
    await asyncio.sleep(0)
    rest = asyncio.create_task(activity.rest(0.01))
    await asyncio.sleep(0.1)
    assert not rest.done()
    go.set()
    await work
    await rest


async def test_an_error_of_idle_work_is_heard_and_cancelling_ends_it():
    activity, ended = Activity(), []

    async def fail():
        raise ValueError("no")

    async def idle():
        try:
            await hang()
        finally:
            ended.append(True)

    with pytest.raises(ValueError, match="no"):
        await activity.unless_working(fail())
    task = asyncio.create_task(activity.unless_working(idle()))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert ended == [True]
