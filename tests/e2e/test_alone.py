"""Each service installs and starts alone: the gateway without any machine learning framework."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.conftest import free_port
from tests.mesh import eventually

ROOT = Path(__file__).parents[2]
MEMBERS = ("proto", "libs/adlik_common", "services/gateway")
FRAMEWORKS = ("onnx", "onnxruntime", "openvino", "torch", "nncf", "numba", "tensorrt", "scipy")
OTHERS = ("adlik_runtimes", "adlik_kernels", "adlik_compiler", "adlik_optimizer", "adlik_serving")
MAX_BYTES = 200 << 20  # all of Adlik has 1.7 GB

_FOUND = """
import json, sys
from importlib.util import find_spec
import adlik_gateway.__main__
names = sys.argv[1:]
print(json.dumps([n for n in names if n in sys.modules or find_spec(n)]))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The interpreter of a fresh environment in which only the gateway is installed."""
    folder = tmp_path_factory.mktemp("alone")
    for member in MEMBERS:  # building them here would write into the checkout
        shutil.copytree(ROOT / member, folder / member)
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    pip = [folder / "venv/bin/pip", "install", "--quiet", "--disable-pip-version-check"]
    pins = ["-c", ROOT / "constraints.txt"]
    subprocess.run([*pip, *pins, *(folder / member for member in MEMBERS)], check=True)
    return folder / "venv/bin/python"


def test_the_gateway_brings_no_framework_along(python):
    names = (*FRAMEWORKS, *OTHERS)
    done = subprocess.run(
        [python, "-c", _FOUND, *names], capture_output=True, text=True, check=True, cwd="/"
    )
    assert json.loads(done.stdout) == []
    packages = python.parents[1] / "lib"
    assert sum(f.lstat().st_size for f in packages.rglob("*")) < MAX_BYTES


def test_the_gateway_runs_alone(python, nats_server, tmp_path):
    ports = {kind: free_port() for kind in ("http", "grpc", "health")}
    settings = {
        "ADLIK_NATS_URL": nats_server.url,
        "ADLIK_ARTIFACTS_URL": f"file://{tmp_path}/artifacts",
        "ADLIK_CACHE_DIR": f"{tmp_path}/cache",
        **{f"ADLIK_{kind.upper()}_PORT": str(port) for kind, port in ports.items()},
    }
    gateway = subprocess.Popen([python, "-m", "adlik_gateway"], env=settings, cwd=tmp_path)

    def answers(port: int, path: str) -> httpx.Response | None:
        assert gateway.poll() is None
        try:
            return httpx.get(f"http://127.0.0.1:{port}{path}")
        except httpx.TransportError:
            return None

    try:
        ready = eventually(lambda: answers(ports["health"], "/readyz"), "the gateway is ready")
        assert (ready.status_code, ready.text) == (200, "ready\n")
        assert answers(ports["http"], "/readyz").status_code == 200
        assert answers(ports["http"], "/v1/models").json() == {"models": []}
        assert answers(ports["http"], "/v2/health/live").status_code == 200
        replicas = eventually(
            lambda: answers(ports["http"], "/v1/replicas").json().get("replicas"), "it announces"
        )
        assert [replica["service"] for replica in replicas] == ["gateway"]
    finally:
        gateway.terminate()
        assert gateway.wait(60) == 0
