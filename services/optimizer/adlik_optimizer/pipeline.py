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

    A pass that fails, or after which the model computes something else, does not load, or does
    not keep its promise, is undone, and its report says so.

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
        changed, said = _changed(graph_pass, model)
        error = 0.0
        if changed is not None:
            fault, error = _fault(changed, samples, expected)
            if fault:
                changed, said = None, f"undone: {fault}"
            else:
                model = changed
        seconds = time.perf_counter() - started
        reports.append(PassReport(graph_pass.name, changed is not None, said, error, seconds))
    return model, reports


def _changed(graph_pass: Pass, model: onnx.ModelProto) -> tuple[onnx.ModelProto | None, str]:
    """Returns the model after a pass, None where there is none, and what the pass said."""
    working = ir.serde.deserialize_model(model)
    try:
        if reason := graph_pass.requires(working):
            return None, reason
        summary = graph_pass.run(working)
        if not summary:
            return None, "nothing to do"
        if broken := graph_pass.ensures(working):
            return None, f"undone: {broken}"
        return ir.serde.serialize_model(working), summary
    except MemoryError:
        raise  # the sandbox's own limit
    except Exception as error:  # noqa: BLE001 - rules of other packages run here
        return None, f"undone: it failed with {type(error).__name__}: {_first_line(error)}"


def _fault(
    changed: onnx.ModelProto,
    samples: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
) -> tuple[str, float]:
    """Returns what is wrong with a changed model, "" where it is right, and its error."""
    try:
        found = _outputs(changed, samples)
    except UnsupportedOperator as broken_model:
        return broken_model.message, 0.0
    if found.keys() != expected.keys():
        return "the outputs have other names", 0.0
    errors = {name: _difference(expected[name], found[name]) for name in expected}
    for name, error in errors.items():
        if error > RELATIVE_TOLERANCE * max(_scale(expected[name]), 1.0):
            return f"the output '{name}' differs by {error:.3g}", error
    return "", max(errors.values(), default=0.0)


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
            f"ONNX Runtime can't run the model: {_first_line(error)}",
            cure="Use operators of the ONNX standard, or inputs of the shapes the model takes.",
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:300]


def _scale(output: object) -> float:
    """Returns the largest finite magnitude of an output, 0 where it has none."""
    if not isinstance(output, np.ndarray) or output.dtype.kind not in "fiub":
        return 0.0
    values = np.abs(output.astype(np.float64))
    return float(np.max(values[np.isfinite(values)], initial=0.0))


def _difference(one: object, other: object) -> float:
    """Returns the largest difference of two outputs; infinite where they can't be compared."""
    if not isinstance(one, np.ndarray) or not isinstance(other, np.ndarray):
        return float("inf")  # a sequence or map: nothing that is served
    if one.shape != other.shape or one.dtype != other.dtype:
        return float("inf")
    if one.dtype.kind not in "fiub":
        return 0.0 if np.array_equal(one, other) else float("inf")
    a, b = one.astype(np.float64), other.astype(np.float64)
    alike = (np.isnan(a) & np.isnan(b)) | (a == b)
    gap = np.abs(np.subtract(a, b, where=~alike, out=np.zeros_like(a)))
    return float(np.max(np.nan_to_num(gap, nan=np.inf, posinf=np.inf), initial=0.0))
