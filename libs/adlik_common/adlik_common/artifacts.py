"""The content-addressed artifact store, and every reader's local cache by digest.

Where the bytes are kept is chosen by URL: a directory (file:///dir), the NATS object store
(nats://bucket) or a cloud bucket (s3://, gs://, az://).
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO, Protocol
from urllib.parse import urlsplit

from adlik_proto.adlik.model.v1 import model_pb2

from adlik_common.bus import Bus
from adlik_common.errors import CorruptArtifact, InvalidRequest, NotFound, TooLarge
from adlik_common.settings import ServiceSettings

CHUNK_BYTES = 1 << 20
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Backend(Protocol):
    """Where artifacts are kept, by the hexadecimal part of their digest."""

    async def exists(self, key: str) -> bool:
        """Whether the bytes are there."""

    async def upload(self, key: str, path: Path) -> None:
        """Stores a file, all of it or nothing; the file may be moved away."""

    async def download(self, key: str, path: Path) -> None:
        """Writes the bytes to a file; raises `NotFound`."""

    def local_path(self, key: str) -> Path | None:
        """The stored file itself where it is on this machine; it must not be changed."""

    async def delete(self, key: str) -> None:
        """Removes the bytes; those that are not there are no error."""


class ArtifactStore:
    """Stores and fetches artifacts by digest.

    Args:
        backend: Where they are kept.
        cache_dir: This machine's copies.
        cache_max_bytes: Size above which the least recently used copies are removed.
        max_bytes: Largest artifact that is stored or read.
    """

    def __init__(
        self, backend: Backend, cache_dir: Path, *, cache_max_bytes: int, max_bytes: int
    ) -> None:
        self._backend, self._cache = backend, cache_dir
        self._cache_max_bytes, self._max_bytes = cache_max_bytes, max_bytes
        self._fetching: dict[str, asyncio.Lock] = {}
        self._incoming = cache_dir / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)
        _sweep(self._incoming)

    async def put_stream(
        self, chunks: AsyncIterator[bytes], media_type: str, *, limit: int | None = None
    ) -> model_pb2.ArtifactRef:
        """Stores a stream of bytes without holding it whole.

        Args:
            chunks: The bytes, in pieces of any size.
            media_type: What they are.
            limit: Most bytes to accept; the store's own limit by default.

        Raises:
            TooLarge: There were more bytes; nothing is stored.
        """
        limit = min(limit or self._max_bytes, self._max_bytes)
        digest, size = hashlib.sha256(), 0
        with self._scratch_file() as path:
            with path.open("wb") as file:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > limit:
                        raise TooLarge(
                            f"The file has more than the allowed {limit} bytes.",
                            cure="Push a smaller file or raise the limit (ADLIK_MAX_UPLOAD_BYTES).",
                            limit_bytes=limit,
                        )
                    await asyncio.to_thread(_append, file, digest, chunk)
            return await self._keep(path, digest.hexdigest(), size, media_type)

    async def put_file(self, path: Path, media_type: str) -> model_pb2.ArtifactRef:
        """Stores a file; it is left where it is."""
        key, size = await asyncio.to_thread(_digest_of, path)
        if size > self._max_bytes:
            raise TooLarge(f"The artifact has {size} bytes; {self._max_bytes} are allowed.")
        if await self._backend.exists(key):
            return _ref(key, size, media_type)
        with self._scratch_file() as copy:
            await asyncio.to_thread(shutil.copyfile, path, copy)
            return await self._keep(copy, key, size, media_type)

    async def fetch(self, ref: model_pb2.ArtifactRef) -> Path:
        """Returns a local file with an artifact's bytes, checked; it must not be changed.

        Raises:
            NotFound: No such artifact.
            CorruptArtifact: The stored bytes are not those that were put.
            TooLarge: Larger than the store's limit.
        """
        key = _key(ref.digest)
        if ref.size_bytes > self._max_bytes:
            raise TooLarge(f"{ref.digest} has {ref.size_bytes} bytes.")
        if (local := self._backend.local_path(key)) is not None:
            if not await asyncio.to_thread(local.exists):
                raise NotFound(f"No artifact {ref.digest} is stored.")
            return local
        async with self._fetching.setdefault(key, asyncio.Lock()):
            cached = self._cache / key
            if not cached.exists():
                await self._download(key, cached)
            os.utime(cached)
        self._fetching.pop(key, None)
        return cached

    async def open(self, ref: model_pb2.ArtifactRef) -> AsyncIterator[bytes]:
        """Yields an artifact's bytes in chunks."""
        path = await self.fetch(ref)
        with path.open("rb") as file:
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield chunk

    async def delete(self, ref: model_pb2.ArtifactRef) -> None:
        """Removes an artifact that nothing refers to any more."""
        await self._backend.delete(_key(ref.digest))
        (self._cache / _key(ref.digest)).unlink(missing_ok=True)

    async def _keep(
        self, path: Path, key: str, size: int, media_type: str
    ) -> model_pb2.ArtifactRef:
        if not await self._backend.exists(key):
            await self._backend.upload(key, path)
        return _ref(key, size, media_type)

    async def _download(self, key: str, target: Path) -> None:
        with self._scratch_file() as path:
            await self._backend.download(key, path)
            found, _ = await asyncio.to_thread(_digest_of, path)
            if found != key:
                raise CorruptArtifact(
                    f"The stored bytes of sha256:{key} have the digest sha256:{found}.",
                    cure="Push the model again.",
                )
            await asyncio.to_thread(self._trim_cache, path.stat().st_size)
            path.rename(target)

    def _trim_cache(self, incoming: int) -> None:
        """Removes the copies that were not used for longest, until the new one fits."""
        files = [(p.stat(), p) for p in self._cache.iterdir() if p.is_file()]
        total = sum(stat.st_size for stat, _ in files) + incoming
        for stat, path in sorted(files, key=lambda item: item[0].st_mtime):
            if total <= self._cache_max_bytes:
                return
            path.unlink(missing_ok=True)
            total -= stat.st_size

    @contextlib.contextmanager
    def _scratch_file(self) -> Iterator[Path]:
        handle, name = _locked_file(self._incoming)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)
            os.close(handle)


def _locked_file(folder: Path) -> tuple[int, str]:
    """Returns a new file that is locked until it is closed or this process has died."""
    while True:
        handle, name = tempfile.mkstemp(dir=folder)
        fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, name
        os.close(handle)  # swept away by another process before it was locked


def _sweep(folder: Path) -> None:
    """Removes the half-written files of processes that were killed: nobody locks them."""
    for path in folder.iterdir():
        with contextlib.suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


async def open_store(settings: ServiceSettings, bus: Bus) -> ArtifactStore:
    """Opens the store that the settings name; raises `InvalidRequest` for an unknown URL."""
    from adlik_common import artifact_backends as backends

    url = urlsplit(settings.artifacts_url)
    backend: Backend
    if url.scheme == "file":
        backend = backends.Directory(Path(url.path))
    elif url.scheme == "nats":
        backend = await backends.open_object_store(bus, url.netloc)
    elif url.scheme in ("s3", "gs", "az"):
        backend = backends.Cloud(settings.artifacts_url)
    else:
        raise InvalidRequest(
            f"'{settings.artifacts_url}' is no artifact store.",
            cure="Set ADLIK_ARTIFACTS_URL to file:///dir, nats://bucket, s3://, gs:// or az://.",
        )
    return ArtifactStore(
        backend,
        settings.cache_dir / "artifacts",
        cache_max_bytes=settings.cache_max_bytes,
        max_bytes=settings.max_artifact_bytes,
    )


def _ref(key: str, size: int, media_type: str) -> model_pb2.ArtifactRef:
    return model_pb2.ArtifactRef(digest=f"sha256:{key}", size_bytes=size, media_type=media_type)


def _key(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise NotFound(f"'{digest[:80]}' is no artifact digest.")
    return digest.removeprefix("sha256:")


def _append(file: IO[bytes], digest: hashlib._Hash, chunk: bytes) -> None:
    digest.update(chunk)
    file.write(chunk)


def _digest_of(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return digest.hexdigest(), file.tell()
