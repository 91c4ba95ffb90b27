"""`adlik compile` says its path and leaves a file, or fails in words."""

from __future__ import annotations

import ast
import zipfile

import pytest
from adlik_common.errors import InvalidPlan, UnsupportedFormat, UnsupportedOperator
from adlik_compiler.command import compile_model


def test_it_prints_types_path_and_result(save, tmp_path, capsys):
    compile_model(save("yolo.onnx"), "openvino-fp32")
    *said, result = capsys.readouterr().out.splitlines()
    assert said == ["source type: onnx", "target type: openvino_ir", "path: onnx -> openvino_ir"]
    written = tmp_path / "yolo.openvino-fp32.zip"
    assert ast.literal_eval(result) == {"status": "success", "path": str(written)}
    assert sorted(zipfile.ZipFile(written).namelist()) == ["model.bin", "model.xml"]


def test_the_output_goes_where_it_is_asked_to(save, tmp_path):
    model, output = save(), tmp_path / "here.onnx"
    compile_model(model, "onnxruntime-fp32", output)
    assert output.read_bytes() == model.read_bytes()


@pytest.mark.parametrize(
    ("name", "target", "options", "error"),
    [
        ("a.onnx", "tpu-fp32", {}, InvalidPlan),
        ("a.onnx", "tensorrt-fp16", {}, UnsupportedFormat),
        ("a.caffe", "openvino-fp32", {}, UnsupportedFormat),
        ("a.onnx", "openvino-fp32", {"domain": "my.ops"}, UnsupportedOperator),
    ],
)
def test_failures_are_typed(save, name, target, options, error):
    with pytest.raises(error):
        compile_model(save(name, **options), target)
