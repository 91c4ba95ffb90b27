"""The artifact store on each backend that can run here: digests, limits, cache, hostile names."""

from __future__ import annotations

import hashlib

import pytest
from adlik_common import bus as bus_module
from adlik_common.artifact_backends import Cloud
from adlik_common.artifacts import ArtifactStore, open_store
from adlik_common.errors import CorruptArtifact, InvalidRequest, NotFound, TooLarge
from adlik_proto.adlik.model.v1 import model_pb2

DATA = bytes(range(256)) * 20_000  # 5 MB: several chunks


async def chunks(data, size=300_000):
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.fixture(params=["directory", "nats", "cloud"])
async def store(request, settings, tmp_path):
    bus = await bus_module.connect(settings, "test")
    if request.param == "cloud":
        # The cloud backend's code on a local directory: no cloud is reachable from a test.
        (tmp_path / "cloud").mkdir()
        backend = Cloud(f"file://{tmp_path}/cloud")
        opened = ArtifactStore(
            backend, tmp_path / "cache", cache_max_bytes=1 << 30, max_bytes=1 << 30
        )
    else:
        url = "nats://artifacts" if request.param == "nats" else settings.artifacts_url
        opened = await open_store(settings.model_copy(update={"artifacts_url": url}), bus)
    yield opened
    await bus.close()


async def test_a_stream_comes_back_by_its_digest(store, tmp_path):
    ref = await store.put_stream(chunks(DATA), "application/x-onnx")
    assert ref.digest == "sha256:" + hashlib.sha256(DATA).hexdigest()
    assert ref.size_bytes == len(DATA)
    assert (await store.fetch(ref)).read_bytes() == DATA
    assert b"".join([chunk async for chunk in store.open(ref)]) == DATA
    (tmp_path / "file").write_bytes(DATA)
    assert await store.put_file(tmp_path / "file", "application/x-onnx") == ref
    assert (tmp_path / "file").exists()


async def test_what_is_too_large_is_not_stored(store):
    with pytest.raises(TooLarge):
        await store.put_stream(chunks(DATA), "x", limit=len(DATA) - 1)
    digest = "sha256:" + hashlib.sha256(DATA).hexdigest()
    with pytest.raises(NotFound):
        await store.fetch(model_pb2.ArtifactRef(digest=digest))


async def test_unknown_and_malformed_digests_are_not_found(store):
    for digest in ("sha256:" + "0" * 64, "../../etc/passwd", ""):
        with pytest.raises(NotFound):
            await store.fetch(model_pb2.ArtifactRef(digest=digest))


async def test_deleted_artifacts_are_gone(store):
    ref = await store.put_stream(chunks(b"abc"), "x")
    await store.delete(ref)
    with pytest.raises(NotFound):
        await store.fetch(ref)


async def test_corrupt_bytes_are_refused(tmp_path):
    (tmp_path / "cloud").mkdir()
    store = ArtifactStore(
        Cloud(f"file://{tmp_path}/cloud"), tmp_path / "cache", cache_max_bytes=99, max_bytes=99
    )
    ref = await store.put_stream(chunks(b"abc"), "x")
    (tmp_path / "cloud" / ref.digest.removeprefix("sha256:")).write_bytes(b"abd")
    with pytest.raises(CorruptArtifact):
        await store.fetch(ref)


async def test_the_cache_forgets_what_was_used_longest_ago(tmp_path):
    (tmp_path / "cloud").mkdir()
    store = ArtifactStore(
        Cloud(f"file://{tmp_path}/cloud"), tmp_path / "cache", cache_max_bytes=250, max_bytes=999
    )
    refs = [await store.put_stream(chunks(bytes([i]) * 100), "x") for i in range(3)]
    paths = [await store.fetch(ref) for ref in refs]
    assert [path.exists() for path in paths] == [False, True, True]
    assert (await store.fetch(refs[0])).read_bytes() == bytes(100)


async def test_an_unknown_url_is_refused(settings):
    with pytest.raises(InvalidRequest):
        await open_store(settings.model_copy(update={"artifacts_url": "ftp://x"}), None)
