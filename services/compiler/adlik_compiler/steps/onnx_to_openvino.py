"""ONNX to OpenVINO IR: a zip of model.xml and model.bin with weights in their own precision."""

from __future__ import annotations

from pathlib import Path

from adlik_common import bundle
from adlik_runtimes.openvino import ENGINE, MODEL_FILE, read_model

from adlik_compiler.onnx_source import self_contained
from adlik_compiler.planner import Step

WEIGHTS_FILE = "model.bin"


def convert(source: str, folder: str, precision: str) -> str:  # noqa: ARG001 - chosen on loading
    """Returns a bundle with the model as OpenVINO reads it.

    Raises:
        UnsupportedOperator: It has an operator that OpenVINO does not convert.
        InvalidModel: It is no ONNX model.
    """
    import openvino

    model = read_model(openvino.Core(), self_contained(Path(source), Path(folder)))
    output = Path(folder)
    # Weights halved to 16 bits would change the answers of the fp32 variant without a word.
    openvino.save_model(model, output / MODEL_FILE, compress_to_fp16=False)
    archive = output / "model.zip"
    bundle.pack(output, [MODEL_FILE, WEIGHTS_FILE], archive)
    return str(archive)


STEP = Step(
    source="onnx",
    target="openvino_ir",
    function="adlik_compiler.steps.onnx_to_openvino:convert",
    media_type=bundle.MEDIA_TYPE,
    distribution="openvino",
    cost=1.0,
    unavailable=ENGINE.unavailable,
)
