"""Post-training quantization to int8 by NNCF: a QDQ graph that every engine understands."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from adlik_common.errors import InvalidModel
from adlik_proof.figures import Pair, summarize
from adlik_runtimes.onnxruntime import OnnxRuntimeModel, load_plainly
from onnx import version_converter

MAX_SAMPLES = 300
MIN_R2 = 0.98
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
        accuracy: Expected accuracy of its class scores, 0..1; None where no output looks like any.
        r2: Share of the variance that its worst output keeps.
    """

    kept: str
    model: onnx.ModelProto
    accuracy: float | None
    r2: float

    @property
    def merit(self) -> str:
        """Returns how near it is, in words."""
        if self.accuracy is not None:
            return f"expected accuracy {self.accuracy:.1%}"
        return f"R² {self.r2:.4f}"

    @property
    def order(self) -> float:
        """Sorts attempts at one model: the best is largest."""
        return self.r2 if self.accuracy is None else self.accuracy

    def reaches(self, min_accuracy: float) -> bool:
        """Whether it is near enough."""
        return self.r2 >= MIN_R2 if self.accuracy is None else self.accuracy >= min_accuracy


def quantize(
    model: onnx.ModelProto, runs: Sequence[Mapping[str, np.ndarray]], min_accuracy: float
) -> list[Attempt]:
    """Quantizes to int8, leaving more in fp32 until the classes (or the numbers) stay.

    Weights get a scale per channel, activations one per tensor; every layer's bias is corrected by
    its mean error on the samples (Nagel et al. 2019, arXiv:1906.04721). Depthwise convolutions
    hold few of the weights and most of the loss, so they are what stays in fp32 first.

    Args:
        model: Clean fp32 graph.
        runs: Inputs to calibrate with, by name.
        min_accuracy: Expected accuracy, 0..1, from which no more stays in fp32.

    Returns:
        The attempts in order; the last one is the best.

    Raises:
        InvalidModel: The graph can't be brought to an opset that has int8 operators.
    """
    model = _with_opset(_named(model))
    batches = [dict(run) for run in runs]
    expected = _answers(model, batches)
    attempts: list[Attempt] = []
    for kept, nodes in (("nothing", []), ("the depthwise convolutions", _depthwise(model))):
        if attempts and not nodes:
            break
        quantized = _quantized(model, batches, nodes)
        attempts.append(_judged(kept, quantized, expected, batches))
        if attempts[-1].reaches(min_accuracy):
            break
    return sorted(attempts, key=lambda attempt: attempt.order)


def _judged(
    kept: str,
    quantized: onnx.ModelProto,
    expected: list[dict[str, np.ndarray]],
    batches: list[dict[str, np.ndarray]],
) -> Attempt:
    found = _answers(quantized, batches)
    pairs = [Pair("", left, right) for left, right in zip(expected, found, strict=True)]
    figures = summarize(pairs, {}, is_real=True).outputs
    accuracies = [f.expected_accuracy for f in figures if f.expected_accuracy is not None]
    r2 = min((f.r2 for f in figures), default=1.0)
    return Attempt(kept, quantized, min(accuracies, default=None), r2)


def _answers(
    model: onnx.ModelProto, batches: list[dict[str, np.ndarray]]
) -> list[dict[str, np.ndarray]]:
    session = OnnxRuntimeModel(load_plainly(model.SerializeToString()))
    return [session.run(batch) for batch in batches]


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


def _depthwise(model: onnx.ModelProto) -> list[str]:
    def groups(node: onnx.NodeProto) -> int:
        return next((a.i for a in node.attribute if a.name == "group"), 1)

    return [n.name for n in model.graph.node if n.op_type == "Conv" and groups(n) > 1]


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
