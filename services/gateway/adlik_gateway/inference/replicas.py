"""The replica table: which living serving replicas hold which model, and the link to each."""

from __future__ import annotations

import asyncio
import difflib
import itertools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from adlik_common.errors import AdlikError, NotFound, Unavailable
from adlik_common.link import LinkClient
from adlik_common.names import untoken
from adlik_proto.adlik.control.v1.control_pb2 import LoadedModel, Replica
from adlik_proto.adlik.model.v1.model_pb2 import Release

SERVICE = "serving"
DOUBT_SECONDS = 1.0

Unserved = Callable[[str, int], AdlikError | None]


@dataclass(slots=True, eq=False)
class ServingReplica:
    """One serving process as the gateway sees it.

    Attributes:
        entry: What it last said of itself.
        link: The connection to it.
        loaded: Its models by name and version.
        in_flight: Requests of this gateway that it has not answered.
        last_used: Number of the latest request it was picked for.
        doubtful_until: Event loop time before which it is picked last: its link was lost.
        gone: No longer in the table; the link closes with its last answer.
    """

    entry: Replica
    link: LinkClient
    loaded: dict[tuple[str, int], LoadedModel]
    in_flight: int = 0
    last_used: int = 0
    doubtful_until: float = 0.0
    gone: bool = False

    @property
    def id(self) -> str:
        """The process's id in the mesh."""
        return self.entry.id


@dataclass(slots=True)
class ReplicaTable:
    """Follows the replica and release state and picks a replica for each request.

    A request that names no version goes to the released version as soon as one replica holds it,
    and to the newest version held until then, so versions do not mix. Variants of one version may,
    while a take-over runs: they were verified to be equal.

    Attributes:
        unserved: Returns why a version that was pushed is not served, None where it was not pushed.
    """

    unserved: Unserved = lambda _name, _version: None
    _replicas: dict[str, ServingReplica] = field(default_factory=dict)
    _releases: dict[str, Release] = field(default_factory=dict)
    _holders: dict[str, dict[int, list[ServingReplica]]] = field(default_factory=dict)
    _unread: set[str] = field(default_factory=lambda: {"replicas", "releases"})
    _change: asyncio.Event = field(default_factory=asyncio.Event)
    _picks: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _closing: set[asyncio.Task[None]] = field(default_factory=set)

    def apply(self, key: str, entry: Replica | None) -> None:
        """Takes a change of the replica bucket; key "" says that all current entries were given."""
        if not key:
            self._unread.discard("replicas")
        elif entry is None or entry.service != SERVICE or not entry.link:
            self._drop(key)
        else:
            self._put(key, entry)
        self._index()

    def apply_release(self, key: str, release: Release | None) -> None:
        """Takes a change of the release bucket; key "" says that all current entries were given."""
        if not key:
            self._unread.discard("releases")
        elif release is None:
            self._releases.pop(untoken(key), None)
        else:
            self._releases[release.pushed.name] = release
        self._notify()

    @property
    def releases(self) -> Mapping[str, Release]:
        """What is served under each model's name."""
        return self._releases

    @property
    def complete(self) -> bool:
        """Whether the state has been read once since the gateway started."""
        return not self._unread

    @property
    def serving(self) -> list[ServingReplica]:
        """The replicas that take requests."""
        return [replica for replica in self._replicas.values() if not replica.entry.draining]

    def versions(self, model: str) -> list[int]:
        """Returns the versions of a released model that can be asked now, oldest first."""
        return sorted(self._holders.get(model, ())) if model in self._releases else []

    def loaded(self, model: str, version: int = 0) -> LoadedModel:
        """Returns what a replica says of the model it holds; raises as `pick` does."""
        version, holders = self._find(model, version)
        return holders[0].loaded[model, version]

    def pick(
        self, model: str, version: int = 0, exclude: Collection[ServingReplica] = ()
    ) -> ServingReplica:
        """Chooses the least busy replica and counts a request on it until `done`.

        Args:
            model: The model's name.
            version: Its version; 0: whatever is released.
            exclude: Replicas not to choose.

        Raises:
            NotFound: No such model or version is released.
            Unavailable: It is released, but no replica can be asked right now.
        """
        version, holders = self._find(model, version)
        if exclude:
            holders = [replica for replica in holders if replica not in exclude]
            if not holders:
                raise self._nowhere(model, version)
        chosen = holders[0] if len(holders) == 1 else min(holders, key=self._rank)
        chosen.in_flight += 1
        chosen.last_used = next(self._picks)
        return chosen

    def done(self, replica: ServingReplica) -> None:
        """Ends what `pick` began."""
        replica.in_flight -= 1
        if replica.gone and not replica.in_flight:
            self._close(replica)

    def doubts(self, replica: ServingReplica) -> bool:
        """Returns whether the replica's link was lost a moment ago."""
        until = replica.doubtful_until
        return until > 0.0 and until > asyncio.get_running_loop().time()

    def lost(self, replica: ServingReplica) -> None:
        """Notes that the replica's link was lost: it is picked last for a while."""
        replica.doubtful_until = asyncio.get_running_loop().time() + DOUBT_SECONDS

    async def changed(self, seconds: float) -> bool:
        """Waits for a change; returns False where none came in time."""
        try:
            async with asyncio.timeout(seconds):
                await self._change.wait()
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Closes every link; requests under way fail with `LinkLost`."""
        for key in list(self._replicas):
            self._close(self._replicas.pop(key))
        self._index()
        await asyncio.gather(*self._closing)

    def _rank(self, replica: ServingReplica) -> tuple[bool, int, int]:
        """Returns the order of picking: doubtful ones last, idle ones first, then in turns."""
        return self.doubts(replica), replica.in_flight, replica.last_used

    def _put(self, key: str, entry: Replica) -> None:
        replica = self._replicas.get(key)
        loaded = {(model.name, model.version): model for model in entry.loaded}
        if replica is not None and replica.link.address == entry.link:
            replica.entry, replica.loaded = entry, loaded
            return
        self._drop(key)
        self._replicas[key] = ServingReplica(entry, LinkClient(entry.link), loaded)

    def _drop(self, key: str) -> None:
        replica = self._replicas.pop(key, None)
        if replica is not None:
            replica.gone = True
            if not replica.in_flight:
                self._close(replica)

    def _close(self, replica: ServingReplica) -> None:
        task = asyncio.get_running_loop().create_task(replica.link.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _index(self) -> None:
        holders: dict[str, dict[int, list[ServingReplica]]] = {}
        for replica in self.serving:
            for model, version in replica.loaded:
                holders.setdefault(model, {}).setdefault(version, []).append(replica)
        self._holders = holders
        self._notify()

    def _notify(self) -> None:
        self._change.set()
        self._change = asyncio.Event()

    def _find(self, model: str, version: int) -> tuple[int, list[ServingReplica]]:
        """Returns the version to ask for and the replicas that hold it, at least one."""
        release, held = self._releases.get(model), self._holders.get(model)
        if release is None or held is None:
            raise self._nowhere(model, version)
        if not version:
            released = release.pushed.version
            version = released if released in held else max(held)
        holders = held.get(version)
        if holders is None:
            raise self._nowhere(model, version)
        return version, holders

    def _nowhere(self, model: str, version: int) -> AdlikError:
        """Returns why no replica can be picked."""
        if self._unread:
            return Unavailable(
                "The gateway has not read the mesh's state yet.", cure="Try again in a moment."
            )
        release = self._releases.get(model)
        served = sorted(self._holders.get(model, ()))
        if release is not None:
            served = sorted({release.pushed.version, *served})
        if release is None or (version and version not in served):
            reason = self.unserved(model, version)
            if reason is not None:
                return reason
        if release is None:
            close = difflib.get_close_matches(model, self._releases, n=3)
            return NotFound(
                f"No model '{model[:128]}' is released.",
                cure=f"Did you mean {' or '.join(close)}?" if close else "See the list of models.",
            )
        if version and version not in served:
            return NotFound(
                f"Version {version} of model '{model}' is not served; "
                f"{', '.join(map(str, served))} is.",
                cure="Leave the version out to ask for what is released.",
            )
        reasons = [
            f" Replica {replica.id} could not load it: {replica.entry.failed[model].message}"
            for replica in self.serving
            if model in replica.entry.failed
        ]
        return Unavailable(
            f"Model '{model}' is released, but no serving replica can be asked for it right now."
            + "".join(reasons[:1]),
            cure="Try again in a moment." if self.serving else "Start a serving replica.",
        )
