"""Whatever is killed, whenever: the same model is served in the end, and nothing is done twice."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter

import numpy as np
import onnx
import pytest
from adlik.records import Model, VariantState
from onnx import TensorProto, helper, numpy_helper

from tests.e2e import models
from tests.events import stored_facts
from tests.mesh import QUICK_PLAN, QUICK_VARIANTS, SERVICES, Mesh, check_answer, eventually
from tests.unit.optimizer import graphs

# From the moment the push is accepted until after it would have been done.
MOMENTS = (0.0, 0.3, 1.0, 2.5)
MODEL_SEEDS = itertools.count(100)
BIG_WEIGHTS = 24_000_000


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    with Mesh(tmp_path_factory.mktemp("chaos")) as running:
        yield running


@pytest.fixture
def whole(mesh):
    """The mesh, with every service running before the test."""
    mesh.wait_whole()
    return mesh


@pytest.fixture
def path(tmp_path):
    """A model that was never pushed before: nothing of it is cached."""
    return models.save_small(tmp_path / "model.onnx", seed=next(MODEL_SEEDS))


def check_done_once(mesh: Mesh, model: Model) -> None:
    """Fails unless a model's one version is as if nothing had happened."""
    assert [version.pushed.version for version in model.versions] == [1]
    record = model.version(1)
    assert record.failures == ()
    assert [optimized.recipe for optimized in record.optimized] == ["clean"]
    assert sorted(variant.compiled.variant for variant in record.variants) == QUICK_VARIANTS
    assert all(variant.verification.accepted for variant in record.variants)
    states = Counter(variant.state for variant in record.variants)
    assert states == {VariantState.RELEASED: 1, VariantState.VERIFIED: 1}

    facts = [f for f in asyncio.run(stored_facts(mesh.nats)) if _model_of(f.event) == model.name]
    assert set(Counter(fact.id for fact in facts).values()) == {1}
    kinds = Counter(fact.kind for fact in facts)
    assert kinds["ModelPushed"] == kinds["ModelOptimized"] == 1
    assert kinds["ModelCompiled"] == kinds["ModelVerified"] == len(QUICK_VARIANTS)
    assert kinds["ModelReleased"] == model.release.revision
    assert kinds["StageFailed"] == 0
    assert mesh.client.jobs().dead_letters == ()


def _model_of(event) -> str:
    if hasattr(event, "release"):
        return event.release.pushed.name
    return event.pushed.name if hasattr(event, "pushed") else event.name


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_killed_during_a_push(whole, path, service, moment):
    name = f"{service}-{moment}"
    pushed = whole.client.push(name, path, plan=QUICK_PLAN)
    assert (pushed.created, pushed.pushed.version) == (True, 1)
    time.sleep(moment)
    killed = whole.kill(service)
    model = whole.wait_settled(name)
    check_answer(whole, name, path, models.random_input())
    check_done_once(whole, model)
    whole.wait_whole()
    assert killed not in [process.pid for process in whole.running(service)]
    assert not whole.client.push(name, path, plan=QUICK_PLAN).created


@pytest.mark.parametrize("moment", MOMENTS)
def test_nats_is_killed_between_two_services(whole, path, moment):
    name = f"nats-{moment}"
    whole.client.push(name, path, plan=QUICK_PLAN)
    time.sleep(moment)
    whole.kill("nats")
    model = whole.wait_settled(name)
    check_answer(whole, name, path, models.random_input())
    check_done_once(whole, model)


def test_inference_goes_on_while_nats_is_away(whole, path):
    whole.push("through", path, **QUICK_PLAN)
    whole.kill("nats")
    for _ in range(20):
        check_answer(whole, "through", path, models.random_input())


def test_the_gateway_is_killed_during_an_upload(whole, tmp_path):
    path = _save_big(tmp_path / "big.onnx")
    incoming = whole.data_dir / "cache/artifacts/incoming"
    pushed = []
    pushing = threading.Thread(
        target=lambda: pushed.append(whole.client.push("upload", path, plan=QUICK_PLAN))
    )
    pushing.start()
    eventually(lambda: any(f.stat().st_size for f in incoming.iterdir()), "the upload has begun")
    whole.kill("gateway")
    assert pushing.is_alive()
    pushing.join()
    assert [push.pushed.version for push in pushed] == [1]
    model = whole.wait_settled("upload")
    check_answer(whole, "upload", path, {"x": np.ones((1, 4), np.float32)})
    check_done_once(whole, model)
    assert list(incoming.iterdir()) == []


def _save_big(path):
    """Writes a model of 96 MB that is computed in no time."""
    rows = np.zeros((BIG_WEIGHTS // 4, 4), np.float32)
    rows[:4] = np.eye(4)
    nodes = [
        helper.make_node("Gather", ["rows", "first"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    weights = [
        numpy_helper.from_array(rows, "rows"),
        numpy_helper.from_array(np.arange(4), "first"),
    ]
    made = graphs.model(
        nodes,
        [("x", TensorProto.FLOAT, ["n", 4])],
        [("y", TensorProto.FLOAT, ["n", 4])],
        weights,
    )
    onnx.save(made, path)
    return path
