"""A model variant in memory: opened from its artifact, warm, and given back once replaced."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from adlik_common import bundle, spans
from adlik_common.errors import EngineFailed
from adlik_common.telemetry import tracer
from adlik_proto.adlik.control.v1 import control_pb2
from adlik_proto.adlik.model.v1 import model_pb2
from adlik_runtimes import onnxruntime
from adlik_runtimes.engine import LoadedModel
from adlik_runtimes.registry import engine as find_engine

from adlik_serving.batcher import Batcher, Limits
from adlik_serving.guard import Guard
from adlik_serving.metrics import VariantMetrics
from adlik_serving.oip.request import ModelLabel, Signature
from adlik_serving.warmup import WarmUp, warm_up

if TYPE_CHECKING:
    from adlik_serving.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Opened:
    """A model that an engine has loaded and that has been warmed up.

    Attributes:
        model: The engine's model.
        warm: What the warm-up has shown.
        memory_bytes: Resident memory that opening it added to the process.
        pipeline: What its plan puts between requests and it, warm as well.
        guard: Tells requests apart that the pushed model answers in its place.
    """

    model: LoadedModel
    warm: WarmUp
    memory_bytes: int
    pipeline: Pipeline | None = None
    guard: Guard | None = None


def open_variant(
    path: Path,
    release: model_pb2.Release,
    *,
    pushed: Path | None,
    threads: int,
    max_rows: int,
    max_bytes: int,
    cache: Path,
) -> Opened:
    """Loads and warms a released model; takes seconds, so it is called in a thread.

    Args:
        path: The artifact.
        release: What it is.
        pushed: The pushed model's file, where it must answer some requests.
        threads: Threads of the engine.
        max_rows: Largest batch that is configured.
        max_bytes: Largest size of an unpacked bundle.
        cache: Folder of this machine's copies.

    Raises:
        NotFound: No such engine.
        EngineFailed: The engine does not run here or can't load the model.
        InvalidPlan: The plan's pipeline does not fit the model.
    """
    compiled, plan = release.compiled, release.pushed.plan
    engine = find_engine(compiled.engine)
    if reason := engine.unavailable():
        raise EngineFailed(
            f"The engine {compiled.engine} does not run on this replica: {reason}.",
            cure="Release a variant for another engine, or serve on a machine that has it.",
        )
    before = psutil.Process().memory_info().rss
    with _files_of(path, compiled.artifact.media_type, max_bytes) as files:
        with tracer().start_as_current_span(spans.LOAD):
            model = engine.load(files, precision=compiled.precision, threads=threads)
        try:
            with tracer().start_as_current_span(spans.WARM_UP):
                rows = max_rows if release.serving.independent_rows else 0
                is_exact = compiled.precision == "fp32"
                warm = warm_up(model, rows, is_exact=is_exact)
                added = max(0, psutil.Process().memory_info().rss - before)
                if not plan.HasField("pipeline"):
                    return Opened(model, warm, added, guard=_guard(release, pushed, threads))
                # The kernels take a while to import, and most models need none.
                from adlik_serving.pipeline import open_pipeline

                pipeline, own_ns = open_pipeline(plan.pipeline, model, threads=threads, cache=cache)
                return Opened(model, replace(warm, run_ns=warm.run_ns + own_ns), added, pipeline)
        except BaseException:
            model.close()
            raise


def _guard(release: model_pb2.Release, pushed: Path | None, threads: int) -> Guard:
    def open_pushed() -> LoadedModel:
        assert pushed is not None
        return onnxruntime.ENGINE.load(pushed, threads=threads)

    return Guard(release.serving.deferred, release.serving.refused, open_pushed)


@contextmanager
def _files_of(path: Path, media_type: str, max_bytes: int) -> Iterator[Path]:
    """Yields the file, or the folder of a bundle's files, that the engine loads."""
    if media_type != bundle.MEDIA_TYPE:
        yield path
        return
    # Engines read or map the files while loading; what is mapped outlives its name.
    with tempfile.TemporaryDirectory(prefix="adlik-model-") as folder:
        bundle.unpack(path, Path(folder), max_bytes=max_bytes)
        yield Path(folder)


class LoadedVariant:
    """A variant that answers requests.

    Args:
        release: Why it is loaded.
        opened: The model.
        limits: How far its queue may grow; batches are limited by what the warm-up has shown too.

    Attributes:
        release: As given; replaced where a newer release names the same artifact.
        name: The model's name.
        version: The model's version.
        label: Name and version as answers state them.
        signature: What clients send and get: its own tensors, or those of its pipeline.
        pipeline: What its plan puts between requests and it; None: nothing.
        batcher: Where requests are submitted.
        memory_bytes: Resident memory that it added.
    """

    def __init__(self, release: model_pb2.Release, opened: Opened, limits: Limits) -> None:
        self.release = release
        self.name, self.version = release.pushed.name, release.pushed.version
        self.label = ModelLabel(self.name, str(self.version))
        self.variant = release.compiled.variant
        self.memory_bytes = opened.memory_bytes
        self._model, self._guard = opened.model, opened.guard
        self._max_rows = limits.max_rows
        self.pipeline = pipeline = opened.pipeline
        self.signature = (
            pipeline.signature
            if pipeline
            else Signature.of(opened.model.inputs, opened.model.outputs)
        )
        self._metrics = VariantMetrics(self.name, self.variant)
        self.batcher = batcher = Batcher(
            opened.model,
            limits,
            self._metrics,
            opened.warm.run_ns,
            steps=pipeline,
            guard=opened.guard,
        )
        self._metrics.show(
            lambda: batcher.queued, lambda: batcher.queued_bytes, opened.memory_bytes
        )

    def serves(self, release: model_pb2.Release) -> bool:
        """Whether this is what the release asks for, whatever the release's revision."""
        mine = self.release
        return (
            mine.compiled == release.compiled
            and mine.pushed == release.pushed
            and mine.serving == release.serving
        )

    def describe(self) -> control_pb2.LoadedModel:
        """Returns this variant's part of the replica's entry."""
        return control_pb2.LoadedModel(
            name=self.name,
            version=self.version,
            variant=self.variant,
            revision=self.release.revision,
            engine=self.release.compiled.engine,
            memory_bytes=self.memory_bytes,
            # A request of a pipeline is one picture: it has no batch axis that clients know of.
            max_batch_size=0 if self.pipeline else self._max_rows,
            signature=_describe(self.signature),
        )

    async def retire(self) -> None:
        """Answers what was accepted, then gives the memory back."""
        await self.batcher.drain()
        self.batcher.close()
        await asyncio.to_thread(self._model.close)
        if self._guard is not None:
            await asyncio.to_thread(self._guard.close)
        self._metrics.hide()


def _describe(signature: Signature) -> model_pb2.Signature:
    return model_pb2.Signature(
        inputs=[
            model_pb2.TensorSpec(name=spec.name, datatype=spec.datatype, shape=spec.shape)
            for spec in signature.inputs.values()
        ],
        outputs=[
            model_pb2.TensorSpec(name=spec.name, datatype=spec.datatype, shape=spec.shape)
            for spec in signature.outputs.values()
        ],
    )
