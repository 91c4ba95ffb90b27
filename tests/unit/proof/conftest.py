"""Evidence of small models, and variants that are a function of the reference's answers."""

from __future__ import annotations

import numpy as np
import pytest
from adlik_proof.check import check
from adlik_proof.gather import gather
from adlik_runtimes.onnxruntime import ENGINE

from tests.unit.proof.models import EFFORT, saved


class Variant:
    """The reference, with its answers changed by `change(inputs, outputs)`."""

    def __init__(self, path, change):
        self._model, self._change = ENGINE.load(path, threads=1), change

    def run(self, inputs):
        return self._change(inputs, self._model.run(inputs))


@pytest.fixture
def known_of(tmp_path):
    """Gathers evidence of a model."""

    def gathering(made, effort=EFFORT, **samples):
        path = saved(made, tmp_path)
        archive = None
        if samples:
            archive = tmp_path / "samples.npz"
            np.savez(archive, **samples)
        return gather(path, archive, effort)

    return gathering


@pytest.fixture
def findings_of(tmp_path, known_of):
    """Gathers evidence of a model and holds a changed form of it to that."""

    def checking(made, change=lambda _inputs, outputs: outputs, *, is_exact=True, **samples):
        known = known_of(made, **samples)
        return check(known, Variant(tmp_path / "model.onnx", change), is_exact=is_exact)

    return checking
