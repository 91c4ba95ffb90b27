"""One mesh for all tests that leave it as they find it."""

from __future__ import annotations

import pytest

from tests.mesh import Mesh

MAX_UPLOAD_BYTES = 4 << 20
MAX_SAMPLES_BYTES = 1 << 20


@pytest.fixture(scope="session")
def mesh(tmp_path_factory):
    limits = {
        "ADLIK_MAX_UPLOAD_BYTES": str(MAX_UPLOAD_BYTES),
        "ADLIK_MAX_SAMPLES_BYTES": str(MAX_SAMPLES_BYTES),
    }
    with Mesh(tmp_path_factory.mktemp("mesh"), settings=limits) as running:
        yield running
