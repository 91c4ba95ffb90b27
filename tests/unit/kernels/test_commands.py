"""The commands, as a user types them."""

import pytest
from adlik_kernels import KernelError, configure, configured
from adlik_kernels.__main__ import main
from adlik_kernels.commands import operators_of, seconds_of, tune_model
from adlik_kernels.plans.onnx_graph import read_onnx
from adlik_kernels.schedules.db import Database
from adlik_kernels.schedules.registry import database_path


@pytest.fixture(autouse=True)
def empty_cache(tmp_path):
    before = configured()
    configure(cache=tmp_path / "cache")
    yield
    configure(cache=before.cache, threads=before.threads)


def test_a_model_is_tuned_within_its_budget(tmp_path, residual_network, capsys):
    path = residual_network.save(tmp_path / "model.onnx")
    workloads = operators_of(read_onnx(path), 1)
    assert sum(workloads.values()) == 7
    tune_model(path, budget="3s", threads=1)
    recorded = {record.workload for record in Database(database_path())}
    assert recorded == {workload.key for workload in workloads}
    assert "times the default" in capsys.readouterr().out


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400)])
def test_durations(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "-1s", "10 m"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(KernelError, match="duration"):
        seconds_of(text)


def test_tune_list_and_show(capsys):
    key = "dense-fp32-5x40x33"
    assert main(["--threads", "1", "tune", key, "--trials", "3", "--agent", "random"]) == 0
    assert main(["list"]) == 0
    assert key in capsys.readouterr().out
    assert main(["--threads", "1", "show", key]) == 0
    assert "record" in capsys.readouterr().out


def test_faults_are_said_and_not_thrown(capsys):
    assert main(["show", "nonsense"]) == 1
    assert "key of a workload" in capsys.readouterr().err


def test_the_roofline_is_measured_once(capsys):
    assert main(["--threads", "1", "roofline"]) == 0
    first = capsys.readouterr().out
    assert main(["--threads", "1", "roofline"]) == 0
    assert capsys.readouterr().out == first
    assert "fp32" in first
