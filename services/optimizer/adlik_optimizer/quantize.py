"""Post-training quantization to int8 by NNCF: a QDQ graph that every engine understands."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from adlik_common.errors import InvalidModel
from onnx import version_converter

MAX_SAMPLES = 300
# QuantizeLinear with one scale per channel exists from this opset on.
MIN_OPSET = 13
_QUANTIZABLE = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_ATTENTION = {"Attention", "MultiHeadAttention"}


def quantizable(model: onnx.ModelProto) -> str:
    """Returns why there is nothing to quantize, "" where there is."""
    operators = {node.op_type for node in model.graph.node}
    if "QuantizeLinear" in operators:
        return "the model is quantized already"
    if not operators & _QUANTIZABLE:
        return f"the model has no {' or '.join(sorted(_QUANTIZABLE))}"
    return ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One way of quantizing and how near it came.

    Attributes:
        kept: What stayed in fp32, in words.
        model: The QDQ graph.
        agreement: Share of samples with the arg-max of the fp32 graph; None where no output looks
            like class scores.
    """

    kept: str
    model: onnx.ModelProto
    agreement: float | None

    def reaches(self, min_agreement: float) -> bool:
        """Whether it is near enough."""
        return self.agreement is None or self.agreement >= min_agreement


def quantize(
    model: onnx.ModelProto, samples: Mapping[str, np.ndarray], min_agreement: float
) -> list[Attempt]:
    """Quantizes to int8, leaving more in fp32 until the samples' classes stay.

    Weights get a scale per channel, activations one per tensor; every layer's bias is corrected by
    its mean error on the samples (Nagel et al. 2019, arXiv:1906.04721). Depthwise convolutions
    hold few of the weights and most of the loss, so they are what stays in fp32 first.

    Args:
        model: Clean fp32 graph.
        samples: Arrays by input; first axis: samples.
        min_agreement: Share of samples, 0..1, whose arg-max must stay.

    Returns:
        The attempts in order; the last one is the best.

    Raises:
        InvalidModel: The graph can't be brought to an opset that has int8 operators.
    """
    model = _with_opset(_named(model))
    batches = _batches(samples)
    expected = _classes(model, batches)
    attempts: list[Attempt] = []
    for kept, nodes in (("nothing", []), ("the depthwise convolutions", _depthwise(model))):
        if attempts and not nodes:
            break
        quantized = _quantized(model, batches, nodes)
        attempts.append(Attempt(kept, quantized, _agreement(expected, quantized, batches)))
        if attempts[-1].reaches(min_agreement):
            break
    return sorted(attempts, key=lambda attempt: attempt.agreement or 0.0)


def _quantized(
    model: onnx.ModelProto, batches: list[dict[str, np.ndarray]], ignored: list[str]
) -> onnx.ModelProto:
    # NNCF tells its makers of its use unless this is set before it is imported.
    os.environ["NNCF_CI"] = "1"  # noqa: TID251 - its only switch
    import nncf

    nncf.set_log_level("ERROR")
    operators = {node.op_type for node in model.graph.node}
    transformer = {"MatMul", "LayerNormalization"} <= operators or bool(operators & _ATTENTION)
    return nncf.quantize(
        model,
        nncf.Dataset(batches),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(batches),
        # The exact way gains nothing measurable on MobileNetV2 and fails on shortcuts (NNCF 3.4).
        fast_bias_correction=True,
        model_type=nncf.ModelType.TRANSFORMER if transformer else None,
        ignored_scope=nncf.IgnoredScope(names=ignored) if ignored else None,
    )


def _batches(samples: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    count = min(len(next(iter(samples.values()))), MAX_SAMPLES)
    return [{name: array[i : i + 1] for name, array in samples.items()} for i in range(count)]


def _depthwise(model: onnx.ModelProto) -> list[str]:
    def groups(node: onnx.NodeProto) -> int:
        return next((a.i for a in node.attribute if a.name == "group"), 1)

    return [n.name for n in model.graph.node if n.op_type == "Conv" and groups(n) > 1]


def _classes(model: onnx.ModelProto, batches: list[dict[str, np.ndarray]]) -> list[int] | None:
    """Returns the arg-max for every sample, None where no output looks like class scores."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    classes = []
    for batch in batches:
        scores = session.run(None, batch)[0]
        if scores.ndim != 2 or scores.shape[1] < 2 or scores.dtype.kind != "f":
            return None
        classes.append(int(scores[0].argmax()))
    return classes


def _agreement(
    expected: list[int] | None, quantized: onnx.ModelProto, batches: list[dict[str, np.ndarray]]
) -> float | None:
    found = _classes(quantized, batches) if expected is not None else None
    if expected is None or found is None:
        return None
    return sum(a == b for a, b in zip(expected, found, strict=True)) / len(expected)


def _named(model: onnx.ModelProto) -> onnx.ModelProto:
    """Gives every node a name of its own: NNCF tells nodes apart by name."""
    named = onnx.ModelProto()
    named.CopyFrom(model)
    seen: set[str] = set()
    for index, node in enumerate(named.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{index}"
        seen.add(node.name)
    return named


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
