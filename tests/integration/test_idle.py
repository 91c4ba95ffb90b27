"""An idle compiler against a real NATS server: what is served is tuned, by event and only once."""

from __future__ import annotations

import asyncio
import contextlib

import numpy as np
import onnx
import psutil
import pytest
from adlik_common import bundle, names
from adlik_common import bus as bus_module
from adlik_common.artifacts import open_store
from adlik_common.errors import EngineFailed, Unavailable
from adlik_common.service import Context
from adlik_common.state import open_bucket, open_state
from adlik_compiler.idle import Marks, open_tuner, tune_in_child
from adlik_compiler.idle_tuning import Tuned
from adlik_compiler.settings import CompilerSettings
from adlik_compiler.worker import open_worker
from adlik_gateway.catalog.projector import Projector
from adlik_kernels.machine.target import host
from adlik_kernels.schedules.db import Database, Record, workload_of
from adlik_kernels.schedules.space import Space
from adlik_proto.adlik.control.v1 import control_pb2
from adlik_proto.adlik.events.v1 import events_pb2
from adlik_proto.adlik.model.v1 import model_pb2
from adlik_runtimes.kernels import MODEL_FILE, RECORDS_FILE, REPORT_FILE
from onnx import TensorProto, helper, numpy_helper

from tests.events import stored_facts

VARIANT = "clean.kernels-fp32"
WORKLOADS = ("dense-fp32-1x48x64", "dense-fp32-1x10x48")


def perceptron() -> onnx.ModelProto:
    random = np.random.default_rng(5)
    first, second = (
        random.standard_normal(shape).astype(np.float32) for shape in ((64, 48), (48, 10))
    )
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "first"], ["a"]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("MatMul", ["b", "second"], ["y"]),
        ],
        "perceptron",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(first, "first"), numpy_helper.from_array(second, "second")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home for the children, so that nothing is made up about this machine for good."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


class Mesh:
    """A compiler, its tuner and the gateway's share, all in this process."""

    def __init__(self, context, tune):
        self.context, self.own_tune = context, tune
        self.calls = []

    async def tune(self, candidate, folder):
        self.calls.append(candidate)
        return await self.own_tune(candidate, folder)

    async def push(self, tmp_path):
        """Pushes a model that is compiled for Adlik's kernels only."""
        path = tmp_path / "model.onnx"
        onnx.save(perceptron(), path)
        artifact = await self.context.artifacts.put_file(path, "application/x-onnx")
        pushed = model_pb2.PushedModel(name="m", version=1)
        pushed.source.format = "onnx"
        pushed.source.artifact.CopyFrom(artifact)
        pushed.plan.targets.append("kernels-fp32")
        record = model_pb2.ModelVersion(pushed=pushed)
        await self.context.state.models.put(names.version_key("m", 1), record)
        made = {"recipe": "clean", "artifact": artifact, "format": "onnx", "precision": "fp32"}
        await self.context.bus.publish(events_pb2.ModelOptimized(pushed=pushed, optimized=made))

    async def facts(self, kind):
        stored = await stored_facts(self.context.settings.nats_url)
        return [fact.event for fact in stored if isinstance(fact.event, kind)]

    async def until(self, found, seconds=60):
        """Returns the first true value that a coroutine function gives."""
        async with asyncio.timeout(seconds):
            while not (value := await found()):
                await asyncio.sleep(0.05)
            return value

    async def facts_of(self, kind, count):
        async def enough():
            found = await self.facts(kind)
            return found if len(found) >= count else None

        return await self.until(enough)

    async def mark(self, candidate):
        """Waits until there is a final mark of a bundle; returns the best bundle's digest."""
        store = await self.context.bus.jetstream.key_value("adlik_tuned")
        key = f"{candidate.digest.removeprefix('sha256:')}.{host().key}"

        async def final():
            if key not in await keys_of(store):
                return None
            return model_pb2.FinishedStage.FromString((await store.get(key)).value).outputs

        (best,) = await self.until(final)
        return best


async def keys_of(store):
    with contextlib.suppress(Exception):  # NATS raises where there is none
        return await store.keys()
    return []


@contextlib.asynccontextmanager
async def running(settings, tune, **options):
    own = CompilerSettings(
        **settings.model_dump(exclude={"otlp_endpoint"}),
        **{"idle_seconds": 0.2, "engine_threads": 1, "verify_latency_seconds": 0.05, **options},
    )
    bus = await bus_module.connect(own, "test")
    replica = control_pb2.Replica(id="test", service="compiler")
    context = Context(
        "compiler", "test", own, bus, await open_state(bus), await open_store(own, bus), replica
    )
    worker, projector = await open_worker(context), Projector(bus, context.state)
    mesh = Mesh(context, tune or (lambda *given: tune_in_child(context, *given)))
    tuner = await open_tuner(context, worker.activity, mesh.tune)
    for name, work in {
        "consumer compiler": worker.compile(),
        "consumer verifier": worker.verify(),
        "consumer catalog": projector.run_catalog(),
        "consumer release": projector.run_release(),
        "heartbeat": context.heartbeat(),
        "releases": tuner.follow_releases(),
        "tuner": tuner.run(),
    }.items():
        context.background(work, name)
    try:
        yield mesh
    finally:
        bus.draining.set()
        await context.finish()
        await bus.close()
    assert context.failure is None


def earlier_records():
    """Measurements that a run before has kept: so good that they win whatever is measured now."""
    for key in WORKLOADS:
        space = Space(workload_of(key), host(), 1)
        for schedule, _ in zip(space, range(8), strict=False):
            yield Record(key, host().key, 1, schedule, seconds=1e-6, speed=7.0)


async def test_what_is_served_is_tuned_and_compiled_and_verified_anew(settings, tmp_path, home):
    async def tune(candidate, folder):
        kept = mesh.context.settings.cache_dir / "tuning" / candidate.digest[7:]
        Database(kept / "records.jsonl").merge(earlier_records())
        return await tune_in_child(mesh.context, candidate, folder)

    options = {"tune_seconds": 1, "tune_min_gain": 0}
    async with running(settings, tune, **options) as mesh:
        await mesh.push(tmp_path)
        first, second = await mesh.facts_of(events_pb2.ModelCompiled, 2)
        checks = await mesh.facts_of(events_pb2.ModelVerified, 2)
        best = await mesh.mark(mesh.calls[0])
        folder = tmp_path / "tuned"
        path = await mesh.context.artifacts.fetch(second.compiled.artifact)
        bundle.unpack(path, folder, max_bytes=1 << 20)
        assert not (mesh.context.settings.cache_dir / "tuning" / mesh.calls[0].digest[7:]).exists()
    assert [made.compiled.variant for made in (first, second)] == [VARIANT] * 2
    assert first.pushed == second.pushed
    assert first.compiled.artifact.digest == mesh.calls[0].digest
    assert second.compiled.artifact.digest == best != mesh.calls[0].digest
    assert {path.name for path in folder.iterdir()} >= {MODEL_FILE, RECORDS_FILE, REPORT_FILE}
    assert {record.workload for record in Database(folder / RECORDS_FILE)} == set(WORKLOADS)
    assert [check.compiled.artifact.digest for check in checks] == [mesh.calls[0].digest, best]
    assert all(check.verification.accepted for check in checks)
    assert len(mesh.calls) == 1, "the new bundle is known to be tuned"
    assert not list(home.rglob("kernels/records.jsonl")), "only what is served leaves records here"


async def test_what_did_not_get_faster_is_marked_and_nothing_is_published(settings, tmp_path):
    async def tune(candidate, folder):
        return Tuned(2, 1.01, 0.1, reason="not enough")

    async with running(settings, tune) as mesh:
        await mesh.push(tmp_path)
        await mesh.until(lambda: called(mesh))
        assert await mesh.mark(mesh.calls[0]) == mesh.calls[0].digest
        await asyncio.sleep(0.5)
        assert len(await mesh.facts(events_pb2.ModelCompiled)) == 1
    assert len(mesh.calls) == 1


async def called(mesh, times=1):
    return len(mesh.calls) >= times


async def test_tuning_ends_when_an_event_comes_and_begins_again_after(settings, tmp_path):
    ended = asyncio.Event()

    async def tune(candidate, folder):
        if ended.is_set():
            return Tuned(0, 1.0, 0.1, reason="nothing")
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with running(settings, tune) as mesh:
        await mesh.push(tmp_path)
        await mesh.until(lambda: called(mesh))
        assert not ended.is_set()
        pushed = replace_name(mesh.calls[0].pushed, "other")
        await mesh.context.bus.publish(events_pb2.ModelPushed(pushed=pushed))
        async with asyncio.timeout(60):
            await ended.wait()
        await mesh.until(lambda: called(mesh, 2))
        assert await mesh.mark(mesh.calls[1]) == mesh.calls[0].digest
    assert [call.digest for call in mesh.calls] == [mesh.calls[0].digest] * 2


async def test_what_a_child_measured_before_it_was_cut_off_is_kept(settings, tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    async with running(settings, None, tune_seconds=100) as mesh:
        await mesh.push(tmp_path)
        await mesh.until(lambda: called(mesh))
        kept = Database(settings.cache_dir / "tuning" / mesh.calls[0].digest[7:] / RECORDS_FILE)

        async def measured():
            return list(kept)

        first = await mesh.until(measured)
        trials = [child for child in psutil.Process().children(recursive=True) if is_trial(child)]
        assert trials
        pushed = replace_name(mesh.calls[0].pushed, "other")
        await mesh.context.bus.publish(events_pb2.ModelPushed(pushed=pushed))
        await mesh.until(lambda: called(mesh, 2))
        assert list(kept)[: len(first)] == first
        assert not any(child.is_running() and is_trial(child) for child in trials)
        assert not list(scratch.glob("adlik-*")), "what a killed process has left"


def is_trial(process):
    with contextlib.suppress(psutil.Error):
        return "adlik_kernels.search.trial" in process.cmdline()
    return False


def replace_name(pushed, name):
    copy = model_pb2.PushedModel()
    copy.CopyFrom(pushed)
    copy.name = name
    return copy


@pytest.mark.parametrize(
    ("error", "is_final"), [(EngineFailed("It broke."), True), (Unavailable("Killed."), False)]
)
async def test_a_failure_is_not_tried_again_here(settings, tmp_path, error, is_final):
    async def tune(candidate, folder):
        raise error

    async with running(settings, tune) as mesh:
        await mesh.push(tmp_path)
        await mesh.until(lambda: called(mesh))
        store = await mesh.context.bus.jetstream.key_value("adlik_tuned")

        async def is_noted():
            return len(await keys_of(store)) == is_final

        await mesh.until(is_noted)
        await asyncio.sleep(0.5)
        assert await is_noted()
    assert len(mesh.calls) == 1


async def test_a_bundle_is_tuned_by_one_compiler_and_by_the_next_if_that_one_dies(settings):
    bus = await bus_module.connect(CompilerSettings(**settings.model_dump()), "test")
    state, contexts = await open_state(bus), {}
    for name in ("a", "b"):
        replica = control_pb2.Replica(id=name, service="compiler")
        contexts[name] = Context("compiler", name, bus.settings, bus, state, None, replica)
    bucket = await open_bucket(bus, "adlik_tuned", model_pb2.FinishedStage)
    a, b = (Marks(contexts[name], bucket, "znver4-avx512") for name in ("a", "b"))
    elsewhere = Marks(contexts["b"], bucket, "znver2-avx2")
    await contexts["a"].announce()
    assert await a.claim("sha256:1")
    assert await a.claim("sha256:1"), "its own claim, after it was cut off"
    assert not await b.claim("sha256:1")
    assert await elsewhere.claim("sha256:1")
    won = await asyncio.gather(a.claim("sha256:2"), b.claim("sha256:2"))
    assert won.count(True) >= 1
    await a.drop("sha256:1")
    assert await b.claim("sha256:1"), "given up"
    await a.claim("sha256:3")
    await state.replicas.delete("compiler.a")
    assert await b.claim("sha256:3"), "its compiler is gone"
    await b.finish("sha256:3", "sha256:4")
    assert not await a.claim("sha256:3")
    assert not await b.claim("sha256:3")
    await bus.close()
