"""Other people's clients of the Open Inference Protocol work unchanged."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.e2e import models

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-clients/bin/python"
SCRIPT = ROOT / "tests/integration/clients/triton_client.py"


def test_tritonclient_runs_against_the_gateway(mesh, tmp_path):
    assert PYTHON.exists(), f"{PYTHON} is missing: make it with `make .venv-clients/ready`"
    mesh.push("triton", models.save_small(tmp_path / "triton.onnx"))
    address = mesh.http.removeprefix("http://")
    done = subprocess.run(
        [PYTHON, SCRIPT, "--http", address, "--grpc", mesh.grpc, "--model", "triton"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert done.stdout.endswith("all is well\n")
