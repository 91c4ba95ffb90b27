"""The compiler against a real NATS server: a pushed model becomes verified variants."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from adlik_common import bus as bus_module
from adlik_common import events
from adlik_common.artifacts import open_store
from adlik_common.service import Context
from adlik_common.state import open_state
from adlik_compiler.settings import CompilerSettings
from adlik_compiler.worker import open_worker
from adlik_proto.adlik.control.v1 import control_pb2
from adlik_proto.adlik.events.v1 import events_pb2
from adlik_proto.adlik.model.v1 import model_pb2
from onnx import TensorProto, helper, numpy_helper

ONNX_TYPE = "application/x-onnx"


def classifier(domain: str = "") -> onnx.ModelProto:
    random = np.random.default_rng(7)
    weight = numpy_helper.from_array(random.standard_normal((16, 10), np.float32), "weight")
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["scores"]),
        helper.make_node("Relu", ["scores"], ["y"], domain=domain, name="last"),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
        [weight],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.ops", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@contextlib.asynccontextmanager
async def running(settings, tmp_path):
    """A compiler in this process, and a context to talk to it with."""
    own = CompilerSettings(
        **settings.model_dump(exclude={"otlp_endpoint"}), verify_latency_seconds=0.05
    )
    bus = await bus_module.connect(own, "test")
    state, store = await open_state(bus), await open_store(own, bus)
    replica = control_pb2.Replica(id="test", service="compiler")
    context = Context("compiler", "test", own, bus, state, store, replica)
    worker = await open_worker(context)
    worker.describe()
    context.background(worker.compile(), "consumer compiler")
    context.background(worker.verify(), "consumer verifier")
    try:
        yield context
    finally:
        bus.draining.set()
        await context.finish()
        await bus.close()
    assert context.failure is None


async def put(context, tmp_path: Path, model: onnx.ModelProto, name: str = "model.onnx"):
    path = tmp_path / name
    onnx.save(model, path)
    return await context.artifacts.put_file(path, ONNX_TYPE)


def pushed(artifact, name: str = "net", **source) -> model_pb2.PushedModel:
    return model_pb2.PushedModel(
        name=name,
        version=1,
        source=model_pb2.ModelSource(format="onnx", artifact=artifact, **source),
    )


async def heard(context, wanted, count: int, seconds: float = 60) -> list:
    """Waits for this many events of a type, from the start of the stream."""
    subscription = await context.bus.jetstream.subscribe(
        events.subject_filter(wanted), ordered_consumer=True
    )
    found = []
    async with asyncio.timeout(seconds):
        while len(found) < count:
            message = await subscription.next_msg(timeout=seconds)
            found.append(wanted.FromString(message.data))
    await subscription.unsubscribe()
    return found


async def test_a_pushed_model_is_compiled_and_verified_as_it_is(settings, tmp_path):
    async with running(settings, tmp_path) as context:
        artifact = await put(context, tmp_path, classifier())
        await context.bus.publish(events_pb2.ModelPushed(pushed=pushed(artifact)))
        (verified,) = await heard(context, events_pb2.ModelVerified, 1)
        finished = await heard(context, events_pb2.StageFinished, 2)
    assert verified.compiled.variant == "pushed.onnxruntime-fp32"
    assert verified.compiled.artifact == artifact
    assert list(verified.compiled.path) == ["onnx", "onnxruntime"]
    assert verified.verification.accepted
    assert verified.verification.samples_source == "generated"
    assert verified.verification.speedup == 1.0
    assert verified.verification.latency.p50_ms > 0
    stages = {done.finished.stage: list(done.finished.outputs) for done in finished}
    assert stages == {"compiler": ["pushed.onnxruntime-fp32"], "verifier": []}


async def test_an_optimized_model_is_compiled_for_every_target_and_judged(settings, tmp_path):
    samples = tmp_path / "samples.npz"
    random = np.random.default_rng(3)
    x = random.standard_normal((20, 16)).astype(np.float32)
    np.savez(samples, x=x, labels=random.integers(0, 10, 20))
    async with running(settings, tmp_path) as context:
        artifact = await put(context, tmp_path, classifier())
        npz = await context.artifacts.put_file(samples, "application/x-npz")
        can = {t for t, why in context.replica.capabilities.items() if not why}
        optimized = model_pb2.OptimizedModel(
            recipe="clean", artifact=artifact, format="onnx", precision="fp32"
        )
        event = events_pb2.ModelOptimized(pushed=pushed(artifact, samples=npz), optimized=optimized)
        await context.bus.publish(event)
        wanted = {f"clean.{target}" for target in can if not target.endswith("int8")}
        verified = await heard(context, events_pb2.ModelVerified, len(wanted))
        compiled = {v.compiled.variant: v.compiled for v in verified}
    assert set(compiled) == wanted
    assert "tensorrt-fp16" not in can
    assert "tensorrt" in context.replica.capabilities["tensorrt-fp16"]
    for event in verified:
        assert event.verification.accepted, event.verification.reasons
        assert event.verification.samples > 10  # half of the samples, and made-up inputs
        assert event.verification.samples_source == "provided"
        assert event.verification.accuracy == event.verification.reference_accuracy
        assert event.verification.fidelity.expected_accuracy > 0.99
        (output,) = event.verification.fidelity.outputs
        assert (output.name, output.kind) == ("y", "class scores")
        assert event.verification.serving.independent_rows
    assert compiled["clean.openvino-fp32"].artifact.media_type == "application/zip"


async def test_the_same_model_under_another_name_is_not_compiled_again(settings, tmp_path):
    async with running(settings, tmp_path) as context:
        artifact = await put(context, tmp_path, classifier())
        for name in ("one", "two"):
            await context.bus.publish(events_pb2.ModelPushed(pushed=pushed(artifact, name)))
        compiled = await heard(context, events_pb2.ModelCompiled, 2)
    assert [event.compiled.cached for event in compiled] == [False, True]
    assert compiled[0].compiled.artifact == compiled[1].compiled.artifact


async def test_an_unknown_operator_fails_its_target_in_words(settings, tmp_path):
    async with running(settings, tmp_path) as context:
        artifact = await put(context, tmp_path, classifier(domain="my.ops"))
        await context.bus.publish(events_pb2.ModelPushed(pushed=pushed(artifact)))
        (failed,) = await heard(context, events_pb2.StageFailed, 1)
        (finished,) = await heard(context, events_pb2.StageFinished, 1)
    assert failed.failure.subject == "pushed.onnxruntime-fp32"
    assert failed.failure.error.code == "UNSUPPORTED_OPERATOR"
    assert "'Relu' of domain 'my.ops'" in failed.failure.error.message
    assert list(finished.finished.outputs) == []


async def test_weights_beside_the_model_are_taken_in(settings, tmp_path):
    folder = tmp_path / "export"
    folder.mkdir()
    onnx.save_model(
        classifier(), folder / "net.onnx", save_as_external_data=True, location="net.data",
        size_threshold=0,
    )  # fmt: skip
    async with running(settings, tmp_path) as context:
        model = await context.artifacts.put_file(folder / "net.onnx", ONNX_TYPE)
        data = await context.artifacts.put_file(folder / "net.data", "application/octet-stream")
        files = [model_pb2.ExternalFile(name="net.data", artifact=data)]
        await context.bus.publish(
            events_pb2.ModelPushed(pushed=pushed(model, external_files=files))
        )
        (verified,) = await heard(context, events_pb2.ModelVerified, 1)
        path = await context.artifacts.fetch(verified.compiled.artifact)
        (weight,) = onnx.load(path, load_external_data=False).graph.initializer
    assert verified.verification.accepted
    assert numpy_helper.to_array(weight).shape == (16, 10)


@pytest.mark.parametrize(
    ("content", "code"), [(b"", "INVALID_MODEL"), (b"no model at all", "INVALID_MODEL")]
)
async def test_what_is_no_model_fails_and_the_worker_lives_on(settings, tmp_path, content, code):
    bad = tmp_path / "bad"
    bad.write_bytes(content)
    async with running(settings, tmp_path) as context:
        artifact = await context.artifacts.put_file(bad, ONNX_TYPE)
        await context.bus.publish(events_pb2.ModelPushed(pushed=pushed(artifact, "bad")))
        (failed,) = await heard(context, events_pb2.StageFailed, 1)
        good = await put(context, tmp_path, classifier())
        await context.bus.publish(events_pb2.ModelPushed(pushed=pushed(good, "good")))
        (verified,) = await heard(context, events_pb2.ModelVerified, 1)
    assert failed.failure.error.code == code
    assert verified.pushed.name == "good"
