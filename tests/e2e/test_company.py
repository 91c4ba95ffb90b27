"""Whoever else asks at the same time: every request is answered as it is alone.

Models of every kind, every engine that their proof let pass, every way to ask.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Barrier

import numpy as np
import onnx
import pytest
from adlik.records import CompiledModel, VariantState

from tests.e2e.kinds import CLIENTS, KINDS, Kind
from tests.e2e.wires import Answer, Wires
from tests.mesh import Mesh, eventually

ROUNDS = 3
SETTLED_SECONDS = 240.0
# Two runs of an engine may add in another order; those of 8 bits may round to the next step.
SPREADS = {"fp32": 1e-4, "int8": 0.05}
LOOSE = {"min_speedup": 0.0, "min_r2": 0.5, "min_expected_accuracy": 0.5, "min_sure_agreement": 0.5}


@pytest.fixture(scope="module")
def clients(mesh: Mesh) -> Iterator[list[Wires]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Wires(mesh.http, mesh.grpc)) for _ in range(CLIENTS)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_company_changes_no_answer(mesh, clients, kind, tmp_path):
    served = push(mesh, kind, tmp_path)
    assert "onnxruntime" in {compiled.engine for compiled in served}
    if kind.samples is not None:
        assert "int8" in {compiled.precision for compiled in served}
    for compiled in served:
        release = mesh.client.release(kind.name, compiled.variant)
        assert release.serving.independent_rows == kind.shares_runs, release.serving.dependence
        eventually(lambda v=compiled.variant: _loaded(mesh, kind.name) == {v}, "it is served")
        check_all_ways(clients, kind, SPREADS[compiled.precision])


def push(mesh: Mesh, kind: Kind, folder: Path) -> list[CompiledModel]:
    """Pushes a model and returns its variants that passed once nothing more happens to it."""
    onnx.save(kind.made, folder / "model.onnx")
    samples, plan = None, {"recipes": ["clean"]}
    if kind.samples is not None:
        samples = folder / "samples.npz"
        np.savez(samples, **kind.samples())
        plan = {"recipes": ["clean", "int8"], "limits": LOOSE}
    mesh.client.push(kind.name, folder / "model.onnx", samples=samples, plan=plan)
    eventually(lambda: mesh.client.version(kind.name).settled, "it is settled", SETTLED_SECONDS)
    return [
        variant.compiled
        for variant in mesh.client.version(kind.name).variants
        if variant.state in (VariantState.VERIFIED, VariantState.RELEASED)
    ]


def _loaded(mesh: Mesh, name: str) -> set[str]:
    return {
        loaded.variant
        for replica in mesh.client.replicas()
        for loaded in replica.loaded
        if loaded.name == name
    }


def check_all_ways(clients: list[Wires], kind: Kind, spreads: float) -> None:
    """Asks alone, then all at once, in each way."""
    requests = kind.requests()
    for way in clients[0].all:
        alone = [clients[0].all[way](kind.name, request) for request in requests]
        assert any(isinstance(answer, dict) for answer in alone), alone
        start = Barrier(CLIENTS)

        def ask(number: int, way: str = way, start=start) -> list[Answer]:
            start.wait(60)
            return [clients[number].all[way](kind.name, requests[number]) for _ in range(ROUNDS)]

        with ThreadPoolExecutor(CLIENTS) as threads:
            together = list(threads.map(ask, range(CLIENTS)))
        for number, answers in enumerate(together):
            for answer in answers:
                check_same(alone[number], answer, spreads, f"{way}, client {number}")


def check_same(alone: Answer, answer: Answer, spreads: float, where: str) -> None:
    """Fails unless two answers are one: the same error, or the same outputs but for float noise."""
    if isinstance(alone, str) or isinstance(answer, str):
        assert answer == alone, where
        return
    assert answer.keys() == alone.keys(), where
    for name, wanted in alone.items():
        found = answer[name]
        assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype), where
        if wanted.dtype.kind == "f":
            spread = float(np.nanstd(wanted)) if np.isfinite(wanted).any() else 0.0
            np.testing.assert_allclose(
                found, wanted, rtol=1e-5, atol=spreads * spread + 1e-7, err_msg=where
            )
        else:
            np.testing.assert_array_equal(found, wanted, err_msg=where)
