"""`make test-isa`: what it masks, what it refuses, and that what was not run is counted."""

import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import pytest
from adlik_common.settings import CpuLevel
from adlik_kernels.machine.target import CAP_VARIABLE, CAPS
from onnx import helper, numpy_helper

from tests import isa


def test_services_know_the_levels_of_the_kernels():
    assert get_args(CpuLevel) == ("", *CAPS)


def test_every_level_has_a_mask_of_every_library():
    for cap in CAPS:
        told = isa.masks(cap)
        assert {CAP_VARIABLE, "ONEDNN_MAX_CPU_ISA", "NUMBA_CPU_NAME"} <= set(told)
        assert told[CAP_VARIABLE] == cap
    for cap in CAPS[1:]:
        assert CAPS.index(isa.lower(cap)) < CAPS.index(cap)


@pytest.mark.parametrize(("arguments", "status"), [([], 0), (["--level", "avx2"], isa.NOT_RUN)])
def test_a_level_that_the_machine_does_not_have_is_not_run(monkeypatch, capsys, arguments, status):
    monkeypatch.setattr(isa, "most_of", lambda _: "portable")
    monkeypatch.setattr(isa.subprocess, "run", None)
    assert isa.main(arguments) == status
    assert "not run here" in capsys.readouterr().out


def test_a_level_that_nobody_has_is_an_error():
    with pytest.raises(SystemExit):
        isa.main(["--level", "sse9"])


def test_what_cannot_run_is_counted(monkeypatch):
    monkeypatch.setenv(CAP_VARIABLE, "portable")
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "tests/unit/kernels/test_export.py"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    told = "not run here: 3 tests (1 need avx2, 1 need avx512, 1 need amx; the level of this run"
    assert told in done.stdout
    assert "is portable)" in done.stdout
    assert "3 deselected" in done.stdout


KINDS = """
import openvino, sys
compiled = openvino.Core().compile_model(sys.argv[1], "CPU", {})
for operation in compiled.get_runtime_model().get_ops():
    facts = operation.get_rt_info()
    if facts["layerType"].astype(str) == "Convolution":
        print(facts["primitiveType"].astype(str))
"""


def test_openvino_follows_the_mask(tmp_path, monkeypatch):
    """The code of a convolution, by the word of OpenVINO itself."""
    info = helper.make_tensor_value_info
    weights = numpy_helper.from_array(np.ones((16, 3, 3, 3), np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    graph = helper.make_graph(
        [node], "g", [info("x", 1, [1, 3, 20, 20])], [info("y", 1, None)], [weights]
    )
    opsets = [helper.make_opsetid("", 17)]
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    for name, value in isa.masks("portable").items():
        monkeypatch.setenv(name, value)
    done = subprocess.run(
        [sys.executable, "-c", KINDS, path], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip()
    assert "avx" not in done.stdout
