"""The gateway's view of the catalog, fed by hand."""

import asyncio
import contextlib
from types import SimpleNamespace

import pytest
from adlik_common.errors import InvalidName, NotFound, Overloaded, Unavailable
from adlik_common.names import token, version_key
from adlik_common.state import Change
from adlik_gateway.catalog.view import MAX_WAITING_NOTICES, CatalogView, key_of
from adlik_proto.adlik.control.v1 import control_pb2
from adlik_proto.adlik.model.v1 import model_pb2


class Bucket:
    """Gives the changes that a test puts in, as `adlik_common.state.Bucket.watch` does."""

    def __init__(self):
        self.changes = asyncio.Queue()

    async def watch(self):
        while True:
            change = await self.changes.get()
            yield change
            self.changes.task_done()

    async def give(self, *changes):
        for change in changes:
            self.changes.put_nowait(change)
        # A change is done when the next one is asked for; the last one is when nobody can.
        await asyncio.wait_for(self.changes.join(), 5)


@pytest.fixture
async def catalog():
    """A view that follows two buckets."""
    state = SimpleNamespace(models=Bucket(), releases=Bucket())
    view = CatalogView(state)
    tasks = [asyncio.create_task(f()) for f in (view.follow_models, view.follow_releases)]
    yield SimpleNamespace(view=view, models=state.models, releases=state.releases)
    for task in tasks:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def record_of(name, version=1, **fields):
    return model_pb2.ModelVersion(
        pushed=model_pb2.PushedModel(name=name, version=version), **fields
    )


def stored(name, version=1, **fields):
    record = record_of(name, version, **fields)
    return Change(key_of(record), record)


def gone(name, version=1):
    return Change(version_key(name, version), None)


def released(name, version, variant):
    release = model_pb2.Release(pushed=model_pb2.PushedModel(name=name, version=version))
    release.compiled.variant = variant
    return Change(token(name), release)


def replica(id_, *loaded):
    entry = control_pb2.Replica(id=id_, service="serving")
    for name, version, variant in loaded:
        entry.loaded.add(name=name, version=version, variant=variant)
    return Change(f"serving.{id_}", entry)


async def read(notices, number):
    return [tuple(await asyncio.wait_for(anext(notices), 5)) for _ in range(number)]


async def test_it_is_ready_when_both_buckets_were_read(catalog):
    assert not catalog.view.ready
    await catalog.models.give(stored("m"), Change("", None))
    assert not catalog.view.ready
    await catalog.releases.give(Change("", None))
    assert catalog.view.ready
    await asyncio.wait_for(catalog.view.wait_ready(), 1)


async def test_versions_are_listed_newest_first_under_names_with_dots(catalog):
    await catalog.models.give(*(stored("a.b", v) for v in (2, 10, 1)), stored("a"))
    assert [r.pushed.version for r in catalog.view.model("a.b").versions] == [10, 2, 1]
    assert [m.name for m in catalog.view.models()] == ["a", "a.b"]
    assert catalog.view.version("a.b", 0).pushed.version == 10
    assert catalog.view.version("a.b", 2).pushed.version == 2


async def test_what_is_not_there_is_told_with_what_is(catalog):
    await catalog.models.give(stored("mobilenet", 1), stored("mobilenet", 3))
    with pytest.raises(NotFound, match="Did you mean mobilenet"):
        catalog.view.model("mobilnet")
    with pytest.raises(NotFound, match="adlik models"):
        catalog.view.model("zzz")
    with pytest.raises(NotFound, match=r"\[1, 3\]"):
        catalog.view.version("mobilenet", 2)
    with pytest.raises(InvalidName):
        catalog.view.model("../etc")


async def test_a_deleted_model_is_gone_when_its_last_version_is(catalog):
    await catalog.models.give(stored("m", 1), stored("m", 2), gone("m", 1))
    assert len(catalog.view.model("m").versions) == 1
    await catalog.models.give(gone("m", 2), gone("m", 2), gone("other"))
    assert catalog.view.models() == []
    with pytest.raises(NotFound):
        catalog.view.model("m")


async def test_a_release_and_those_who_serve_it_are_shown(catalog):
    await catalog.models.give(stored("m", 2))
    await catalog.releases.give(released("m", 2, "v"))
    for change in (
        replica("right", ("m", 2, "v")),
        replica("old", ("m", 1, "v")),
        replica("other", ("n", 2, "v")),
        replica("twice", ("m", 2, "w"), ("m", 2, "v")),
    ):
        catalog.view.replica_changed(change)
    model = catalog.view.model("m")
    assert model.release.compiled.variant == "v"
    assert sorted(model.ready_replicas) == ["right", "twice"]
    catalog.view.replica_changed(Change("serving.right", None))
    assert list(catalog.view.model("m").ready_replicas) == ["twice"]
    await catalog.releases.give(Change(token("m"), None))
    assert not catalog.view.model("m").HasField("release")


async def test_watchers_hear_what_happened_between_two_states(catalog):
    variant = model_pb2.Variant(compiled=model_pb2.CompiledModel(variant="v"))
    verified = model_pb2.Variant(verification=model_pb2.Verification(accepted=True))
    verified.MergeFrom(variant)
    optimized = model_pb2.OptimizedModel(recipe="clean")
    ended = {"finished": [model_pb2.FinishedStage(stage="optimizer")]}
    with catalog.view.watching() as notices:
        await catalog.models.give(
            stored("m"),
            stored("m", optimized=[optimized]),
            stored("m", optimized=[optimized], variants=[variant], **ended),
            stored("m", optimized=[optimized], variants=[verified], **ended),
            stored("m", optimized=[optimized], variants=[verified], **ended),
            stored("m", optimized=[optimized], variants=[verified], **ended,
                   failures=[model_pb2.Failure(stage="compiler")]),
            gone("m"),
        )  # fmt: skip
        await catalog.releases.give(released("n", 1, "v"))
        catalog.view.replica_changed(replica("r", ("n", 1, "v")))
        catalog.view.replica_changed(replica("r", ("n", 1, "v")))
        assert await read(notices, 9) == [
            ("ModelPushed", "m"),
            ("ModelOptimized", "m"),
            ("ModelCompiled", "m"),
            ("StageFinished", "m"),
            ("ModelVerified", "m"),
            ("StageFailed", "m"),
            ("ModelDeleted", "m"),
            ("ModelReleased", "n"),
            ("ModelDeployed", "n"),
        ]
        catalog.view.dismiss_watchers()
        with pytest.raises(Unavailable):
            await read(notices, 1)


async def test_a_watcher_that_reads_too_slowly_is_sent_away_and_the_others_are_not(catalog):
    with catalog.view.watching() as slow, catalog.view.watching() as quick:
        for number in range(MAX_WAITING_NOTICES + 1):
            await catalog.models.give(stored(f"m{number}"))
            assert await read(quick, 1) == [("ModelPushed", f"m{number}")]
        with pytest.raises(Overloaded):
            await read(slow, MAX_WAITING_NOTICES + 1)


async def test_who_has_left_gets_nothing_more(catalog):
    with catalog.view.watching():
        pass
    with catalog.view.watching() as notices:
        await catalog.models.give(stored("m"))
        assert await read(notices, 1) == [("ModelPushed", "m")]
    assert not catalog.view._watchers
