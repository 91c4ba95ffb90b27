"""Each engine that runs here gives numpy's answers, takes any memory layout and fails in words."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import openvino
import psutil
import pytest
from adlik_common import errors
from adlik_common.tensors import TensorSpec
from adlik_kernels import configure, configured
from adlik_kernels.machine.target import host
from adlik_kernels.schedules.db import Database, Record, workload_of
from adlik_kernels.schedules.registry import choose, database_path
from adlik_kernels.schedules.space import Space
from adlik_runtimes import cpu, registry
from adlik_runtimes.kernels import MODEL_FILE, RECORDS_FILE, keep_records_in
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

RUNNING = ["kernels", "onnxruntime", "openvino"]


@pytest.fixture(params=RUNNING)
def engine(request):
    return registry.engine(request.param)


@pytest.fixture(params=[(name, rows) for name in RUNNING for rows in ("n", 3)], ids=str)
def opened(request, save):
    name, rows = request.param
    path, weights = save(rows=rows)
    model = registry.engine(name).load(path, threads=1)
    yield model, weights, rows
    model.close()


def expected(x, weights):
    x = x.astype(np.float64)
    return np.maximum(x @ weights["weight"].astype(np.float64) + weights["bias"], 0), x.sum(axis=1)


def layouts(x):
    """The same values in writable, read-only, transposed and strided memory."""
    frozen = np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape)
    wide = np.repeat(x, 2, axis=1)
    return [x, frozen, np.asfortranarray(x), wide[:, ::2]]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.integers(1, 9), seed=st.integers(0, 2**32 - 1))
def test_answers_are_those_of_float64_arithmetic_in_any_layout(opened, rows, seed):
    model, weights, fixed = opened
    x = np.random.default_rng(seed).standard_normal((rows if fixed == "n" else fixed, 16))
    x = x.astype(np.float32)
    y, total = expected(x, weights)
    for array in layouts(x):
        found = model.run({"x": array})
        assert list(found) == ["y", "total"]
        np.testing.assert_allclose(found["y"], y, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(found["total"], total, rtol=1e-4, atol=1e-4)


def test_large_read_only_input_is_taken_without_a_write(save, engine):
    path, weights = save(inner=20_000)
    x = np.random.default_rng(0).standard_normal((2, 20_000)).astype(np.float32)
    frozen = np.frombuffer(x.tobytes(), np.float32).reshape(x.shape)
    model = engine.load(path)
    y, _ = expected(x, weights)
    np.testing.assert_allclose(model.run({"x": frozen})["y"], y, rtol=1e-3, atol=1e-2)
    np.testing.assert_array_equal(frozen, x)


def test_specs_say_what_the_model_takes_and_gives(opened):
    model, _, rows = opened
    first = -1 if rows == "n" else rows
    assert model.inputs == (TensorSpec("x", "FP32", (first, 16)),)
    assert model.outputs == (
        TensorSpec("y", "FP32", (first, 10)),
        TensorSpec("total", "FP32", (first,)),
    )


def test_only_wanted_outputs_come_back_and_belong_to_the_caller(opened):
    model, _, _ = opened
    x = np.ones((3, 16), np.float32)
    first = model.run({"x": x}, ["total"])
    assert list(first) == ["total"]
    model.run({"x": 2 * x}, ["total"])
    np.testing.assert_array_equal(first["total"], np.full(3, 16, np.float32))


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        ({}, (), "Input 'x' is missing"),
        ({"x": np.zeros((3, 15), np.float32)}, (), "15"),
        ({"x": np.zeros(16, np.float32)}, (), "x"),
        ({"x": np.zeros((3, 16), np.float64)}, (), "float"),
        ({"x": np.zeros((3, 16), np.float32)}, ("z",), "no output 'z'"),
    ],
    ids=["missing", "size", "rank", "dtype", "output"],
)
def test_a_wrong_tensor_is_named_and_the_model_lives_on(opened, inputs, outputs, words):
    model, weights, _ = opened
    with pytest.raises(errors.InvalidTensor) as caught:
        model.run(inputs, outputs)
    said = caught.value.message
    assert words in said or (words == "float" and "FP64" in said)
    x = np.ones((3, 16), np.float32)
    np.testing.assert_allclose(model.run({"x": x})["y"], expected(x, weights)[0], rtol=1e-4)


@pytest.mark.parametrize(("op", "domain"), [("Foo", "my.ops"), ("Bar", "")])
def test_an_unknown_operator_is_named_with_its_domain(save, engine, op, domain):
    path, _ = save(op=op, domain=domain)
    with pytest.raises(errors.UnsupportedOperator) as caught:
        engine.load(path)
    assert caught.value.details == {"operator": op, "domain": domain or "ai.onnx"}
    assert f"'{op}'" in caught.value.message


@pytest.mark.parametrize("content", [b"", b"no model", "cut"], ids=["empty", "text", "cut"])
def test_bytes_that_are_no_model_are_refused(save, engine, content):
    path, _ = save(inner=4096)
    path.write_bytes(path.read_bytes()[:50_000] if content == "cut" else content)
    with pytest.raises(errors.InvalidModel):
        engine.load(path)


def test_a_precision_that_is_not_native_is_refused(save, engine):
    path, _ = save()
    with pytest.raises(errors.EngineFailed, match="no precision 'fp4'"):
        engine.load(path, precision="fp4")


def test_openvino_computes_in_the_precision_that_is_asked_for_or_refuses(save, monkeypatch):
    monkeypatch.setattr(cpu, "has_bfloat16", lambda: True)  # whether it is native or not
    path, weights = save()
    x = np.random.default_rng(1).standard_normal((1, 16)).astype(np.float32)
    exact, engine = expected(x, weights)[0], registry.engine("openvino")

    def error(precision):
        model = engine.load(path, precision=precision)
        difference = np.abs(model.run({"x": x})["y"] - exact).max()
        model.close()
        return difference

    assert error("fp32") < 1e-5
    hint = {"INFERENCE_PRECISION_HINT": "bf16"}
    compiled = openvino.Core().compile_model(path, "CPU", hint)
    told = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if told == "bf16":
        assert 1e-4 < error("bf16") < 0.2
        return
    assert np.abs(compiled({"x": x})["y"] - exact).max() < 1e-5  # what it says is what it does
    with pytest.raises(errors.EngineFailed, match=f"would compute in {told}"):
        error("bf16")


@pytest.mark.parametrize(("level", "has"), [("", True), ("amx", True), ("avx512_vnni", False)])
def test_a_capped_processor_has_no_bfloat16(monkeypatch, level, has):
    monkeypatch.setattr(cpu, "flags", lambda: frozenset({"avx512_bf16"}))
    monkeypatch.setenv("ADLIK_CPU_LEVEL", level)
    assert cpu.has_bfloat16() == has


@pytest.mark.parametrize(("level", "words"), [("mmx", "no instruction set 'mmx'"), ("", "")])
def test_kernels_say_why_they_do_not_run_on_a_machine(save, monkeypatch, level, words):
    path, _ = save()
    program = f"""
from pathlib import Path
from adlik_common.errors import EngineFailed
from adlik_runtimes import registry
engine = registry.engine("kernels")
print(engine.unavailable())
try:
    engine.load(Path({str(path)!r}))
except EngineFailed as error:
    print(error.message)
"""
    monkeypatch.setenv("ADLIK_CPU_LEVEL", level)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.count(words) == 2 if words else not done.stdout.strip()


def test_bfloat16_is_offered_only_where_the_processor_has_it(monkeypatch):
    engine = registry.engine("openvino")
    for has, offered in ((True, ("fp32", "bf16", "int8")), (False, ("fp32", "int8"))):
        monkeypatch.setattr(cpu, "has_bfloat16", lambda has=has: has)
        assert engine.precisions() == offered


def test_memory_is_given_back_on_close(save, engine):
    path, _ = save(inner=4096, outer=4096)  # 64 MiB of weights
    x = {"x": np.ones((1, 4096), np.float32)}

    def use():
        model = engine.load(path, threads=1)
        model.run(x)
        held = psutil.Process().memory_info().rss
        model.close()
        return held, psutil.Process().memory_info().rss

    use()
    sizes = [use() for _ in range(4)]
    assert sizes[-1][0] - sizes[-1][1] > 48 * 2**20
    assert sizes[-1][1] - sizes[0][1] < 32 * 2**20


def test_every_registered_engine_is_found_and_unknown_ones_are_not():
    assert set(registry.engines()) >= {"onnxruntime", "openvino", "tensorrt"}
    for name, found in registry.engines().items():
        assert found.name == name
    with pytest.raises(errors.NotFound, match="no engine 'tpu'"):
        registry.engine("tpu")


def test_engines_that_run_here_say_their_version(engine):
    assert engine.unavailable() == ""
    assert engine.version()


def test_tensorrt_says_why_it_does_not_run_without_its_package(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    tensorrt = type(registry.engine("tensorrt"))()
    assert "tensorrt" in tensorrt.unavailable()
    plan = tmp_path / "model.plan"
    plan.write_bytes(b"plan")
    with pytest.raises(errors.EngineFailed, match="TensorRT does not run here"):
        tensorrt.load(plan, precision="fp16")


def test_a_bundles_records_choose_the_schedules_of_its_operators(save, tmp_path):
    path, weights = save()
    folder = tmp_path / "bundle"
    folder.mkdir()
    path.rename(folder / MODEL_FILE)
    workload = workload_of("dense-fp32-1x10x16")
    space = Space(workload, host(), 1)
    schedule = next(found for found in space if found != space.default())
    record = Record(workload.key, host().key, 1, schedule, seconds=1e-6, speed=1.5)
    Database(folder / RECORDS_FILE).add(record)
    before = configured().cache
    configure(cache=tmp_path / "cache")
    try:
        assert choose(workload, host(), 1).origin != "record"
        model = registry.engine("kernels").load(folder, threads=1)
        choice = choose(workload, host(), 1)
    finally:
        configure(cache=before)
    assert (choice.origin, choice.schedule) == ("record", schedule)
    assert list(Database(tmp_path / "cache" / RECORDS_FILE)) == [record]
    x = np.ones((1, 16), np.float32)
    np.testing.assert_allclose(model.run({"x": x})["y"], expected(x, weights)[0], rtol=1e-4)


def test_records_that_can_not_be_read_are_named(save, tmp_path):
    path, _ = save()
    path.rename(tmp_path / MODEL_FILE)
    (tmp_path / RECORDS_FILE).write_text("nonsense\n")
    with pytest.raises(errors.EngineFailed, match="line 1: This is not a tuning record"):
        registry.engine("kernels").load(tmp_path, threads=1)


def test_a_bundle_that_is_only_judged_leaves_its_records_elsewhere(tmp_path):
    workload = workload_of("dense-fp32-1x10x16")
    schedule = Space(workload, host(), 1).default()
    known = Record(workload.key, host().key, 1, schedule, seconds=1e-6, speed=1.5)
    before = configured().cache
    configure(cache=tmp_path)
    Database(database_path()).add(known)
    try:
        folder = tmp_path / "judged"
        folder.mkdir()
        keep_records_in(folder)
        assert database_path() == folder / RECORDS_FILE
        assert list(Database(database_path())) == [known]
    finally:
        configure(cache=before, records="")
