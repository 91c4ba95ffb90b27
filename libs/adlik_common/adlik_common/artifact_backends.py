"""Where artifacts are kept: a directory, the NATS object store, or a cloud bucket."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import obstore
from nats.errors import Error as NatsError
from nats.js import api
from nats.js import errors as js_errors
from nats.js.object_store import ObjectStore
from obstore.store import ObjectStore as CloudStore
from obstore.store import from_url

from adlik_common.bus import Bus
from adlik_common.errors import NotFound, Unavailable


class Directory:
    """A directory that every service of this machine sees; readers use its files in place."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)

    def _path(self, key: str) -> Path:
        # Two levels keep directories small.
        return self._root / key[:2] / key

    async def exists(self, key: str) -> bool:
        """Whether the bytes are there."""
        return self._path(key).exists()

    async def upload(self, key: str, path: Path) -> None:
        """Moves the file into its place, by way of a rename on the same file system."""
        await asyncio.to_thread(self._move, key, path)

    def _move(self, key: str, path: Path) -> None:
        target = self._path(key)
        target.parent.mkdir(exist_ok=True)
        partial = target.with_suffix(f".{os.getpid()}.partial")
        shutil.move(path, partial)
        partial.chmod(0o444)
        partial.rename(target)

    async def download(self, key: str, path: Path) -> None:
        """Copies the bytes; raises `NotFound`."""
        try:
            await asyncio.to_thread(shutil.copyfile, self._path(key), path)
        except FileNotFoundError as error:
            raise NotFound(f"No artifact sha256:{key} is stored.") from error

    def local_path(self, key: str) -> Path:
        """The stored file itself."""
        return self._path(key)

    async def delete(self, key: str) -> None:
        """Removes the file."""
        self._path(key).unlink(missing_ok=True)


class NatsObjects:
    """A bucket of the NATS object store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def exists(self, key: str) -> bool:
        """Whether the bytes are there."""
        try:
            await self._store.get_info(key)
        except js_errors.ObjectNotFoundError:
            return False
        return True

    async def upload(self, key: str, path: Path) -> None:
        """Streams the file in."""
        with path.open("rb") as file:
            await self._store.put(key, file)

    async def download(self, key: str, path: Path) -> None:
        """Streams the bytes out; raises `NotFound` and `Unavailable`."""
        try:
            with path.open("wb") as file:
                # Without `writeinto` the client joins all chunks in memory, quadratically.
                await self._store.get(key, writeinto=file)
        except js_errors.ObjectNotFoundError as error:
            raise NotFound(f"No artifact sha256:{key} is stored.") from error
        except (NatsError, TimeoutError) as error:
            raise Unavailable(f"The object store does not answer: {error}.") from error

    def local_path(self, key: str) -> None:
        """Objects have no local file."""

    async def delete(self, key: str) -> None:
        """Removes the object."""
        try:
            await self._store.delete(key)
        except js_errors.ObjectNotFoundError:
            return


async def open_object_store(bus: Bus, bucket: str) -> NatsObjects:
    """Opens a bucket of the NATS object store and makes it where it is missing."""
    try:
        store = await bus.jetstream.object_store(bucket)
    except js_errors.NotFoundError:
        config = api.ObjectStoreConfig(bucket=bucket, replicas=bus.settings.nats_replicas)
        store = await bus.jetstream.create_object_store(bucket, config=config)
    return NatsObjects(store)


class Cloud:
    """A bucket of S3, Google Cloud Storage or Azure; credentials by the provider's own means."""

    def __init__(self, url: str) -> None:
        self._store: CloudStore = from_url(url)

    async def exists(self, key: str) -> bool:
        """Whether the bytes are there."""
        try:
            await obstore.head_async(self._store, key)
        except FileNotFoundError:
            return False
        return True

    async def upload(self, key: str, path: Path) -> None:
        """Streams the file in, in parts."""
        await obstore.put_async(self._store, key, path)

    async def download(self, key: str, path: Path) -> None:
        """Streams the bytes out; raises `NotFound`."""
        try:
            result = await obstore.get_async(self._store, key)
        except FileNotFoundError as error:
            raise NotFound(f"No artifact sha256:{key} is stored.") from error
        with path.open("wb") as file:
            async for chunk in result.stream(min_chunk_size=8 << 20):
                await asyncio.to_thread(file.write, bytes(chunk))

    def local_path(self, key: str) -> None:
        """Objects have no local file."""

    async def delete(self, key: str) -> None:
        """Removes the object."""
        await obstore.delete_async(self._store, key)
