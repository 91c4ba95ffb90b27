"""Tuning a bundle in its child: what a new one holds, and when there is none."""

from __future__ import annotations

import asyncio
import itertools
import json
from dataclasses import asdict

import numpy as np
import onnx
import pytest
from adlik_common import bundle
from adlik_common.sandbox import Limits, run_isolated
from adlik_compiler.idle_tuning import Effort, Tuned
from adlik_kernels.commands import model_operations
from adlik_kernels.machine.target import host
from adlik_kernels.schedules.db import Database, Record, workload_of
from adlik_kernels.schedules.space import Space
from adlik_runtimes.kernels import MODEL_FILE, RECORDS_FILE, REPORT_FILE
from onnx import TensorProto, helper, numpy_helper

KEY = "dense-fp32-1x48x64"
LIMITS = Limits(seconds=120, niceness=0)


def network(*, op="MatMul"):
    random = np.random.default_rng(3)
    weight = random.standard_normal((64, 48)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight if op == "MatMul" else weight[:, 0], "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def records_of(count, speed, *, target=None, key=KEY):
    """Records of so many schedules: of those of an earlier run only the best three are doubted."""
    machine = host()
    schedules = itertools.islice(Space(workload_of(key), machine, 1), count)
    made = target or machine.key
    return [Record(key, made, 1, schedule, seconds=1e-6, speed=speed) for schedule in schedules]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home for the children, so that nothing is made up about this machine for good."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def packed(tmp_path):
    """Writes a bundle of a model and, maybe, records."""

    def write(model, records=()):
        folder = tmp_path / "source"
        folder.mkdir()
        onnx.save(model, folder / MODEL_FILE)
        (folder / REPORT_FILE).write_text("{}")
        Database(folder / RECORDS_FILE).merge(records)
        archive = tmp_path / "bundle.zip"
        bundle.pack(folder, [path.name for path in folder.iterdir()], archive)
        return archive

    return write


@pytest.fixture
def tuned(tmp_path):
    """Tunes a bundle in a child, which finds records that an earlier run has made."""
    kept, work = tmp_path / "kept", tmp_path / "work"
    work.mkdir()

    def run(archive, *, earlier=(), min_gain=0.0):
        Database(kept / "records.jsonl").merge(earlier)
        effort = Effort(seconds=0.5, threads=1, min_gain=min_gain, max_bundle_bytes=1 << 20)
        arguments = {"archive": str(archive), "kept": str(kept), "effort": asdict(effort)}
        function = "adlik_compiler.idle_tuning:tune_bundle"
        call = run_isolated(function, arguments, workdir=work, limits=LIMITS)
        return Tuned(**asyncio.run(call)), kept / "records.jsonl"

    return run


def test_a_new_bundle_is_the_old_one_with_the_winning_records(packed, tuned, tmp_path):
    (elsewhere,) = records_of(1, 1.5, target="other-portable")
    archive = packed(network(), [elsewhere])
    strange = records_of(1, 9.0, key="dense-fp32-1x16x16")
    found, kept = tuned(archive, earlier=[*records_of(8, 7.0), *strange])
    assert (found.records, found.reason) == (1, "")
    assert found.speedup > 0
    folders = {}
    for name, path in (("old", archive), ("new", found.bundle)):
        folders[name] = tmp_path / name
        bundle.unpack(tmp_path / path, folders[name], max_bytes=1 << 20)
    for name in (MODEL_FILE, REPORT_FILE):
        assert (folders["old"] / name).read_bytes() == (folders["new"] / name).read_bytes()
    records = list(Database(folders["new"] / RECORDS_FILE))
    assert [made.workload for made in records] == [KEY, KEY]
    assert records[0] == elsewhere
    assert (records[1].target, records[1].threads, records[1].speed) == (host().key, 1, 7.0)
    measured = [json.loads(line)["workload"] for line in kept.read_text().splitlines()]
    assert measured.count(KEY) > 8, "what is measured is kept as it is found"


def test_what_makes_the_whole_no_faster_gives_no_bundle(packed, tuned):
    found, _ = tuned(packed(network()), earlier=records_of(8, 7.0), min_gain=1000.0)
    assert (found.records, found.bundle) == (1, "")
    assert "1000 are needed" in found.reason


def test_where_nothing_can_be_tuned_nothing_is_done(packed, tuned, tmp_path):
    archive = packed(network(op="Add"))
    assert model_operations(tmp_path / "source" / MODEL_FILE) == {}
    found, kept = tuned(archive)
    assert (found.records, found.speedup, found.bundle) == (0, 1.0, "")
    assert found.reason == "no operator got faster"
    assert not kept.exists()
