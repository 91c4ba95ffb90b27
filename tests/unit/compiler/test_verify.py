"""A variant beside the pushed model: near ones pass, others are told apart, all are measured."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest
from adlik_common.sandbox import Limits, run_isolated
from adlik_compiler import judge
from adlik_compiler.conversion import Route, convert
from adlik_compiler.kept_evidence import MOST, KeptEvidence
from adlik_compiler.planner import plan_path
from adlik_compiler.steps import registered_steps
from adlik_compiler.verify import (
    Candidate,
    Effort,
    gather_evidence,
    verify_reference,
    verify_variant,
)
from adlik_proto.adlik.model.v1 import model_pb2
from onnx import TensorProto, helper

EFFORT = asdict(Effort(threads=1, latency_seconds=0.02))
ONNX_TYPE, ZIP_TYPE = "application/x-onnx", "application/zip"


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def route(target, precision="fp32"):
    return Route("onnx", plan_path(registered_steps(), "onnx", target), precision)


async def openvino_bundle(model, folder) -> Path:
    folder.mkdir()
    return await convert(route("openvino_ir"), model, folder, Limits(seconds=60))


def verify(reference, candidate, samples=""):
    evidence = Path.cwd() / "evidence.npz"
    gather_evidence(str(reference), str(samples), str(evidence), EFFORT)
    return judge.Report.of(verify_variant(str(reference), asdict(candidate), str(evidence), EFFORT))


def reference_of(model, samples=""):
    return judge.Report.of(verify_reference(str(model), str(samples), EFFORT))


async def test_conversion_gives_the_same_bytes_each_time(save, tmp_path):
    model = save()
    first = await openvino_bundle(model, tmp_path / "first")
    second = await openvino_bundle(model, tmp_path / "second")
    assert first.read_bytes() == second.read_bytes()


async def test_a_faithful_variant_passes_with_its_figures(save, tmp_path):
    model = save()
    bundle = await openvino_bundle(model, tmp_path / "ir")
    samples = tmp_path / "samples.npz"
    x = np.random.default_rng(0).standard_normal((40, 16)).astype(np.float32)
    np.savez(samples, x=x, labels=np.arange(40) % 10)
    report = verify(model, Candidate(str(bundle), ZIP_TYPE, "openvino", "fp32"), samples)
    found = report.findings
    assert found.source == "provided"
    assert found.samples > 20
    assert found.accuracy.rows == 20
    assert found.accuracy.right == found.accuracy.reference_right
    assert found.figures[0].r2 > 0.99999
    assert found.independent
    assert report.p99_ms >= report.p50_ms > 0
    assert report.runs >= 5
    assert report.memory_bytes > 0
    assert report.sizes == "x [1, 16]"
    assert judge.judge(report, judge.Limits()).accepted


def test_a_variant_with_other_answers_is_refused(save):
    model, other = save(), save("other.onnx", op="Neg")
    report = verify(model, Candidate(str(other), ONNX_TYPE, "onnxruntime", "fp32"))
    assert report.findings.source == "generated"
    verdict = judge.judge(report, judge.Limits())
    assert not verdict.accepted
    assert "'scores' element" in verdict.reasons[0]
    assert "in place of" in verdict.reasons[0]


def test_a_variant_that_overflows_is_refused(save):
    model, huge = save(), save("huge.onnx", op="Exp", scale=1e6)
    for precision in ("fp32", "int8"):
        report = verify(model, Candidate(str(huge), ONNX_TYPE, "onnxruntime", precision))
        assert not judge.judge(report, judge.Limits()).accepted


def test_a_model_of_no_numbers_is_held_to_its_nan(save):
    """Sqrt of -inf: NaN everywhere; what gives numbers in its place is another model."""
    model, other = save(op="Sqrt", scale=-np.inf), save("other.onnx", op="Neg")
    itself = verify(model, Candidate(str(model), ONNX_TYPE, "onnxruntime", "fp32"))
    assert not itself.findings.faults
    assert verify(model, Candidate(str(other), ONNX_TYPE, "onnxruntime", "fp32")).findings.faults


def test_the_pushed_model_is_measured_alone(save, tmp_path):
    report = reference_of(save())
    assert report.identical
    assert report.speedup == 1.0
    assert report.p50_ms > 0
    assert report.findings.independent
    np.savez(tmp_path / "s.npz", x=np.ones((20, 16), np.float32), labels=np.zeros(20, np.int64))
    with_labels = reference_of(save(), tmp_path / "s.npz")
    assert with_labels.findings.accuracy.rows > 0


def test_a_model_for_which_nothing_can_be_made_up_is_served_and_its_variants_are_not(tmp_path):
    """A number of rows that only the owner knows."""
    graph = helper.make_graph(
        [
            helper.make_node("Sub", ["n", "million"], ["rows"]),
            helper.make_node("Expand", ["one", "rows"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("n", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows"])],
        [
            onnx.numpy_helper.from_array(np.array([10**6]), "million"),
            onnx.numpy_helper.from_array(np.ones(1, np.float32), "one"),
        ],
    )
    path = tmp_path / "model.onnx"
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    report = reference_of(path)
    verdict = judge.judge(report, judge.Limits())
    assert verdict.accepted
    assert "push samples" in verdict.reasons[1]
    variant = verify(path, Candidate(str(path), ONNX_TYPE, "onnxruntime", "fp32"))
    refused = judge.judge(variant, judge.Limits())
    assert not refused.accepted
    assert "push samples" in refused.reasons[0]
    # With samples there is something to see.
    np.savez(tmp_path / "s.npz", n=np.full((20, 1), 10**6 + 3))
    variant = verify(
        path, Candidate(str(path), ONNX_TYPE, "onnxruntime", "fp32"), tmp_path / "s.npz"
    )
    assert judge.judge(variant, judge.Limits()).accepted


async def test_it_runs_in_a_child_as_the_worker_calls_it(save, own_folder):
    model = save()

    async def call(function, **arguments):
        return await run_isolated(
            f"adlik_compiler.verify:{function}",
            {**arguments, "effort": EFFORT},
            workdir=own_folder,
            limits=Limits(seconds=120),
        )

    evidence = str(own_folder / "evidence.npz")
    await call("gather_evidence", model=str(model), samples="", out=evidence)
    fields = await call(
        "verify_variant",
        reference=str(model),
        candidate=asdict(Candidate(str(model), ONNX_TYPE, "onnxruntime", "fp32")),
        evidence=evidence,
    )
    assert judge.judge(judge.Report.of(fields), judge.Limits()).accepted


def test_evidence_is_kept_for_the_newest_versions(tmp_path):
    kept = KeptEvidence(tmp_path / "kept")
    samples, effort = model_pb2.ArtifactRef(digest="s"), Effort()
    places = [kept.place([f"model {at}"], samples, effort) for at in range(MOST + 2)]
    assert len(set(places)) == len(places)
    assert kept.place(["model 0"], model_pb2.ArtifactRef(), effort) not in places
    assert kept.place(["model 0"], samples, Effort(sizes={"seq": 8})) not in places
    for place in places:
        made = tmp_path / "made"
        made.write_bytes(b"evidence")
        kept.keep(made, place)
    assert places[-1].read_bytes() == b"evidence"
    assert len(list(tmp_path.glob("kept/*"))) == MOST


def test_the_cache_key_changes_with_input_and_path_only():
    fp32, bf16 = route("openvino_ir"), route("openvino_ir", "bf16")
    assert fp32.key(["a"]) == bf16.key(["a"])
    assert len({fp32.key(["a"]), fp32.key(["b"]), route("onnxruntime").key(["a"])}) == 3
