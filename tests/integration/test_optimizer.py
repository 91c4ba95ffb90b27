"""The optimizer on a real bus: a push becomes optimized models, and failures are said."""

from __future__ import annotations

import asyncio
import contextlib

import numpy as np
import onnx
import pytest
from adlik_common import bus as bus_module
from adlik_common.artifacts import open_store
from adlik_common.service import Context
from adlik_common.state import open_state
from adlik_optimizer.__main__ import start
from adlik_optimizer.settings import OptimizerSettings
from adlik_proto.adlik.control.v1 import control_pb2
from adlik_proto.adlik.events.v1 import events_pb2
from adlik_proto.adlik.model.v1 import model_pb2

from tests.unit.optimizer import graphs


@pytest.fixture
async def context(settings):
    own = OptimizerSettings(**settings.model_dump())
    bus = await bus_module.connect(own, "test")
    made = Context(
        "optimizer", "t", own, bus, await open_state(bus), await open_store(own, bus),
        control_pb2.Replica(),
    )  # fmt: skip
    async with start(made):
        yield made
        bus.draining.set()
        await made.finish()
    await bus.close()


async def pushed(context, tmp_path, model, *, samples=True):
    onnx.save(model, tmp_path / "m.onnx")
    source = model_pb2.ModelSource(
        format="onnx", artifact=await context.artifacts.put_file(tmp_path / "m.onnx", "x")
    )
    if samples:
        rng = np.random.default_rng(0)
        np.savez(tmp_path / "s.npz", x=rng.standard_normal((8, 3, 8, 8)).astype(np.float32))
        ref = await context.artifacts.put_file(tmp_path / "s.npz", "x")
        source.samples.CopyFrom(ref)
    return events_pb2.ModelPushed(pushed=model_pb2.PushedModel(name="m", version=1, source=source))


async def published(context, event, until):
    """Publishes a push and returns the events that follow, up to the first of a type."""
    found = []

    async def note(event, delivery):
        found.append(event)

    types = (events_pb2.ModelOptimized, events_pb2.StageFailed, events_pb2.StageFinished)
    task = asyncio.create_task(context.bus.consume("catalog", dict.fromkeys(types, note)))
    await context.bus.publish(event)
    async with asyncio.timeout(60):
        while not any(isinstance(e, until) for e in found):
            await asyncio.sleep(0.05)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return found


async def test_a_push_is_cleaned_and_quantized(context, tmp_path):
    event = await pushed(context, tmp_path, graphs.residual_cnn())
    clean, int8, finished = await published(context, event, events_pb2.StageFinished)
    assert (clean.optimized.recipe, clean.optimized.precision) == ("clean", "fp32")
    assert (int8.optimized.recipe, int8.optimized.precision) == ("int8", "int8")
    assert list(finished.finished.outputs) == ["clean", "int8"]
    assert {p.name for p in clean.optimized.passes if p.modified} >= {"fold-batch-norm"}
    path = await context.artifacts.fetch(clean.optimized.artifact)
    assert "BatchNormalization" not in {n.op_type for n in onnx.load(path).graph.node}


async def test_one_recipe_that_fails_does_not_stop_the_others(context, tmp_path):
    event = await pushed(context, tmp_path, graphs.residual_cnn(), samples=False)
    clean, failed, finished = await published(context, event, events_pb2.StageFinished)
    assert clean.optimized.recipe == "clean"
    assert (failed.failure.subject, failed.failure.error.code) == ("int8", "INVALID_SAMPLES")
    assert list(finished.finished.outputs) == ["clean"]


async def test_a_custom_operator_is_named_and_the_worker_goes_on(context, tmp_path):
    event = await pushed(context, tmp_path, graphs.with_custom_operator(), samples=False)
    failed, finished = await published(context, event, events_pb2.StageFinished)
    assert failed.failure.error.code == "UNSUPPORTED_OPERATOR"
    assert "Fancy" in failed.failure.error.message
    assert not finished.finished.outputs
