"""Runs passes over one model and checks each by running the model before and after it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import onnx
import onnx_ir as ir
from adlik_proof.check import check
from adlik_proof.evidence import Evidence
from adlik_runtimes.onnxruntime import OnnxRuntimeModel, load_plainly

from adlik_optimizer.passes.graph_pass import Pass


@dataclass(frozen=True, slots=True)
class PassReport:
    """What one pass did.

    Attributes:
        name: The pass.
        modified: Whether the model is another one now.
        summary: What was done, or why nothing.
        max_abs_error: Largest difference of any output from the pushed model's, over what both were
            run on.
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
    model: onnx.ModelProto, passes: Sequence[Pass], known: Evidence
) -> tuple[onnx.ModelProto, list[PassReport]]:
    """Returns the model after all passes, and a report of each.

    A pass that fails, or after which the model computes something else, does not load, or does
    not keep its promise, is undone, and its report says so.

    Args:
        model: A checked ONNX model with its weights inside.
        passes: In order.
        known: What the model answers before them.
    """
    reports = []
    for graph_pass in passes:
        started = time.perf_counter()
        changed, said = _changed(graph_pass, model)
        error = 0.0
        if changed is not None:
            fault, error = _fault(changed, known)
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


def _fault(changed: onnx.ModelProto, known: Evidence) -> tuple[str, float]:
    """Returns what is wrong with a changed model, "" where it is right, and its error."""
    try:
        session = load_plainly(changed.SerializeToString())
    except Exception as error:  # noqa: BLE001 - its errors have no class of their own
        return f"ONNX Runtime can't load the model: {_first_line(error)}", 0.0
    found = check(known, OnnxRuntimeModel(session), is_exact=True)
    if found.faults:
        return found.faults[0].text, 0.0
    return "", max((figures.max_error for figures in found.figures), default=0.0)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:300]
