"""No operator touches memory outside its arrays: see `fences`, which runs in its own processes."""

import signal
import subprocess
import sys
from pathlib import Path

import adlik_kernels
import pytest

from .levels import LEVELS

NO_OPERATORS = {
    *("Configuration", "configure", "configured"),
    *("BuildFailed", "InvalidOperand", "InvalidRecord", "InvalidSchedule"),
    *("KernelError", "MeasureFailed", "UnsupportedGraph"),
    # Values, what other names make, and files instead of arrays.
    *("Detections", "Levels", "Placement", "Plan", "PreparedConv2d", "PreparedDense"),
    *("PreparedDepthwise", "PreparedDepthwiseInt8", "PreparedTransposed", "PreparedWinograd"),
    *("Model", "Quantization", "export_plan", "load_model", "load_plan", "measure_model"),
    *("merge_costs", "merge_records"),
}
SIZE = 37
"""Numbers of the toy kernel's array."""


def run(*arguments):
    command = [sys.executable, str(Path(__file__).with_name("fences.py")), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)


def test_every_public_operator_has_a_case():
    covered = set(run("names").stdout.split())
    assert covered == set(adlik_kernels.__all__) - NO_OPERATORS


@pytest.mark.parametrize("level", LEVELS)
def test_operators_stay_inside_their_arrays(level, tmp_path, residual_network, builder):
    paths = [residual_network.save(tmp_path / "residual.onnx")]
    separable = builder((5, 9, 11))
    separable.conv(5, 21, 3)
    weights = separable.last, separable.weight(21, 1, 3, 3), separable.weight(21)
    separable.node("Conv", *weights, group=21, pads=[1] * 4)
    paths.append(separable.save(tmp_path / "separable.onnx"))
    done = run("operators", level, tmp_path / "cache", *paths)
    assert done.returncode == 0, f"ended in {done.stdout.splitlines()[-1:]}: {done.stderr[-2000:]}"


@pytest.mark.parametrize("kind", ["reads", "writes"])
def test_a_kernel_that_stays_inside_is_let_through(tmp_path, kind):
    done = run("toy", tmp_path, kind, 0, SIZE)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("kind", "first", "last"),
    [
        ("reads", 0, SIZE + 1),
        ("reads", -1, SIZE),
        ("writes", 0, SIZE + 1),
    ],
)
def test_a_kernel_that_reaches_one_number_too_far_is_caught(tmp_path, kind, first, last):
    done = run("toy", tmp_path, kind, first, last)
    assert done.returncode == -signal.SIGSEGV, done.stderr


def test_a_kernel_that_writes_between_array_and_fence_is_caught(tmp_path):
    done = run("toy", tmp_path, "writes", -1, SIZE)
    assert done.returncode == 1
    assert "written outside" in done.stderr
