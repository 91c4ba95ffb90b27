"""Runs passes over one model and checks each by running the model before and after it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from adlik_common.errors import UnsupportedOperator

from adlik_optimizer.passes.graph_pass import Pass

# Folding in float32 rounds differently from computing in float32.
RELATIVE_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class PassReport:
    """What one pass did.

    Attributes:
        name: The pass.
        modified: Whether the model is another one now.
        summary: What was done, or why nothing.
        max_abs_error: Largest difference of any output from the pushed model's, over the check
            samples.
        seconds: Time taken, with the check.
    """

    name: str
    modified: bool
    summary: str
    max_abs_error: float
    seconds: float

    def as_dict(self) -> dict[str, object]:
        """Returns the fields by name."""
        return asdict(self)


def run_passes(
    model: onnx.ModelProto, passes: Sequence[Pass], samples: Mapping[str, np.ndarray]
) -> tuple[onnx.ModelProto, list[PassReport]]:
    """Returns the model after all passes, and a report of each.

    A pass after which the model computes something else, does not load, or does not keep its
    promise is undone, and its report says so.

    Args:
        model: A checked ONNX model with its weights inside.
        passes: In order.
        samples: One batch of every input, for the numeric check.

    Raises:
        UnsupportedOperator: The model can't be run, so that nothing could be checked.
    """
    expected = _outputs(model, samples)
    reports = []
    for graph_pass in passes:
        started = time.perf_counter()
        working = ir.serde.deserialize_model(model)
        reason = graph_pass.requires(working)
        summary = "" if reason else graph_pass.run(working)
        error = 0.0
        if summary:
            changed = ir.serde.serialize_model(working)
            fault, error = _fault(graph_pass, working, changed, samples, expected)
            if fault:
                summary, reason = "", f"undone: {fault}"
            else:
                model = changed
        seconds = time.perf_counter() - started
        said = summary or reason or "nothing to do"
        reports.append(PassReport(graph_pass.name, bool(summary), said, error, seconds))
    return model, reports


def _fault(
    graph_pass: Pass,
    working: ir.Model,
    changed: onnx.ModelProto,
    samples: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
) -> tuple[str, float]:
    """Returns what is wrong with a changed model, "" where it is right, and its error."""
    if broken := graph_pass.ensures(working):
        return broken, 0.0
    try:
        found = _outputs(changed, samples)
    except UnsupportedOperator as broken_model:
        return broken_model.message, 0.0
    if found.keys() != expected.keys():
        return "the outputs have other names", 0.0
    error = max((_difference(expected[name], found[name]) for name in expected), default=0.0)
    scale = max((float(np.max(np.abs(a), initial=0.0)) for a in _numbers(expected)), default=0.0)
    if not error <= RELATIVE_TOLERANCE * max(scale, 1.0):
        return f"an output differs by {error:.3g}", error
    return "", error


def _outputs(model: onnx.ModelProto, samples: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(samples)), strict=True))
    except Exception as error:
        raise UnsupportedOperator(
            f"ONNX Runtime can't run the model: {str(error).splitlines()[0][:300]}",
            cure="Use operators of the ONNX standard, or inputs of the shapes the model takes.",
        ) from error


def _numbers(arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    return [a.astype(np.float64) for a in arrays.values() if a.dtype.kind in "fiub"]


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    if one.shape != other.shape or one.dtype != other.dtype:
        return float("inf")
    if one.dtype.kind not in "fiub":
        return 0.0 if np.array_equal(one, other) else float("inf")
    a, b = one.astype(np.float64), other.astype(np.float64)
    both_odd = (np.isnan(a) & np.isnan(b)) | (a == b)
    return float(np.max(np.where(both_odd, 0.0, np.abs(a - b)), initial=0.0))
