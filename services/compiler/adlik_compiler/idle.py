"""Tunes released models for Adlik's own kernels while a compiler has nothing else to do.

One bundle at a time, in a child process of the lowest priority that ends at once when there is
work. What got faster is published as the same variant, compiled anew: whether it is served is
decided as ever, by verification and release.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from adlik_common import bundle, spans, telemetry
from adlik_common.errors import AdlikError
from adlik_common.names import version_key
from adlik_common.sandbox import run_isolated
from adlik_common.service import Context
from adlik_common.state import Bucket, open_bucket
from adlik_proto.adlik.events.v1 import events_pb2
from adlik_proto.adlik.model.v1 import model_pb2
from adlik_runtimes.kernels import ENGINE
from opentelemetry.trace import Span

from adlik_compiler import metrics
from adlik_compiler.activity import Activity
from adlik_compiler.idle_tuning import Effort, Tuned
from adlik_compiler.settings import CompilerSettings

log = logging.getLogger(__name__)

TUNED_BUCKET = "adlik_tuned"
STAGE = "tuner"
INTERRUPTED = "interrupted"
PAUSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A bundle that may be tuned.

    Attributes:
        pushed: The version that it was made of.
        compiled: The variant that it is.
        traceparent: W3C trace context of the push.
        is_released: It is served now.
    """

    pushed: model_pb2.PushedModel
    compiled: model_pb2.CompiledModel
    traceparent: str
    is_released: bool

    @property
    def digest(self) -> str:
        """Digest of the bundle."""
        return self.compiled.artifact.digest


Tune = Callable[[Candidate, Path], Coroutine[Any, Any, Tuned]]
"""Tunes a bundle; the path is an empty folder to work in."""


def candidates_of(
    release: model_pb2.Release, record: model_pb2.ModelVersion | None
) -> list[Candidate]:
    """Returns a model's bundles that are worth tuning: what is served, then what could be.

    Args:
        release: What is served. One chosen by hand would stay whatever is found, so it is left.
        record: The catalog's record of the same version.
    """
    if release.pinned:
        return []
    accepted = [v for v in record.variants if v.verification.accepted] if record else []
    accepted.sort(key=lambda variant: -variant.verification.speedup)
    found: dict[str, Candidate] = {}
    for compiled in (release.compiled, *(variant.compiled for variant in accepted)):
        if compiled.engine == ENGINE.name and compiled.artifact.digest not in found:
            is_released = compiled is release.compiled
            candidate = Candidate(release.pushed, compiled, release.traceparent, is_released)
            found[candidate.digest] = candidate
    return list(found.values())


class Marks:
    """Says which bundles were tuned on this kind of machine, so that each is tuned once.

    A mark with an output is final: it names the best bundle that is known. One without is a claim,
    and counts while the compiler that made it lives.

    Args:
        context: The running service.
        bucket: The marks, shared by all compilers.
        machine: The kind of this machine.
    """

    def __init__(
        self, context: Context, bucket: Bucket[model_pb2.FinishedStage], machine: str
    ) -> None:
        self._context, self._bucket, self._machine = context, bucket, machine

    async def claim(self, digest: str) -> bool:
        """Returns whether a bundle is this compiler's to tune now."""
        alive = await self._context.state.replicas.entries()
        mine = model_pb2.FinishedStage(stage=STAGE, subject=self._context.id)

        def change(known: model_pb2.FinishedStage | None) -> model_pb2.FinishedStage | None:
            if known is None or known == mine:
                return mine
            is_held = known.outputs or f"{self._context.name}.{known.subject}" in alive
            return None if is_held else mine

        return await self._bucket.modify(self._key(digest), change) == mine

    async def finish(self, digest: str, best: str) -> None:
        """Notes that a bundle was tuned, and the digest of the best one known now."""
        mark = model_pb2.FinishedStage(stage=STAGE, subject=self._context.id, outputs=[best])
        await self._bucket.put(self._key(digest), mark)

    async def drop(self, digest: str) -> None:
        """Gives a claim up."""
        await self._bucket.delete(self._key(digest))

    def _key(self, digest: str) -> str:
        return f"{digest.rpartition(':')[2]}.{self._machine}"


class IdleTuner:
    """Tunes one bundle after the other whenever a worker rests; make it with `open_tuner`.

    Args:
        context: The running service.
        activity: Whether there is other work.
        marks: What was tuned.
        tune: Tunes a bundle.
    """

    def __init__(self, context: Context, activity: Activity, marks: Marks, tune: Tune) -> None:
        self._context, self._activity = context, activity
        self._marks, self._tune = marks, tune
        self._settings: CompilerSettings = context.settings
        self._releases: dict[str, model_pb2.Release] = {}
        self._changed = asyncio.Event()
        self._given_up: set[str] = set()

    async def follow_releases(self) -> None:
        """Keeps in mind what is released, for ever."""
        async for key, release in self._context.state.releases.watch():
            if release is not None:
                self._releases[key] = release
            else:
                self._releases.pop(key, None)
            self._changed.set()

    async def run(self) -> None:
        """Tunes whenever there is something to tune and nothing else to do, for ever."""
        while True:
            await self._activity.rest(self._settings.idle_seconds)
            self._changed.clear()
            try:
                candidate = await self._claimed()
                if candidate is not None:
                    await self._round(candidate)
                    continue
            except AdlikError as error:
                log.warning("tuning in idle time: %s", error)
                await asyncio.sleep(PAUSE_SECONDS)
                continue
            await self._activity.unless_working(self._changed.wait())

    async def _claimed(self) -> Candidate | None:
        """Returns the next bundle to tune, claimed; what is served comes first."""
        found: list[Candidate] = []
        for release in list(self._releases.values()):
            key = version_key(release.pushed.name, release.pushed.version)
            entry = await self._context.state.models.get(key)
            found += candidates_of(release, entry.value if entry else None)
        for candidate in sorted(found, key=lambda candidate: not candidate.is_released):
            digest = candidate.digest
            if digest not in self._given_up and await self._marks.claim(digest):
                return candidate
        return None

    async def _round(self, candidate: Candidate) -> None:
        """Tunes a claimed bundle; its claim becomes a final mark or is given up."""
        is_final = True
        with _span_of(candidate) as span:
            try:
                outcome = await self._tuned(candidate, span)
                is_final = outcome != INTERRUPTED
            except AdlikError as error:
                outcome, is_final = "failed", not error.retryable
                telemetry.record_error(span, error)
                span.set_attribute(spans.REASON, error.message)
                log.warning("%s could not be tuned: %s", candidate.compiled.variant, error)
                self._given_up.add(candidate.digest)
                if is_final:
                    await self._marks.finish(candidate.digest, candidate.digest)
        metrics.TUNED.labels(outcome).inc()
        if not is_final:
            await self._marks.drop(candidate.digest)

    async def _tuned(self, candidate: Candidate, span: Span) -> str:
        """Tunes a bundle and publishes a better one; returns what came of it."""
        with tempfile.TemporaryDirectory(prefix="adlik-tune-") as folder:
            work = self._tune(candidate, Path(folder).resolve())
            found = await self._activity.unless_working(work)
            if found is None:
                span.set_attribute(spans.REASON, "there was work to do")
                return INTERRUPTED
            _describe(span, found)
            best = candidate.digest
            if found.bundle:
                best = await self._publish(candidate, found)
        await self._marks.finish(candidate.digest, best)
        return "faster" if found.bundle else "not_faster"

    async def _publish(self, candidate: Candidate, found: Tuned) -> str:
        """Stores a new bundle and says that the variant was compiled; returns its digest."""
        artifact = await self._context.artifacts.put_file(Path(found.bundle), bundle.MEDIA_TYPE)
        compiled = model_pb2.CompiledModel()
        compiled.CopyFrom(candidate.compiled)
        compiled.artifact.CopyFrom(artifact)
        compiled.seconds, compiled.cached = found.seconds, False
        # Before anybody may release it: it was tuned here already.
        await self._marks.finish(artifact.digest, artifact.digest)
        await self._context.bus.publish(
            events_pb2.ModelCompiled(pushed=candidate.pushed, compiled=compiled)
        )
        log.info(
            "%s %s: %.3f times as fast by tuning",
            candidate.pushed.name,
            compiled.variant,
            found.speedup,
        )
        return artifact.digest


async def open_tuner(context: Context, activity: Activity, tune: Tune | None = None) -> IdleTuner:
    """Returns a tuner with the mesh's marks.

    Args:
        context: The running service.
        activity: Whether there is other work.
        tune: Tunes a bundle; by default in a child process.
    """
    from adlik_kernels.machine.target import host

    bucket = await open_bucket(context.bus, TUNED_BUCKET, model_pb2.FinishedStage)
    marks = Marks(context, bucket, host().key)
    return IdleTuner(context, activity, marks, tune or partial(tune_in_child, context))


async def tune_in_child(context: Context, candidate: Candidate, folder: Path) -> Tuned:
    """Tunes a bundle in a child process; see `idle_tuning.tune_bundle`.

    Args:
        context: The running service.
        candidate: The bundle.
        folder: Where the child works.
    """
    settings: CompilerSettings = context.settings
    effort = Effort(
        seconds=settings.tune_seconds,
        threads=settings.threads(),
        min_gain=settings.tune_min_gain,
        max_bundle_bytes=settings.max_artifact_bytes,
    )
    kept = settings.cache_dir / "tuning" / candidate.digest.rpartition(":")[2]
    arguments = {
        "archive": str(await context.artifacts.fetch(candidate.compiled.artifact)),
        "kept": str(kept),
        "effort": asdict(effort),
    }
    fields = await run_isolated(
        "adlik_compiler.idle_tuning:tune_bundle",
        arguments,
        workdir=folder,
        limits=settings.tune_limits(),
    )
    await asyncio.to_thread(shutil.rmtree, kept, ignore_errors=True)
    return Tuned(**fields)


@contextmanager
def _span_of(candidate: Candidate) -> Iterator[Span]:
    """A span in the trace of the push."""
    with telemetry.tracer().start_as_current_span(
        spans.TUNE,
        context=telemetry.context_from(candidate.traceparent),
        attributes={
            spans.MODEL: candidate.pushed.name,
            spans.VERSION: candidate.pushed.version,
            spans.VARIANT: candidate.compiled.variant,
        },
    ) as span:
        yield span


def _describe(span: Span, found: Tuned) -> None:
    metrics.TUNE_SECONDS.observe(found.seconds)
    metrics.TUNE_SPEEDUP.observe(found.speedup)
    span.set_attribute(spans.RECORDS, found.records)
    span.set_attribute(spans.SPEEDUP, found.speedup)
    span.set_attribute(spans.SECONDS, found.seconds)
    span.set_attribute(spans.REASON, found.reason)
