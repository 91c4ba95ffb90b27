"""Consumes pushed and optimized models, publishes compiled ones, and verifies those."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from adlik_common import spans, telemetry
from adlik_common.bus import Delivery
from adlik_common.errors import AdlikError, NotFound
from adlik_common.model_files import materialise
from adlik_common.sandbox import run_isolated
from adlik_common.sandbox_warm import Nursery
from adlik_common.service import Context
from adlik_common.state import Bucket, open_bucket
from adlik_proto.adlik.events.v1 import events_pb2
from adlik_proto.adlik.model.v1 import model_pb2
from adlik_runtimes import registry

from adlik_compiler import metrics, targets
from adlik_compiler.activity import Activity
from adlik_compiler.conversion import Route, convert
from adlik_compiler.judge import Report, judge
from adlik_compiler.kept_evidence import KeptEvidence
from adlik_compiler.planner import plan_path
from adlik_compiler.settings import CompilerSettings
from adlik_compiler.steps import registered_steps
from adlik_compiler.targets import PUSHED, Target
from adlik_compiler.verification import describe, limits_of
from adlik_compiler.verify import Candidate, Effort

log = logging.getLogger(__name__)

CACHE_BUCKET = "adlik_compile_cache"
WARM_MODULES = ("adlik_compiler.verify", "openvino", "adlik_kernels")
"""What the children of a push import: together it takes longer than the work on a small model.

Not ONNX Runtime: it starts a thread when it is imported, which a copy of the process would lack.
"""


class Worker:
    """Compiles and verifies; make it with `open_worker`.

    Args:
        context: The running service.
        cache: What was compiled before, by `Route.key`.

    Attributes:
        activity: Whether it has something to do.
        nursery: Makes its children.
    """

    def __init__(self, context: Context, cache: Bucket[model_pb2.CompiledModel]) -> None:
        self._context, self._cache = context, cache
        self._settings: CompilerSettings = context.settings
        self._engines, self._steps = registry.engines(), registered_steps()
        self._known = targets.all_targets(self._engines)
        # A conversion beside a measurement would take its processor time.
        self._quiet = asyncio.Lock()
        self._gathering = asyncio.Lock()
        self.nursery = Nursery(WARM_MODULES)
        self._kept_evidence = KeptEvidence(self._settings.cache_dir / "evidence")
        self.activity = Activity()

    def describe(self) -> None:
        """Writes into the replica's entry what this machine can do, and why not the rest."""
        replica = self._context.replica
        for name, engine in self._engines.items():
            replica.engines[name] = engine.unavailable()
        for target in self._known:
            replica.capabilities[str(target)] = self._why_not(target)

    async def compile(self) -> None:
        """Compiles pushed and optimized models until the service drains."""
        await self._context.bus.consume(
            "compiler",
            {
                events_pb2.ModelPushed: self.activity.watched(self._on_pushed),
                events_pb2.ModelOptimized: self.activity.watched(self._on_optimized),
            },
        )

    async def verify(self) -> None:
        """Verifies compiled models until the service drains."""
        handler = self.activity.watched(self._on_compiled)
        await self._context.bus.consume("verifier", {events_pb2.ModelCompiled: handler})

    async def _on_pushed(self, event: events_pb2.ModelPushed, delivery: Delivery) -> list[str]:
        return await self._compile_all(event.pushed, PUSHED, event.pushed.source, "fp32", delivery)

    async def _on_optimized(
        self, event: events_pb2.ModelOptimized, delivery: Delivery
    ) -> list[str]:
        made = event.optimized
        source = model_pb2.ModelSource(format=made.format, artifact=made.artifact)
        return await self._compile_all(event.pushed, made.recipe, source, made.precision, delivery)

    async def _compile_all(
        self,
        pushed: model_pb2.PushedModel,
        recipe: str,
        source: model_pb2.ModelSource,
        precision: str,
        delivery: Delivery,
    ) -> list[str]:
        """Compiles for each fitting target; one that fails does not stop the others."""
        available = [target for target in self._known if not self._why_not(target)]
        variants = []
        again: AdlikError | None = None
        for target in targets.targets_for(recipe, precision, pushed.plan.targets, available):
            variant = f"{recipe}.{target}"
            try:
                compiled = await self._compile_one(pushed, recipe, source, target)
            except AdlikError as error:
                metrics.COMPILE_FAILED.labels(str(target), error.code).inc()
                if error.retryable and not delivery.last:
                    again = error
                    continue
                log.warning("%s %s: %s", pushed.name, variant, error)
                await self._context.bus.fail(pushed, "compiler", variant, error)
                continue
            await self._context.bus.publish(
                events_pb2.ModelCompiled(pushed=pushed, compiled=compiled)
            )
            variants.append(variant)
        if again is not None:
            raise again  # what has succeeded comes from the cache next time
        return variants

    async def _compile_one(
        self,
        pushed: model_pb2.PushedModel,
        recipe: str,
        source: model_pb2.ModelSource,
        target: Target,
    ) -> model_pb2.CompiledModel:
        route = self._route(source.format, target)
        with telemetry.tracer().start_as_current_span(
            spans.COMPILE,
            attributes={
                spans.MODEL: pushed.name,
                spans.VERSION: pushed.version,
                spans.RECIPE: recipe,
                spans.TARGET: str(target),
                spans.PATH: " -> ".join(route.formats),
            },
        ) as span:
            try:
                compiled = await self._cached_or_converted(route, source, target)
            except AdlikError as error:
                telemetry.record_error(span, error)
                raise
            span.set_attribute(spans.CACHED, compiled.cached)
            span.set_attribute(spans.SIZE_BYTES, compiled.artifact.size_bytes)
        compiled.variant = f"{recipe}.{target}"
        compiled.recipe = recipe
        compiled.engine, compiled.precision = target.engine, target.precision
        return compiled

    async def _cached_or_converted(
        self, route: Route, source: model_pb2.ModelSource, target: Target
    ) -> model_pb2.CompiledModel:
        started = time.monotonic()
        key = route.key(_digests(source))
        compiled = await self._from_cache(key)
        if compiled is not None:
            compiled.cached, compiled.seconds = True, time.monotonic() - started
            metrics.COMPILE_CACHED.labels(str(target)).inc()
            return compiled
        compiled = model_pb2.CompiledModel(
            format=self._engines[target.engine].format, path=route.formats
        )
        media_type = route.steps[-1].media_type if route.steps else source.artifact.media_type
        with _workdir("compile") as folder:
            model = await materialise(self._context.artifacts, source, folder / "source")
            async with self._quiet:
                file = await convert(
                    route, model, folder, self._settings.compile_limits(), self.nursery
                )
            compiled.artifact.CopyFrom(await self._context.artifacts.put_file(file, media_type))
        compiled.seconds = time.monotonic() - started
        metrics.COMPILE_SECONDS.labels(str(target)).observe(compiled.seconds)
        await self._cache.put(key, compiled)
        return compiled

    async def _from_cache(self, key: str) -> model_pb2.CompiledModel | None:
        """Returns what was compiled before, if its bytes are still stored."""
        entry = await self._cache.get(key)
        if entry is None:
            return None
        try:
            await self._context.artifacts.fetch(entry.value.artifact)
        except NotFound:
            return None
        return entry.value

    async def _on_compiled(self, event: events_pb2.ModelCompiled, _delivery: Delivery) -> list[str]:
        pushed, compiled = event.pushed, event.compiled
        target = f"{compiled.engine}-{compiled.precision}"
        started = time.monotonic()
        with telemetry.tracer().start_as_current_span(
            spans.VERIFY,
            attributes={
                spans.MODEL: pushed.name,
                spans.VERSION: pushed.version,
                spans.VARIANT: compiled.variant,
                spans.ENGINE: compiled.engine,
                spans.PRECISION: compiled.precision,
            },
        ) as span:
            try:
                report = await self._measure(pushed, compiled)
            except AdlikError as error:
                telemetry.record_error(span, error)
                raise
            verdict = judge(report, limits_of(pushed.plan.limits))
            span.set_attribute(spans.SAMPLES, report.findings.samples)
            span.set_attribute(spans.SPEEDUP, report.speedup)
            span.set_attribute(spans.ACCEPTED, verdict.accepted)
            span.set_attribute(spans.REASON, " ".join(verdict.reasons))
        metrics.VERIFY_SECONDS.labels(target).observe(time.monotonic() - started)
        metrics.VERIFIED.labels(target, str(verdict.accepted).lower()).inc()
        await self._context.bus.publish(
            events_pb2.ModelVerified(
                pushed=pushed,
                compiled=compiled,
                verification=describe(report, verdict, batching=pushed.plan.batching),
            )
        )
        return []

    async def _measure(
        self, pushed: model_pb2.PushedModel, compiled: model_pb2.CompiledModel
    ) -> Report:
        """Runs a variant beside the pushed model in a child process; the pushed model alone."""
        settings, artifacts = self._settings, self._context.artifacts
        source, samples = pushed.source, ""
        if source.HasField("samples"):
            samples = str(await artifacts.fetch(source.samples))
        is_reference = (
            compiled.recipe == PUSHED
            and Target(compiled.engine, compiled.precision) == targets.REFERENCE
        )
        effort = asdict(self._effort(pushed.plan))
        with _workdir("verify") as folder:
            model = str(await materialise(artifacts, source, folder / "source"))
            if is_reference:
                effort["latency_seconds"] = settings.verify_latency_seconds / 2
                return await self._in_child(
                    "verify_reference", folder, model=model, samples=samples, effort=effort
                )
            evidence = await self._evidence(pushed, model, samples, folder)
            candidate = Candidate(
                path=str(await artifacts.fetch(compiled.artifact)),
                media_type=compiled.artifact.media_type,
                engine=compiled.engine,
                precision=compiled.precision,
            )
            return await self._in_child(
                "verify_variant",
                folder,
                reference=model,
                candidate=asdict(candidate),
                evidence=str(evidence),
                effort=effort,
            )

    def _effort(self, plan: model_pb2.Plan) -> Effort:
        settings = self._settings
        return Effort(
            threads=settings.threads(),
            max_samples=settings.verify_samples,
            compare_seconds=settings.verify_compare_seconds,
            latency_seconds=settings.verify_latency_seconds,
            max_bundle_bytes=settings.max_artifact_bytes,
            sizes=dict(plan.sizes),
        )

    async def _in_child(self, function: str, folder: Path, **arguments: object) -> Report:
        async with self._quiet:
            fields = await run_isolated(
                f"adlik_compiler.verify:{function}",
                arguments,
                workdir=folder,
                limits=self._settings.verify_limits(),
                nursery=self.nursery,
            )
        return Report.of(fields)

    async def _evidence(
        self, pushed: model_pb2.PushedModel, model: str, samples: str, folder: Path
    ) -> Path:
        """Returns what the pushed model answers: gathered once for all of a version's variants."""
        effort = self._effort(pushed.plan)
        kept = self._kept_evidence.place(_digests(pushed.source), pushed.source.samples, effort)
        async with self._gathering:
            if not kept.is_file():
                with telemetry.tracer().start_as_current_span(
                    spans.EVIDENCE,
                    attributes={spans.MODEL: pushed.name, spans.VERSION: pushed.version},
                ) as span:
                    made = folder / "evidence.npz"
                    async with self._quiet:
                        fields = await run_isolated(
                            "adlik_compiler.verify:gather_evidence",
                            {
                                "model": model,
                                "samples": samples,
                                "out": str(made),
                                "effort": asdict(effort),
                            },
                            workdir=folder,
                            limits=self._settings.verify_limits(),
                            nursery=self.nursery,
                        )
                    span.set_attribute(spans.SAMPLES, fields["runs"])
                    await asyncio.to_thread(self._kept_evidence.keep, made, kept)
            return kept

    def _route(self, source_format: str, target: Target) -> Route:
        goal = targets.goal_of(self._engines[target.engine], self._steps)
        steps = plan_path(self._steps, source_format, goal)
        return Route(source_format, steps, target.precision)

    def _why_not(self, target: Target) -> str:
        return targets.why_not(target, self._engines, self._steps)


async def open_worker(context: Context) -> Worker:
    """Returns a worker with the mesh's compile cache."""
    cache = await open_bucket(context.bus, CACHE_BUCKET, model_pb2.CompiledModel)
    return Worker(context, cache)


@contextmanager
def _workdir(job: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=f"adlik-{job}-") as folder:
        yield Path(folder).resolve()


def _digests(source: model_pb2.ModelSource) -> Sequence[str]:
    external = sorted((file.name, file.artifact.digest) for file in source.external_files)
    return [source.artifact.digest, *(part for file in external for part in file)]
