"""Keeps what is loaded equal to what is released: fetch, load, warm up, swap, drain the old.

The deployer follows the release table, not events: a replica that was away reads the table and
catches up. A newer release supersedes one that is still being loaded. What can't be loaded is
reported and leaves the variant before it in service.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from adlik_common import spans, telemetry
from adlik_common.errors import AdlikError, Internal, ResourceLimit, to_proto
from adlik_common.model_files import materialise_once
from adlik_common.service import Context
from adlik_proto.adlik.events.v1 import events_pb2
from adlik_proto.adlik.model.v1 import model_pb2

from adlik_serving.batcher import Limits
from adlik_serving.loaded import LoadedVariant, Opened, open_variant
from adlik_serving.settings import ServingSettings

log = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS, _LAST_PAUSE_SECONDS = 0.5, 30.0


class Deployer:
    """Loads and unloads models as the release table says.

    Args:
        context: The running service.
        settings: The serving settings.

    Attributes:
        loaded: What is served, by model name.
        failed: Why a released model is not (or an older variant of it is) served, by model name.
    """

    def __init__(self, context: Context, settings: ServingSettings) -> None:
        self._context, self._settings = context, settings
        self.loaded: dict[str, LoadedVariant] = {}
        self.failed: dict[str, AdlikError] = {}
        self._wanted: dict[str, model_pb2.Release] = {}
        self._names: dict[str, str] = {}
        self._changed: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._retiring: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(settings.parallel_loads)
        self._caught_up = asyncio.Event()

    async def watch(self) -> None:
        """Follows the release table for ever."""
        async for key, release in self._context.state.releases.watch():
            if not key:
                self._caught_up.set()
                continue
            if release is None:
                self._wanted.pop(key, None)
            else:
                self._wanted[key] = release
            self._changed.setdefault(key, asyncio.Event()).set()
            if key not in self._tasks:
                self._tasks[key] = asyncio.create_task(self._reconcile(key), name=f"deploy {key}")

    async def settled(self, seconds: float) -> None:
        """Waits until the models that were released at the start are loaded or have failed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._caught_up.wait()
                while self._tasks:
                    await asyncio.wait(list(self._tasks.values()))

    async def close(self) -> None:
        """Stops following the table and unloads everything, once it has answered."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        variants = list(self.loaded.values())
        self.loaded.clear()
        await asyncio.gather(*(variant.retire() for variant in variants), *self._retiring)

    async def _reconcile(self, key: str) -> None:
        """Brings one model to what is wanted of it, until that has not changed meanwhile."""
        try:
            while self._changed[key].is_set():
                self._changed[key].clear()
                release = self._wanted.get(key)
                if release is None:
                    await self._unload(key)
                else:
                    await self._deploy(key, release)
        finally:
            del self._tasks[key]

    async def _unload(self, key: str) -> None:
        name = self._names.pop(key, "")
        self.failed.pop(name, None)
        self._replace(name, None)
        await self._announce()
        log.info("unloaded %s", name)

    async def _deploy(self, key: str, release: model_pb2.Release) -> None:
        """Loads what a release asks for, trying again while it may yet succeed."""
        name = self._names[key] = release.pushed.name
        pause = _FIRST_PAUSE_SECONDS
        while not self._changed[key].is_set():
            work = asyncio.create_task(self._serve(release))
            changed = asyncio.create_task(self._changed[key].wait())
            try:
                await asyncio.wait({work, changed}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                changed.cancel()
                if not work.done():
                    work.cancel()
                    await asyncio.gather(work, return_exceptions=True)
            if work.cancelled():
                return
            if (error := work.exception()) is None:
                await self._tell(release, work.result())
                return
            await self._report(name, release, error)
            if not getattr(error, "retryable", False):
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed[key].wait(), pause)
            pause = min(2 * pause, _LAST_PAUSE_SECONDS)

    async def _report(self, name: str, release: model_pb2.Release, error: BaseException) -> None:
        log.warning(
            "%s version %d (%s) can't be served: %s",
            name,
            release.pushed.version,
            release.compiled.variant,
            error,
            exc_info=None if isinstance(error, AdlikError) else error,
        )
        if not isinstance(error, AdlikError):
            error = Internal(f"{type(error).__name__}: {error}", cure="See the replica's log.")
        self.failed[name] = error
        await self._announce()

    async def _serve(self, release: model_pb2.Release) -> str:
        """Puts a release into service; returns the trace context to say so in."""
        name = release.pushed.name
        with telemetry.tracer().start_as_current_span(
            spans.DEPLOY,
            context=telemetry.context_from(release.traceparent),
            attributes={
                spans.MODEL: name,
                spans.VERSION: release.pushed.version,
                spans.VARIANT: release.compiled.variant,
                spans.REVISION: release.revision,
                spans.REPLICA: self._context.id,
            },
        ) as span:
            try:
                current = self.loaded.get(name)
                if current is not None and current.serves(release):
                    current.release = release
                else:
                    self._replace(name, await self._load(release))
            except AdlikError as error:
                telemetry.record_error(span, error)
                raise
            return telemetry.inject()

    async def _tell(self, release: model_pb2.Release, traceparent: str) -> None:
        """Announces what is served now, then publishes the fact."""
        name, variant = release.pushed.name, release.compiled.variant
        self.failed.pop(name, None)
        await self._announce()
        log.info("serves %s version %d (%s)", name, release.pushed.version, variant)
        deployed = events_pb2.ModelDeployed(
            pushed=release.pushed,
            variant=variant,
            replica=self._context.id,
            revision=release.revision,
        )
        try:
            await self._context.bus.publish(deployed, traceparent=traceparent or None)
        except AdlikError as error:
            log.warning("the deployment of %s could not be published: %s", name, error)

    async def _load(self, release: model_pb2.Release) -> LoadedVariant:
        settings = self._settings
        with telemetry.tracer().start_as_current_span(spans.FETCH):
            path = await self._context.artifacts.fetch(release.compiled.artifact)
            pushed = None
            if release.serving.deferred:
                pushed = await materialise_once(
                    self._context.artifacts, release.pushed.source, settings.cache_dir / "pushed"
                )
        async with self._slots:
            opening = asyncio.ensure_future(
                asyncio.to_thread(
                    open_variant,
                    path,
                    release,
                    pushed=pushed,
                    threads=settings.threads(),
                    max_rows=settings.max_batch_size,
                    max_bytes=settings.max_artifact_bytes,
                    cache=settings.cache_dir,
                )
            )
            try:
                async with asyncio.timeout(settings.load_seconds):
                    opened = await asyncio.shield(opening)
            except TimeoutError as error:
                opening.add_done_callback(_discard)
                raise ResourceLimit(
                    f"Loading took longer than {settings.load_seconds:.0f} s.",
                    cure="Raise ADLIK_LOAD_SECONDS or release a smaller variant.",
                ) from error
            except asyncio.CancelledError:
                opening.add_done_callback(_discard)
                raise
        limits = Limits(
            max_rows=opened.warm.max_rows,
            delay_ns=int(settings.batch_delay_ms * 1e6),
            max_queued=settings.queue_requests,
            max_queued_bytes=settings.queue_bytes,
        )
        return LoadedVariant(release, opened, limits)

    def _replace(self, name: str, variant: LoadedVariant | None) -> None:
        """Swaps a model's variant; the one before answers what it has accepted, then goes."""
        before = self.loaded.pop(name, None)
        if variant is not None:
            self.loaded[name] = variant
        if before is not None:
            task = asyncio.create_task(before.retire(), name=f"retire {name}")
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    async def _announce(self) -> None:
        replica = self._context.replica
        del replica.loaded[:]
        replica.loaded.extend(variant.describe() for variant in self.loaded.values())
        replica.failed.clear()
        for name, error in self.failed.items():
            replica.failed[name].CopyFrom(to_proto(error))
        # The heartbeat will say it where NATS is away now.
        with contextlib.suppress(AdlikError):
            await self._context.announce()


def _discard(opening: asyncio.Future[Opened]) -> None:
    """Closes a model that nobody wants any more by the time it is loaded."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().model.close()
