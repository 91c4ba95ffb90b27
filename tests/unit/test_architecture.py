"""The house's rules that no linter keeps: what a program loads, and how long a module is."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FRAMEWORKS = {
    "onnx", "onnx_ir", "onnxruntime", "onnxscript", "openvino", "nncf", "torch", "tensorflow",
    "tensorrt", "numba", "sklearn", "skimage", "adlik_runtimes", "adlik_kernels",
}  # fmt: skip
MAX_LINES = 450
# Modules that were longer when the rule came; these numbers may only shrink.
LONGER: dict[str, int] = {}


def loaded_by(module):
    """Returns the top-level packages that importing a module loads, in a fresh interpreter."""
    code = f"import {module}, sys; print(*sorted({{m.partition('.')[0] for m in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.split())


def modules(folder):
    return [p for p in sorted((ROOT / folder).rglob("*.py")) if ".venv" not in p.parts]


def test_the_gateway_loads_no_machine_learning_framework():
    found = loaded_by("adlik_gateway.__main__")
    assert {"adlik_gateway", "adlik_common", "grpc", "nats"} <= found
    assert not found & FRAMEWORKS


def test_nothing_of_the_common_library_does():
    package = ROOT / "libs/adlik_common/adlik_common"
    names = [p.stem for p in modules(package) if not p.stem.startswith("__")]
    found = loaded_by(", ".join(f"adlik_common.{name}" for name in names))
    assert "adlik_common" in found
    assert not found & FRAMEWORKS


def test_the_client_needs_neither_protobuf_nor_grpc_nor_the_mesh():
    found = loaded_by("adlik")
    assert {"adlik", "httpx", "numpy"} <= found
    assert not found & {"google", "grpc", "nats", "adlik_common", "adlik_proto"}
    assert not found & FRAMEWORKS


def test_serving_loads_the_kernels_only_where_a_model_needs_them():
    found = loaded_by("adlik_serving.__main__")
    assert "adlik_serving" in found
    assert not found & {"numba", "adlik_kernels"}


@pytest.mark.parametrize("module", ["errors", "tensors", "names", "bundle", "wire", "spans"])
def test_what_core_modules_may_import_brings_no_transport(module):
    found = loaded_by(f"adlik_common.{module}")
    assert not found & {"nats", "grpc", "uvicorn", "starlette", "opentelemetry"}


@pytest.mark.parametrize("folder", ["libs", "services"])
def test_modules_are_short_enough_to_read(folder):
    lengths = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in modules(folder)}
    assert len(lengths) > 10
    assert not {path: n for path, n in lengths.items() if n > LONGER.get(path, MAX_LINES)}
