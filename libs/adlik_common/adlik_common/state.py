"""Shared state: JetStream key-value buckets of protobuf messages, changed by compare-and-set."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from adlik_proto.adlik.control.v1 import control_pb2
from adlik_proto.adlik.model.v1 import model_pb2
from google.protobuf.message import Message
from nats.errors import Error as NatsError
from nats.js import api
from nats.js import errors as js_errors
from nats.js.kv import KV_DEL, KV_PURGE, KeyValue

from adlik_common.bus import Bus
from adlik_common.errors import Conflict, Unavailable

M = TypeVar("M", bound=Message)
T = TypeVar("T")

REPLICA_MISSED_HEARTBEATS = 3
_PATIENCE_SECONDS = 20.0


class Entry(NamedTuple, Generic[M]):
    """A stored message and the revision to name when changing it."""

    value: M
    revision: int


class Change(NamedTuple, Generic[M]):
    """A key's new value, None where it is gone; key "" says that all current entries were given."""

    key: str
    value: M | None


class Bucket(Generic[M]):
    """One kind of message by key.

    Args:
        bus: The connection.
        store: The NATS bucket.
        message: Type of the values.
        ttl: Seconds after which an entry that was not written again is gone; 0: never.
    """

    def __init__(self, bus: Bus, store: KeyValue, message: type[M], ttl: float = 0) -> None:
        self._bus, self._store, self._message, self._ttl = bus, store, message, ttl

    async def get(self, key: str) -> Entry[M] | None:
        """Returns the entry of a key, None where there is none."""
        try:
            entry = await self._patiently(lambda: self._store.get(key))
        except js_errors.KeyNotFoundError:  # deleted keys are a subclass
            return None
        return Entry(self._message.FromString(entry.value or b""), entry.revision or 0)

    async def put(self, key: str, value: M) -> None:
        """Writes an entry whatever was there."""
        await self._patiently(lambda: self._store.put(key, value.SerializeToString()))

    async def create(self, key: str, value: M) -> None:
        """Writes an entry that must not exist; raises `Conflict` where it does."""
        try:
            await self._patiently(lambda: self._store.create(key, value.SerializeToString()))
        except js_errors.KeyWrongLastSequenceError as error:
            raise Conflict(f"'{key}' exists already.") from error

    async def update(self, key: str, value: M, revision: int) -> None:
        """Writes an entry that must still have this revision; raises `Conflict` otherwise."""
        try:
            await self._patiently(
                lambda: self._store.update(key, value.SerializeToString(), last=revision)
            )
        except js_errors.KeyWrongLastSequenceError as error:
            raise Conflict(f"'{key}' was changed meanwhile.") from error

    async def delete(self, key: str) -> None:
        """Removes an entry; one that is not there is no error."""
        await self._patiently(lambda: self._store.purge(key))

    async def modify(self, key: str, change: Callable[[M | None], M | None]) -> M | None:
        """Reads, changes and writes back until nobody else was faster.

        Args:
            key: The entry's key.
            change: Gets the value (None where there is none) and returns the new one, or None to
                leave it as it is. May be called several times.

        Returns:
            The value that was written, or that stands.
        """
        while True:
            entry = await self.get(key)
            before = None
            if entry is not None:
                before = self._message()
                before.CopyFrom(entry.value)
            after = change(before)
            if after is None or (entry is not None and after == entry.value):
                return entry.value if entry else None
            with contextlib.suppress(Conflict):
                if entry is None:
                    await self.create(key, after)
                else:
                    await self.update(key, after, entry.revision)
                return after

    async def entries(self) -> dict[str, M]:
        """Returns all current entries."""
        found: dict[str, M] = {}
        async for key, value in self.watch():
            if not key:
                break
            if value is not None:
                found[key] = value
        return found

    async def watch(self) -> AsyncIterator[Change[M]]:
        """Yields all current entries, then `Change("", None)` once, then every change, for ever.

        After NATS was away it reads all entries again and yields what changed, deletions too.
        """
        known = _Known(self._message, self._ttl)
        caught_up = False
        while True:
            known.begin()
            async for entry in self._raw_updates():
                if entry is not None:
                    changes = known.accept(entry.key, entry.operation, entry.value or b"")
                else:
                    changes = known.complete()
                    if not caught_up:
                        caught_up = True
                        changes.append(Change("", None))
                # While NATS is away nobody can write, so silence means nothing.
                if self._bus.client.is_connected:
                    changes += known.drop_expired()
                for change in changes:
                    yield change
            await asyncio.sleep(0.1)

    async def _raw_updates(self) -> AsyncIterator[KeyValue.Entry | None]:
        """Yields NATS's entries, None when all were given and at pauses, until NATS is lost."""
        epoch = self._bus.epoch
        try:
            watcher = await self._store.watchall()
        except (NatsError, TimeoutError, OSError):
            return
        caught_up = False
        try:
            while self._bus.epoch == epoch:
                try:
                    entry = await watcher.updates(timeout=0.5)
                except (TimeoutError, NatsError):
                    if caught_up:
                        yield None
                    continue
                caught_up = caught_up or entry is None
                yield entry
        finally:
            with contextlib.suppress(NatsError, OSError):
                await watcher.stop()

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Calls, and again while NATS is away; raises `Unavailable` after a while."""
        give_up = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                return await call()
            except (js_errors.KeyNotFoundError, js_errors.KeyWrongLastSequenceError):
                raise
            except (NatsError, TimeoutError, OSError) as error:
                if time.monotonic() > give_up:
                    raise Unavailable(
                        "The shared state can't be reached.", cure="Check that NATS is running."
                    ) from error
                await asyncio.sleep(0.2)


class _Known(Generic[M]):
    """What a watcher has told so far, so that it tells each change once."""

    def __init__(self, message: type[M], ttl: float) -> None:
        self._message, self._ttl = message, ttl
        self._entries: dict[str, tuple[float, bytes]] = {}
        self._seen: set[str] | None = None

    def begin(self) -> None:
        """Notes that all entries are about to be read again, as after an outage of NATS."""
        self._seen = set()
        # Their owners need time to write them again.
        now = time.monotonic()
        self._entries = {key: (now, data) for key, (_, data) in self._entries.items()}

    def accept(self, key: str, operation: str | None, data: bytes) -> list[Change[M]]:
        """Notes an update; returns the change unless nothing changed."""
        if self._seen is not None:
            self._seen.add(key)
        before = self._entries.pop(key, None)
        if operation in (KV_DEL, KV_PURGE):
            return [Change(key, None)] if before else []
        self._entries[key] = (time.monotonic(), data)
        if before is not None and before[1] == data:
            return []
        return [Change(key, self._message.FromString(data))]

    def complete(self) -> list[Change[M]]:
        """Notes that all entries were read; returns those that are gone (expiring ones expire)."""
        seen, self._seen = self._seen, None
        if seen is None or self._ttl:
            return []
        return self._drop([key for key in self._entries if key not in seen])

    def drop_expired(self) -> list[Change[M]]:
        """Forgets and returns the entries that were not written again in time."""
        if not self._ttl:
            return []
        limit = time.monotonic() - self._ttl
        return self._drop([key for key, (written, _) in self._entries.items() if written < limit])

    def _drop(self, keys: list[str]) -> list[Change[M]]:
        for key in keys:
            del self._entries[key]
        return [Change(key, None) for key in keys]


@dataclass(frozen=True, slots=True)
class State:
    """The mesh's buckets.

    Attributes:
        heads: Versions by model; key: the name's token.
        models: The catalog; key: `names.version_key`.
        releases: What is served; key: the name's token.
        replicas: Running processes; key: "<service>.<id>".
    """

    heads: Bucket[model_pb2.ModelHead]
    models: Bucket[model_pb2.ModelVersion]
    releases: Bucket[model_pb2.Release]
    replicas: Bucket[control_pb2.Replica]


async def open_state(bus: Bus) -> State:
    """Opens the buckets and makes those that are missing."""
    ttl = bus.settings.heartbeat_seconds * REPLICA_MISSED_HEARTBEATS
    return State(
        await open_bucket(bus, "adlik_heads", model_pb2.ModelHead),
        await open_bucket(bus, "adlik_models", model_pb2.ModelVersion),
        await open_bucket(bus, "adlik_releases", model_pb2.Release),
        await open_bucket(bus, "adlik_replicas", control_pb2.Replica, ttl),
    )


async def open_bucket(bus: Bus, name: str, message: type[M], ttl: float = 0) -> Bucket[M]:
    """Opens a bucket of one kind of message; makes it where it is missing."""
    config = api.KeyValueConfig(
        bucket=name, history=1, ttl=ttl or None, replicas=bus.settings.nats_replicas
    )
    while True:
        try:
            store = await bus.jetstream.create_key_value(config)
        except js_errors.BadRequestError:  # made by another release with other limits
            store = await bus.jetstream.key_value(name)
        except (NatsError, TimeoutError, OSError):
            await asyncio.sleep(0.2)
            continue
        return Bucket(bus, store, message, ttl)
