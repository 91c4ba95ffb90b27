"""ONNX for ONNX Runtime: the same file, once the engine has shown that it can load it."""

from __future__ import annotations

from pathlib import Path

from adlik_runtimes.onnxruntime import ENGINE

from adlik_compiler.onnx_source import self_contained
from adlik_compiler.planner import Step


def convert(source: str, folder: str, precision: str) -> str:
    """Returns a self-contained ONNX file that ONNX Runtime loads.

    Raises:
        UnsupportedOperator: It has an operator that ONNX Runtime does not know.
        InvalidModel: It is no ONNX model.
    """
    model = self_contained(Path(source), Path(folder))
    ENGINE.load(model, precision=precision).close()
    return str(model)


STEP = Step(
    source="onnx",
    target="onnxruntime",
    function="adlik_compiler.steps.onnx_to_onnxruntime:convert",
    media_type="application/x-onnx",
    distribution="onnxruntime",
    cost=0.5,
    unavailable=ENGINE.unavailable,
)
