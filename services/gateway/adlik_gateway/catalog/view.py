"""The catalog as this gateway sees it: shared state held in memory, and who watches it."""

from __future__ import annotations

import asyncio
import contextlib
import difflib
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

from adlik_common.errors import AdlikError, NotFound, Overloaded, Unavailable
from adlik_common.names import check_model_name, untoken, version_key
from adlik_common.state import Change, State
from adlik_proto.adlik.control.v1 import control_pb2
from adlik_proto.adlik.model.v1 import model_pb2

from adlik_gateway.catalog.explain import explained
from adlik_gateway.catalog.unserved import why_unserved

MAX_WAITING_NOTICES = 1000


class Notice(NamedTuple):
    """That something happened to a model."""

    event: str
    name: str


class CatalogView:
    """Answers questions about models from memory and tells watchers what changed.

    Run `follow_*` in the background; `ready` is set once the state was read for the first time.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._versions: dict[str, dict[int, model_pb2.ModelVersion]] = {}
        self._releases: dict[str, model_pb2.Release] = {}
        self.replicas: dict[str, control_pb2.Replica] = {}
        self._watchers: set[asyncio.Queue[Notice | AdlikError]] = set()
        self._caught_up = {"models": asyncio.Event(), "releases": asyncio.Event()}

    @property
    def ready(self) -> bool:
        """Whether the state has been read."""
        return all(event.is_set() for event in self._caught_up.values())

    async def wait_ready(self) -> None:
        """Waits until the state has been read."""
        for event in self._caught_up.values():
            await event.wait()

    async def follow_models(self) -> None:
        """Keeps the versions up to date, for ever."""
        async for change in self._state.models.watch():
            if not change.key:
                self._caught_up["models"].set()
                continue
            name, _, number = change.key.rpartition(".")
            self._version_changed(untoken(name), int(number), change.value)

    async def follow_releases(self) -> None:
        """Keeps the releases up to date, for ever."""
        async for change in self._state.releases.watch():
            if not change.key:
                self._caught_up["releases"].set()
                continue
            name = untoken(change.key)
            if change.value is None:
                self._releases.pop(name, None)
            else:
                self._releases[name] = change.value
                self._tell("ModelReleased", name)

    def replica_changed(self, change: Change[control_pb2.Replica]) -> None:
        """Takes a change of the replica table."""
        before = self.replicas.get(change.key)
        if change.value is None:
            self.replicas.pop(change.key, None)
        else:
            self.replicas[change.key] = change.value
        after = change.value or control_pb2.Replica()
        for name in _loaded(before) ^ _loaded(after):
            self._tell("ModelDeployed", name[0])

    def model(self, name: str) -> control_pb2.Model:
        """Returns a model with all its versions, newest first; raises `NotFound`."""
        check_model_name(name)
        versions = self._versions.get(name)
        if not versions:
            close = difflib.get_close_matches(name, self._versions, 3)
            hint = f"Did you mean {', '.join(close)}?" if close else "See `adlik models`."
            raise NotFound(f"There is no model '{name}'.", cure=hint)
        release = self._releases.get(name)
        model = control_pb2.Model(
            name=name,
            versions=[explained(versions[v], release) for v in sorted(versions, reverse=True)],
        )
        if release is not None:
            model.release.CopyFrom(release)
            served = (name, release.pushed.version, release.compiled.variant)
            model.ready_replicas.extend(
                replica.id for replica in self.replicas.values() if served in _loaded(replica)
            )
        return model

    def version(self, name: str, version: int) -> model_pb2.ModelVersion:
        """Returns a version, 0 for the newest; raises `NotFound`."""
        model = self.model(name)
        for record in model.versions:
            if version in (0, record.pushed.version):
                return record
        known = sorted(r.pushed.version for r in model.versions)
        raise NotFound(f"'{name}' has no version {version}.", cure=f"It has {known}.")

    def why_unserved(self, name: str, version: int) -> AdlikError | None:
        """Returns why a pushed version, 0 for any, is not served; None where it was not pushed."""
        return why_unserved(self._versions.get(name, {}), self._releases.get(name), version)

    def models(self) -> list[control_pb2.Model]:
        """Returns all models by name."""
        return [self.model(name) for name in sorted(self._versions) if self._versions[name]]

    @contextlib.contextmanager
    def watching(self) -> Iterator[AsyncIterator[Notice]]:
        """Gives notices of changes from now on; a watcher that reads too slowly is sent away."""
        queue: asyncio.Queue[Notice | AdlikError] = asyncio.Queue(MAX_WAITING_NOTICES)
        self._watchers.add(queue)

        async def notices() -> AsyncIterator[Notice]:
            while True:
                notice = await queue.get()
                if isinstance(notice, AdlikError):
                    raise notice
                yield notice

        try:
            yield notices()
        finally:
            self._watchers.discard(queue)

    def dismiss_watchers(self) -> None:
        """Ends every watch: the gateway stops, and waits for those whom it is answering."""
        for queue in list(self._watchers):
            self._dismiss(queue, Unavailable("The gateway stops.", cure="Watch again."))

    def _dismiss(self, queue: asyncio.Queue[Notice | AdlikError], reason: AdlikError) -> None:
        self._watchers.discard(queue)
        if queue.full():
            queue.get_nowait()
        queue.put_nowait(reason)

    def _version_changed(
        self, name: str, version: int, record: model_pb2.ModelVersion | None
    ) -> None:
        versions = self._versions.setdefault(name, {})
        before = versions.get(version)
        if record is None:
            versions.pop(version, None)
            if not versions:
                del self._versions[name]
            self._tell("ModelDeleted", name)
            return
        versions[version] = record
        for event in _what_happened(before, record):
            self._tell(event, name)

    def _tell(self, event: str, name: str) -> None:
        for queue in list(self._watchers):
            try:
                queue.put_nowait(Notice(event, name))
            except asyncio.QueueFull:
                slow = Overloaded("The watcher reads too slowly.", cure="Watch again.")
                self._dismiss(queue, slow)


def key_of(record: model_pb2.ModelVersion) -> str:
    """Returns the key of a record in shared state."""
    return version_key(record.pushed.name, record.pushed.version)


def _loaded(replica: control_pb2.Replica | None) -> set[tuple[str, int, str]]:
    return {(m.name, m.version, m.variant) for m in replica.loaded} if replica else set()


def _what_happened(
    before: model_pb2.ModelVersion | None, after: model_pb2.ModelVersion
) -> list[str]:
    """Names the events that lie between two states of a record."""
    if before is None:
        return ["ModelPushed"]
    happened = []
    for event, count in (
        ("ModelOptimized", lambda r: len(r.optimized)),
        ("ModelCompiled", lambda r: len(r.variants)),
        ("ModelVerified", lambda r: sum(v.HasField("verification") for v in r.variants)),
        ("StageFinished", lambda r: len(r.finished)),
        ("StageFailed", lambda r: len(r.failures)),
    ):
        happened += [event] * max(0, count(after) - count(before))
    return happened
