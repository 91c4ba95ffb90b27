"""The main job: a pushed model answers, gets faster by itself, and stays the model it was."""

from __future__ import annotations

import json

import httpx
import numpy as np
import pytest
from adlik.client import Client
from adlik.errors import AdlikError
from adlik.records import VariantState
from adlik_common.samples import read_samples
from adlik_common.tensors import TensorSpec

from tests.e2e import models
from tests.e2e.story import Story, asking
from tests.mesh import (
    PATIENCE_SECONDS,
    QUICK_PLAN,
    QUICK_VARIANTS,
    Mesh,
    check_answer,
    eventually,
    expected,
)

WIDE = (3, 48, 48)
SAMPLES = 16
JUDGING = SAMPLES // 2
"""The others calibrate."""
PUSHED = "pushed.onnxruntime-fp32"
STRICT = {
    "recipes": ["int8"],
    "targets": ["onnxruntime-int8", "onnxruntime-fp32"],
    "limits": {"min_r2": 1.0},
}


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A model that int8 makes faster on any processor, its samples and their labels."""
    folder = tmp_path_factory.mktemp("wide")
    model = models.save_wide(folder / "wide.onnx")
    samples = models.save_samples(folder / "plain.npz", SAMPLES, WIDE)
    with np.load(samples) as archive:
        x = archive["x"]
    # Noise alone would get the same scores each time, and nothing could be told apart.
    colours = np.random.default_rng(13).uniform(-1, 1, (SAMPLES, 3, 1, 1))
    x = (0.3 * x + colours).astype(np.float32)
    labels = expected(model, {"x": x})["y"].argmax(axis=1)
    judging = read_samples(samples, [TensorSpec("x", "FP32", (-1, *WIDE))]).judging()
    labels[judging[0]] = (labels[judging[0]] + 1) % models.CLASSES
    np.savez(folder / "samples.npz", x=x, labels=labels)
    return model, folder / "samples.npz"


@pytest.fixture(scope="module")
def story(mesh, wide):
    model, samples = wide
    asked = models.random_input(WIDE, rows=1)
    changes = []
    with asking(mesh.http, "wide", asked) as answers:
        pushed = mesh.client.push("wide", model, samples=samples)
        for change in mesh.client.watch("wide", timeout=2 * PATIENCE_SECONDS):
            changes.append(change)
            record = change.model.version()
            if record.settled and change.model.ready_replicas:
                break
        number = len(answers.answers)
        eventually(lambda: len(answers.answers) > number + 10, "the last variant has answered")
    return Story(pushed, mesh.client.model("wide"), answers, changes)


@pytest.fixture
def small(tmp_path):
    return models.save_small(tmp_path / "small.onnx")


def test_a_faster_variant_takes_over_by_itself(story):
    release = story.model.release
    assert story.pushed.created
    assert story.pushed.pushed.version == 1
    served = [release.compiled.variant, *(old.compiled.variant for old in release.history)]
    assert served[-1] == PUSHED  # answered first, before anything better was there
    assert served[0] != PUSHED  # of which precision depends on the processor
    assert release.speedup > 1.02
    assert release.revision == len(served) > 1


def test_every_variant_was_measured_and_explained(story):
    record = story.model.version(1)
    assert record.settled
    assert not record.failures
    found = {variant.compiled.variant: variant for variant in record.variants}
    assert len(found) == len(record.variants)
    assert {PUSHED, "clean.onnxruntime-fp32", "clean.openvino-fp32"} <= set(found)
    assert {"int8.onnxruntime-int8", "int8.openvino-int8"} <= set(found)
    for variant in found.values():
        assert variant.verification.samples >= JUDGING
        assert variant.verification.samples_source == "provided"
        assert variant.verification.latency.runs > 0
        assert variant.note
    released = [v for v in record.variants if v.state == VariantState.RELEASED]
    assert [v.compiled.variant for v in released] == [story.model.release.compiled.variant]


def test_labels_give_accuracy(story):
    for variant in story.model.version(1).variants:
        assert variant.verification.reference_accuracy == 1 - 1 / JUDGING
        assert variant.verification.accuracy is not None
        if variant.verification.accepted:
            assert variant.verification.accuracy >= 1 - 1 / JUDGING - 0.01


def test_no_error_while_variants_take_over(story):
    assert story.asked.errors == []
    times = [time for time, _ in story.asked.answers]
    assert min(times) < story.model.release.released_at < max(times)


def test_all_answers_are_the_pushed_models(story, wide):
    right = expected(wide[0], models.random_input(WIDE, rows=1))["y"].ravel()
    for _, outputs in story.asked.answers:
        found = outputs["y"].ravel()
        cosine = found @ right / np.linalg.norm(found) / np.linalg.norm(right)
        assert cosine > 0.99


def test_watch_tells_every_step_once(story):
    events = [change.event for change in story.changes]
    assert events[0] == "Snapshot"
    record = story.model.version(1)
    assert events.count("ModelVerified") == len(record.variants)
    assert events.count("ModelOptimized") == len(record.optimized) == 2
    assert events.count("ModelReleased") == story.model.release.revision
    assert events.count("ModelDeployed") >= 1
    assert events.count("StageFailed") == 0


def _roots(trace):
    """Returns the names of the spans whose parent is not in the trace."""
    known = {span.span_id for span in trace.spans}
    return [span.name for span in trace.spans if span.parent_span_id not in known]


def test_a_push_is_one_trace(mesh, story):
    deployed = len([c for c in story.changes if c.event == "ModelReleased"])

    def whole():
        trace = mesh.client.trace(model="wide")
        names = [span.name for span in trace.spans]
        # A span is sent when it ends, so parents arrive after their children.
        here = len(_roots(trace)) == 1 and names.count("serving.deploy") >= deployed
        return trace if here else None

    trace = eventually(whole, "every span has arrived")
    assert trace.trace_id == story.pushed.trace_id
    by_service = {}
    for span in trace.spans:
        by_service.setdefault(span.service, set()).add(span.name)
        assert span.end_unix_nano >= span.start_unix_nano
    assert {"gateway.push", "gateway.store", "gateway.release"} <= by_service["gateway"]
    assert {"optimizer.recipe", "optimizer.pass"} <= by_service["optimizer"]
    assert {
        "compiler.target",
        "compiler.step",
        "compiler.evidence",
        "compiler.verify",
    } <= by_service["compiler"]
    assert {"serving.deploy", "serving.load", "serving.warm_up"} <= by_service["serving"]
    assert _roots(trace) == ["gateway.push"]


def test_an_inference_is_one_trace(mesh, story):
    mesh.client.infer("wide", models.random_input(WIDE, rows=1))

    def last():
        trace = mesh.client.trace(last=True)
        names = {span.name for span in trace.spans}
        wanted = {"gateway.infer", "serving.queue", "serving.execute"}
        return trace if wanted <= names else None

    trace = eventually(last, "an inference's trace is whole")
    by_name = {span.name: span for span in trace.spans}
    inner = by_name["serving.execute"]
    outer = by_name["gateway.infer"]
    assert inner.end_unix_nano - inner.start_unix_nano < outer.end_unix_nano - outer.start_unix_nano


def test_the_same_push_is_the_same_version(mesh, story, wide):
    again = mesh.client.push("wide", wide[0], samples=wide[1])
    assert not again.created
    assert again.pushed == story.pushed.pushed
    assert again.trace_id == story.pushed.trace_id
    assert [v.pushed.version for v in mesh.client.model("wide").versions] == [1]


def test_a_variant_outside_the_limits_is_never_released(mesh, wide):
    model, samples = wide
    strict = mesh.push("strict", model, samples, **STRICT)
    variant = {v.compiled.variant: v for v in strict.version().variants}["int8.onnxruntime-int8"]
    assert variant.verification.speedup > 1.02  # it would have been released for its speed
    assert variant.state == VariantState.REJECTED
    assert "R²" in variant.note
    served = [strict.release, *strict.release.history]
    assert "int8.onnxruntime-int8" not in [release.compiled.variant for release in served]
    with pytest.raises(AdlikError) as refused:
        mesh.client.release("strict", "int8.onnxruntime-int8")
    assert refused.value.code == "INVALID_REQUEST"
    inputs = models.random_input(WIDE, rows=1)
    check_answer(mesh, "strict", model, inputs)


def test_a_new_version_replaces_the_old_one(mesh, small, tmp_path):
    mesh.push("versions", small)
    other = models.save_small(tmp_path / "other.onnx", seed=1)
    inputs = models.random_input()
    assert not np.allclose(expected(small, inputs)["y"], expected(other, inputs)["y"], atol=1e-2)
    check_answer(mesh, "versions", small, inputs)
    model = mesh.push("versions", other)
    assert [v.pushed.version for v in model.versions] == [2, 1]
    assert model.release.pushed.version == 2
    check_answer(mesh, "versions", other, inputs)


def test_release_by_hand_rollback_and_delete(mesh, small):
    mesh.push("hand", small)
    for variant in QUICK_VARIANTS:
        release = mesh.client.release("hand", variant)
        assert release.pinned
        assert mesh.client.model("hand").release.compiled.variant == variant
        mesh.wait_ready("hand")
        check_answer(mesh, "hand", small, models.random_input())
    rolled_back = mesh.client.rollback("hand")
    assert rolled_back.compiled.variant == QUICK_VARIANTS[0]
    assert rolled_back.revision == release.revision + 1

    mesh.client.delete("hand")

    def gone():
        return all(model.name != "hand" for r in mesh.client.replicas() for model in r.loaded)

    eventually(gone, "the model is unloaded")
    for ask in (
        lambda: mesh.client.model("hand"),
        lambda: mesh.client.infer("hand", models.random_input()),
    ):
        with pytest.raises(AdlikError) as refused:
            ask()
        assert refused.value.code == "NOT_FOUND"
    assert mesh.client.push("hand", small, plan=QUICK_PLAN).pushed.version == 2
    mesh.wait_settled("hand")
    check_answer(mesh, "hand", small, models.random_input())


def test_weights_in_another_file_are_found(mesh, tmp_path):
    model = models.save_external(tmp_path / "external.onnx")
    pushed = mesh.push("external", model)
    assert [f.name for f in pushed.version().pushed.source.external_files] == ["weights/data.bin"]
    assert sorted(v.compiled.variant for v in pushed.version().variants) == QUICK_VARIANTS
    check_answer(mesh, "external", model, models.random_input())


def test_weights_that_are_nowhere_are_asked_for(mesh, tmp_path):
    model = models.save_external(tmp_path / "external.onnx")
    (tmp_path / "weights/data.bin").unlink()
    with pytest.raises(AdlikError) as refused:
        mesh.client.push("nowhere", model)
    assert refused.value.code == "MISSING_EXTERNAL_DATA"
    assert refused.value.details["files"] == "weights/data.bin"


def test_a_watch_of_a_model_to_come_begins_at_once(mesh):
    query = {"name": "to-come"}
    with httpx.stream("GET", f"{mesh.http}/v1/watch", params=query, timeout=5) as response:
        assert response.status_code == 200
        assert next(response.iter_lines()).startswith(":")


def test_the_command_line_tells_the_same_story(mesh, small, tmp_path):
    samples = models.save_samples(tmp_path / "samples.npz", 2)
    plan = ["--recipe", "clean", "--target", "onnxruntime-fp32"]
    told = mesh.cli("push", small, "--name", "told", *plan, "--wait", "--json")
    assert (told.returncode, told.stderr) == (0, "")
    assert json.loads(told.stdout)["versions"][0]["settled"]
    listed = mesh.cli("models", "--json")
    assert "told" in [model["name"] for model in json.loads(listed.stdout)]
    shown = mesh.cli("show", "told")
    assert all(variant in shown.stdout for variant in QUICK_VARIANTS)
    with np.load(samples) as archive:
        right = expected(small, {"x": archive["x"]})["y"]
    answer = json.loads(mesh.cli("infer", "told", samples, "--json").stdout)
    np.testing.assert_allclose(answer["y"], right, rtol=1e-3, atol=1e-4)
    assert "gateway.push" in mesh.cli("trace", "told").stdout
    assert mesh.cli("status").returncode == 0
    assert mesh.cli("delete", "told").returncode == 0


def test_state_survives_stop_and_start(tmp_path, small):
    data_dir = tmp_path / "data"
    with Mesh(data_dir) as first, Client(first.http) as client:
        before = first.push("kept", small)
        watch = client.watch("kept")
        assert next(watch).event == "Snapshot"
        assert first.stop() == 0
        with pytest.raises(AdlikError) as ended:
            list(watch)
        assert ended.value.code == "UNAVAILABLE"  # in words: nothing was cut off
    with Mesh(data_dir) as second:
        after = second.wait_ready("kept")
        check_answer(second, "kept", small, models.random_input())
        assert after.release == before.release
        assert after.versions == before.versions
        assert not second.client.push("kept", small, plan=QUICK_PLAN).created
        assert second.client.jobs().dead_letters == ()
