"""Post-training quantization to int8 by NNCF: a QDQ graph that every engine understands."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from adlik_common.errors import InvalidModel
from onnx import version_converter

MAX_SAMPLES = 300
# QuantizeLinear with one scale per channel exists from this opset on.
MIN_OPSET = 13
_QUANTIZABLE = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_ATTENTION = {"Attention", "MultiHeadAttention", "Softmax"}


def quantizable(model: onnx.ModelProto) -> str:
    """Returns why there is nothing to quantize, "" where there is."""
    operators = {node.op_type for node in model.graph.node}
    if "QuantizeLinear" in operators:
        return "the model is quantized already"
    if not operators & _QUANTIZABLE:
        return f"the model has no {' or '.join(sorted(_QUANTIZABLE))}"
    return ""


def quantize(model: onnx.ModelProto, samples: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """Returns the model with int8 weights (one scale per channel) and int8 activations.

    Activations are asymmetric where they take both signs, and every layer's bias is corrected by
    its error on the samples (Nagel et al. 2019, arXiv:1906.04721).

    Args:
        model: Clean fp32 graph.
        samples: Arrays by input; first axis: samples.

    Raises:
        InvalidModel: The graph can't be brought to an opset that has int8 operators.
    """
    import nncf

    nncf.set_log_level("ERROR")
    count = min(len(next(iter(samples.values()))), MAX_SAMPLES)
    batches = [{name: array[i : i + 1] for name, array in samples.items()} for i in range(count)]
    operators = {node.op_type for node in model.graph.node}
    transformer = {"MatMul", "LayerNormalization"} <= operators or bool(
        operators & _ATTENTION - {"Softmax"}
    )
    return nncf.quantize(
        _with_opset(model),
        nncf.Dataset(batches),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=count,
        # The exact way gains nothing measurable on MobileNetV2 and fails on shortcuts (NNCF 3.4).
        fast_bias_correction=True,
        model_type=nncf.ModelType.TRANSFORMER if transformer else None,
    )


def _with_opset(model: onnx.ModelProto) -> onnx.ModelProto:
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset >= MIN_OPSET:
        return model
    try:
        return version_converter.convert_version(model, MIN_OPSET)
    except Exception as error:
        raise InvalidModel(
            f"The model has opset {opset}, and can't be brought to {MIN_OPSET} for int8.",
            cure=f"Export it with opset {MIN_OPSET} or newer.",
        ) from error
