"""The recipes on files: what they write, and what they refuse."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from adlik_common.errors import InvalidModel, InvalidSamples, UnsupportedOperator
from adlik_optimizer import recipes
from onnx import TensorProto, helper, numpy_helper

from tests.unit.optimizer import graphs


@pytest.fixture
def cnn(tmp_path):
    onnx.save(graphs.residual_cnn(), tmp_path / "model.onnx")
    rng = np.random.default_rng(0)
    np.savez(
        tmp_path / "samples.npz",
        x=rng.standard_normal((16, 3, 8, 8)).astype(np.float32),
        labels=np.zeros(16, np.int64),
    )
    return tmp_path


def run(path, x):
    return onnxruntime.InferenceSession(path).run(None, {"x": x})[0]


def test_clean_then_int8(cnn):
    model, clean, quantized = (str(cnn / f) for f in ("model.onnx", "clean.onnx", "int8.onnx"))
    samples = str(cnn / "samples.npz")
    report = recipes.clean(model, clean, samples)
    assert any(p["name"] == "fold-batch-norm" and p["modified"] for p in report["passes"])
    recipes.int8(clean, quantized, samples)
    x = np.random.default_rng(3).standard_normal((8, 3, 8, 8)).astype(np.float32)
    expected, found = run(model, x), run(quantized, x)
    cosine = (expected * found).sum() / np.linalg.norm(expected) / np.linalg.norm(found)
    assert cosine > 0.99
    weights = {w.name: w.data_type for w in onnx.load(quantized).graph.initializer}
    assert onnx.TensorProto.INT8 in weights.values()


def test_quantizing_twice_gives_the_same_bytes(cnn):
    recipes.clean(str(cnn / "model.onnx"), str(cnn / "clean.onnx"))
    for name in ("a", "b"):
        recipes.int8(str(cnn / "clean.onnx"), str(cnn / name), str(cnn / "samples.npz"))
    assert (cnn / "a").read_bytes() == (cnn / "b").read_bytes()


def test_int8_without_samples_is_refused_with_the_cure(cnn):
    with pytest.raises(InvalidSamples) as raised:
        recipes.int8(str(cnn / "model.onnx"), str(cnn / "out.onnx"))
    assert "--data" in raised.value.cure


def test_nothing_to_quantize_is_said(cnn):
    onnx.save(graphs.with_if(), cnn / "if.onnx")
    with pytest.raises(UnsupportedOperator, match="no Conv"):
        recipes.int8(str(cnn / "if.onnx"), str(cnn / "out.onnx"), str(cnn / "samples.npz"))


def test_a_fixed_batch_takes_as_many_samples_a_run(tmp_path):
    rng = np.random.default_rng(0)
    model = graphs.model(
        [helper.make_node("Gemm", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        [("x", TensorProto.FLOAT, [4, 32])],
        [("y", TensorProto.FLOAT, [4, 16])],
        [graphs.weight(rng, "w", 32, 16)],
    )
    onnx.save(model, tmp_path / "model.onnx")
    x = rng.standard_normal((62, 32)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", x=x)
    files = [str(tmp_path / n) for n in ("model.onnx", "clean.onnx", "samples.npz", "int8.onnx")]
    recipes.clean(files[0], files[1], files[2])
    recipes.int8(files[1], files[3], files[2])
    found, expected = run(files[3], x[:4]), run(files[0], x[:4])
    assert found.shape == (4, 16)
    assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


def test_inputs_that_cannot_be_made_up_call_for_samples_and_blame_no_operator(tmp_path):
    """Which rows are wanted: numbers of others than those that the model compares with."""
    model = graphs.model(
        [
            helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["f"], ["sum"], keepdims=0),
            helper.make_node("Log", ["sum"], ["log"]),
            helper.make_node("Cast", ["log"], ["size"], to=TensorProto.INT64),
            helper.make_node("Unsqueeze", ["size", "zero"], ["sizes"]),
            helper.make_node("Expand", ["f", "sizes"], ["y"]),
        ],
        [("x", TensorProto.INT64, [7])],
        [("y", TensorProto.FLOAT, ["n"])],
        [numpy_helper.from_array(np.array([0]), "zero")],
    )
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(InvalidSamples, match="no inputs could be made up") as raised:
        recipes.clean(str(tmp_path / "model.onnx"), str(tmp_path / "out.onnx"))
    assert "--data" in raised.value.cure


@pytest.mark.parametrize("cut", [0, 10, 500])
def test_a_broken_file_is_an_invalid_model(cnn, cut):
    data = (cnn / "model.onnx").read_bytes()
    (cnn / "cut.onnx").write_bytes(data[:cut])
    with pytest.raises(InvalidModel):
        recipes.clean(str(cnn / "cut.onnx"), str(cnn / "out.onnx"))


def test_external_weights_outside_the_folder_are_refused(cnn, tmp_path):
    model = graphs.residual_cnn()
    onnx.save(
        model, cnn / "ext.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    stolen = (cnn / "ext.onnx").read_bytes().replace(b"w.bin", b"/etc/")
    (cnn / "stolen.onnx").write_bytes(stolen)
    with pytest.raises(InvalidModel):
        recipes.clean(str(cnn / "stolen.onnx"), str(cnn / "out.onnx"))


def test_external_weights_are_taken_into_the_file(cnn):
    model = graphs.residual_cnn()
    onnx.save(
        model, cnn / "ext.onnx", save_as_external_data=True, location="w.bin", size_threshold=0
    )
    recipes.clean(str(cnn / "ext.onnx"), str(cnn / "out.onnx"))
    (cnn / "w.bin").unlink()
    x = np.ones((1, 3, 8, 8), np.float32)
    np.testing.assert_allclose(run(cnn / "out.onnx", x), run(cnn / "model.onnx", x), atol=1e-4)


def test_quantizing_tells_nobody_of_its_use(cnn):
    program = (
        "import sys; from adlik_optimizer import recipes; from unittest.mock import MagicMock;"
        "recipes.int8(*sys.argv[1:]); from nncf.telemetry.wrapper import telemetry;"
        "assert isinstance(telemetry, MagicMock), type(telemetry)"
    )
    files = [str(cnn / name) for name in ("model.onnx", "quiet.onnx", "samples.npz")]
    # A process of its own: under pytest NNCF is silent by itself.
    done = subprocess.run([sys.executable, "-c", program, *files], check=False, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()[-2000:]
