"""The commands, as a user types them."""

import pytest
from adlik_kernels import KernelError, configure, configured
from adlik_kernels.__main__ import main
from adlik_kernels.commands import KERNELS, operators_of, seconds_of, tune_model
from adlik_kernels.machine.roofline import roofline
from adlik_kernels.machine.target import host
from adlik_kernels.plans.onnx_graph import read_onnx
from adlik_kernels.schedules.db import Database, workload_of
from adlik_kernels.schedules.known import GROUPS, workloads_of
from adlik_kernels.schedules.registry import database_path
from adlik_kernels.search.bench import least_seconds
from adlik_kernels.workload import Dense

from .records import let_the_fastest_win


@pytest.fixture(autouse=True)
def empty_cache(tmp_path):
    before, limits = configured(), roofline(1)
    configure(cache=tmp_path / "cache")
    (tmp_path / "cache").mkdir()
    kept = tmp_path / "cache" / f"roofline-{limits.target}-1.json"
    kept.write_text(limits.to_json())  # it takes seconds to measure
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
    capsys.readouterr()
    assert main(["list"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if key in line]
    assert "made here" in line
    assert main(["list", "--everywhere"]) == 0
    assert "shipped" in capsys.readouterr().out
    let_the_fastest_win(Database(database_path()))
    assert main(["--threads", "1", "show", key]) == 0
    assert "record" in capsys.readouterr().out


def test_faults_are_said_and_not_thrown(capsys):
    assert main(["show", "nonsense"]) == 1
    assert "key of a workload" in capsys.readouterr().err


def test_the_roofline_is_measured_once(capsys):
    assert main(["--threads", "2", "roofline"]) == 0
    first = capsys.readouterr().out
    assert main(["--threads", "2", "roofline"]) == 0
    assert capsys.readouterr().out == first
    assert "fp32" in first
    for part in ("l3", "memory", "ns", "tlb 1", "tlb 2"):
        assert part in first


def test_a_workload_is_timed_beside_numpy(capfd):
    keys = ["dense-fp32-5x40x33", "conv-fp32-6x5x8-24x3x3-1x1x1x1", "dense-int8-3x16x12"]
    assert main(["--threads", "1", "bench", *keys, "--seconds", "0.05"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == keys
    assert all("% of the roofline" in line and "default" in line for line in lines)
    assert ["numpy" in line for line in lines] == [True, True, False]


def test_what_is_no_workload_is_refused_in_words(capsys):
    assert main(["bench", "nonsense"]) == 1
    assert "key of a workload" in capsys.readouterr().err
    assert main(["tune"]) == 1
    assert "Name a group" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="1"):
        KERNELS["show"]("nonsense")
    assert capsys.readouterr().err.startswith("adlik: ")


def test_groups_name_their_workloads():
    assert len(workloads_of(["dense"])) == 18
    assert len(workloads_of(["conv", "dense", "dense-fp32-64x1024x1024"])) == 18 + 19
    for work in workloads_of(list(GROUPS)):
        assert workload_of(work.key) == work


@pytest.mark.parametrize(
    ("operator", "key"),
    [("dense", "dense-fp32-5x40x33"), ("conv2d", "conv-fp32-6x5x8-24x3x3-1x1x1x1")],
)
def test_show_prints_the_code(capsys, operator, key):
    KERNELS["show"](key, threads=1, llvm=True)
    shown = capsys.readouterr().out
    assert "define void" in shown
    assert operator in shown
    KERNELS["show"](key, threads=1, asm=True)
    shown = capsys.readouterr().out
    assert "define void" not in shown
    assert "ret" in shown


def test_a_tuned_model_is_not_measured_again(tmp_path, builder, capsys):
    model = builder((33,))
    model.node("Gemm", model.last, model.weight(33, 40), model.weight(40))
    path = model.save(tmp_path / "model.onnx")
    tune_model(path, budget="30s", threads=1, trials=1)
    capsys.readouterr()
    before = database_path().read_text()
    tune_model(path, budget="30s", threads=1, trials=1)
    assert database_path().read_text() == before
    assert "1 trials" in capsys.readouterr().out
    tune_model(path, budget="30s", threads=1, trials=1, again=True)
    assert database_path().read_text() != before


def test_a_workload_cannot_be_faster_than_its_roofline_of_bytes():
    limits = roofline(1)
    thin, thick = Dense(1, 4096, 4096), Dense(512, 512, 512)
    assert least_seconds(thick, host(), limits) == thick.operations / limits.operations["fp32"]
    assert least_seconds(thin, host(), limits) > thin.operations / limits.operations["fp32"]


def test_a_profile_says_what_runs_where_and_what_each_kernel_costs(tmp_path, builder, capsys):
    model = builder((6, 9, 8))
    model.conv(6, 12, 3)
    model.node("LRN", size=3)
    model.conv(12, 5, 1)
    KERNELS["profile"](model.save(tmp_path / "model.onnx"), threads=1, seconds=0.01)
    said = capsys.readouterr().out
    assert "67% of the nodes run in plans" in said
    assert "part 1, onnxruntime: 1 LRN\n  LRN: a plan does not know LRN" in said
    assert "9x8x12" in said
    assert "Gop/s" in said
    assert "3 kernels" in said
