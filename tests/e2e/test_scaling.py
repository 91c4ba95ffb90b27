"""More processes of a service share its work, and one that dies takes no request with it."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.e2e import models
from tests.e2e.story import asking
from tests.events import stored_facts
from tests.mesh import QUICK_PLAN, QUICK_VARIANTS, Mesh, check_answer, eventually, expected

SERVERS = 2
COMPILERS = 3
CLIENTS = 4


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scaled")
    with Mesh(folder, servers=SERVERS, compilers=COMPILERS) as running:
        yield running


@pytest.fixture(scope="module")
def served(mesh, tmp_path_factory):
    """A model that every replica has loaded."""
    path = models.save_small(tmp_path_factory.mktemp("served") / "served.onnx")
    mesh.push("served", path)
    eventually(lambda: len(mesh.client.model("served").ready_replicas) == SERVERS, "both serve it")
    return path


def test_three_compilers_share_three_pushes(mesh, tmp_path):
    paths = [models.save_small(tmp_path / f"m{i}.onnx", seed=20 + i) for i in range(COMPILERS)]

    def push(number):
        return mesh.client.push(f"shared-{number}", paths[number], plan=QUICK_PLAN)

    with ThreadPoolExecutor(COMPILERS) as pool:
        list(pool.map(push, range(COMPILERS)))
    for number, path in enumerate(paths):
        model = mesh.wait_settled(f"shared-{number}")
        assert sorted(v.compiled.variant for v in model.version().variants) == QUICK_VARIANTS
        assert model.release.compiled.variant in QUICK_VARIANTS
        check_answer(mesh, f"shared-{number}", path, models.random_input())
    facts = asyncio.run(stored_facts(mesh.nats))
    worked = {f.source for f in facts if f.kind in ("ModelCompiled", "ModelVerified")}
    assert len(worked) == COMPILERS
    assert all(source.startswith("adlik/compiler/") for source in worked)
    made = Counter(f.id for f in facts)
    assert set(made.values()) == {1}


def test_two_replicas_share_the_load(mesh, served):
    trace_id = secrets.token_hex(16)
    inputs = models.random_input().popitem()[1]
    tensor = {"name": "x", "shape": inputs.shape, "datatype": "FP32", "data": inputs.tolist()}
    requests = 20

    def ask(number):
        traced = {"traceparent": f"00-{trace_id}-{number + 1:016x}-01"}
        url = f"{mesh.http}/v2/models/served/infer"
        response = httpx.post(url, json={"inputs": [tensor]}, headers=traced, timeout=60)
        assert response.status_code == 200, response.text

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(ask, range(requests)))

    def answered():
        spans = mesh.client.trace(trace_id).spans
        found = [s.attributes["adlik.replica"] for s in spans if s.name == "gateway.infer"]
        return Counter(found) if len(found) == requests else None

    shares = eventually(answered, "all spans have arrived")
    assert len(shares) == SERVERS
    assert min(shares.values()) >= requests // (2 * SERVERS)
    assert set(shares) == set(mesh.client.model("served").ready_replicas)


def test_killing_a_replica_under_load_loses_no_request(mesh, served):
    inputs = models.random_input()
    with asking(mesh.http, "served", inputs, clients=CLIENTS) as asked:

        def more(number):
            before = len(asked.answers)
            eventually(lambda: len(asked.answers) > before + number, "more answers came")

        more(50)
        before = {p.pid for p in mesh.running("serving")}
        killed = mesh.kill("serving")
        more(50)
        mesh.wait_whole()
        more(50)
    assert asked.errors == []
    right = expected(served, inputs)["y"]
    for _, outputs in asked.answers:
        assert abs(outputs["y"] - right).max() < 1e-3
    after = {p.pid for p in mesh.running("serving")}
    assert killed in before
    assert killed not in after
    assert len(after) == SERVERS
    eventually(lambda: len(mesh.client.model("served").ready_replicas) == SERVERS, "both serve it")
