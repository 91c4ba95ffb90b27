"""A variant beside the pushed model: near ones pass, others are told apart, all are measured."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from adlik_common.sandbox import Limits, run_isolated
from adlik_compiler import judge
from adlik_compiler.conversion import Route, convert
from adlik_compiler.planner import plan_path
from adlik_compiler.steps import registered_steps
from adlik_compiler.verify import Candidate, Effort, verify_variant

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
    return judge.Report(**verify_variant(str(reference), asdict(candidate), str(samples), EFFORT))


async def test_conversion_gives_the_same_bytes_each_time(save, tmp_path):
    model = save()
    first = await openvino_bundle(model, tmp_path / "first")
    second = await openvino_bundle(model, tmp_path / "second")
    assert first.read_bytes() == second.read_bytes()


async def test_a_faithful_variant_passes_with_its_figures(save, tmp_path):
    model = save()
    bundle = await openvino_bundle(model, tmp_path / "ir")
    samples = tmp_path / "samples.npz"
    x = np.random.default_rng(0).standard_normal((12, 16)).astype(np.float32)
    np.savez(samples, x=x, labels=np.arange(12) % 10)
    report = verify(model, Candidate(str(bundle), ZIP_TYPE, "openvino", "fp32"), samples)
    assert report.samples == 12
    assert report.samples_source == "provided"
    assert report.cosine > 0.99999
    assert report.top1_agreement == 1.0
    assert report.accuracy == report.reference_accuracy
    assert report.p50_ms > 0
    assert report.p99_ms >= report.p50_ms
    assert report.runs >= 5
    assert report.memory_bytes > 0
    assert judge.judge(report, judge.Limits()).accepted


def test_a_variant_with_other_answers_is_refused(save):
    model, other = save(), save("other.onnx", op="Neg")
    report = verify(model, Candidate(str(other), ONNX_TYPE, "onnxruntime", "fp32"))
    assert report.samples_source == "generated"
    assert report.top1_agreement is None
    assert report.cosine < 0
    assert not judge.judge(report, judge.Limits()).accepted


def test_a_variant_that_overflows_is_refused(save):
    model, huge = save(), save("huge.onnx", op="Exp", scale=1e6)
    report = verify(model, Candidate(str(huge), ONNX_TYPE, "onnxruntime", "fp32"))
    assert report.not_finite > 0
    assert not judge.judge(report, judge.Limits()).accepted


def test_a_variant_is_refused_where_the_pushed_model_gives_no_numbers(save):
    model, other = save(op="Sqrt", scale=-np.inf), save("other.onnx", op="Neg")
    report = verify(model, Candidate(str(other), ONNX_TYPE, "onnxruntime", "fp32"))
    verdict = judge.judge(report, judge.Limits())
    assert not verdict.accepted
    assert "Nothing could be compared" in verdict.reasons[0]


def test_the_pushed_model_is_only_measured(save):
    model = save()
    itself = Candidate(str(model), ONNX_TYPE, "onnxruntime", "fp32", is_reference=True)
    report = verify(model, itself)
    assert report.identical
    assert report.speedup == 1.0
    assert report.p50_ms > 0


async def test_it_runs_in_a_child_as_the_worker_calls_it(save, own_folder):
    model = save()
    fields = await run_isolated(
        "adlik_compiler.verify:verify_variant",
        {
            "reference": str(model),
            "candidate": asdict(Candidate(str(model), ONNX_TYPE, "onnxruntime", "fp32")),
            "samples": "",
            "effort": EFFORT,
        },
        workdir=own_folder,
        limits=Limits(seconds=60),
    )
    assert judge.Report(**fields).cosine == 1.0


def test_the_cache_key_changes_with_input_and_path_only():
    fp32, bf16 = route("openvino_ir"), route("openvino_ir", "bf16")
    assert fp32.key(["a"]) == bf16.key(["a"])
    assert len({fp32.key(["a"]), fp32.key(["b"]), route("onnxruntime").key(["a"])}) == 3
