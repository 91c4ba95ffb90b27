"""The recipes, as they run in a child process: files in, files and a report out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from adlik_common.errors import InvalidModel, InvalidSamples, UnsupportedOperator
from adlik_common.samples import read_samples
from adlik_proof.gather import Effort, gather
from adlik_runtimes import onnxruntime
from google.protobuf.message import DecodeError

if TYPE_CHECKING:
    from adlik_optimizer.quantize import Attempt

CLEAN = "clean"
INT8 = "int8"
RECIPES = {CLEAN: "fp32", INT8: "int8"}
"""Recipe to the precision of the model it makes, in the order in which they run."""

CHECK_EFFORT = Effort(
    max_samples=3, seconds=3.0, search_seconds=2.0, max_bytes=128 * 2**20, is_brief=True
)
"""How much a pass is checked by: the variants are verified by more."""
DEFAULT_ACCURACY = 0.98


def clean(model: str, out: str, samples: str | None = None) -> dict[str, Any]:
    """Writes the model after all passes.

    Args:
        model: ONNX file; files it refers to lie beside it.
        out: File to write, with all weights inside.
        samples: NPZ archive; a few samples check the passes, beside made-up inputs.

    Returns:
        `passes`: a report of each pass.

    Raises:
        InvalidModel: It is no valid ONNX model.
        InvalidSamples: No inputs could be made up that it runs on, and none were given.
        AdlikError: ONNX Runtime can't load it.
    """
    from adlik_optimizer import pipeline
    from adlik_optimizer.passes.registry import passes

    source = load_model(Path(model))
    known = gather(Path(model), Path(samples) if samples else None, CHECK_EFFORT)
    if known.missing:
        raise InvalidSamples(
            f"Nothing could be checked: {known.missing}.",
            cure="Push samples with the model: --data samples.npz.",
        )
    cleaned, reports = pipeline.run_passes(source, passes(), known)
    _save(cleaned, Path(out))
    return {"passes": [report.as_dict() for report in reports]}


def int8(
    model: str, out: str, samples: str | None = None, min_accuracy: float = DEFAULT_ACCURACY
) -> dict[str, Any]:
    """Writes the quantized model.

    Args:
        model: A file that `clean` has written.
        out: File to write.
        samples: NPZ archive to calibrate with.
        min_accuracy: Expected accuracy, 0..1, from which an attempt is good; see `quantize`.

    Returns:
        `passes`: a report of each attempt.

    Raises:
        InvalidSamples: None were given: ranges taken from noise would be wrong on real data.
        UnsupportedOperator: There is nothing to quantize.
    """
    from adlik_optimizer import quantize

    if not samples:
        raise InvalidSamples(
            "int8 needs samples to calibrate with, and none were pushed.",
            cure="Push representative inputs with the model: --data samples.npz.",
        )
    source = load_model(Path(model))
    if reason := quantize.quantizable(source):
        raise UnsupportedOperator(f"int8 does not apply: {reason}.", cure="None is needed.")
    started = time.perf_counter()
    inputs = onnxruntime.ENGINE.load(Path(model)).inputs
    read = read_samples(Path(samples), inputs)
    runs = [read.run(at) for at in read.calibrating()[: quantize.MAX_SAMPLES]]
    attempts = quantize.quantize(source, runs, min_accuracy)
    _save(attempts[-1].model, Path(out))
    seconds = (time.perf_counter() - started) / len(attempts)
    return {"passes": [_attempt_report(attempt, seconds) for attempt in attempts]}


def _attempt_report(attempt: Attempt, seconds: float) -> dict[str, Any]:
    return {
        "name": "quantize",
        "modified": True,
        "summary": f"{attempt.kept} kept in fp32: {attempt.merit} on the calibration samples",
        "max_abs_error": 0.0,
        "seconds": seconds,
    }


def load_model(path: Path) -> onnx.ModelProto:
    """Returns a checked model with its weights inside; raises `InvalidModel`."""
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError, OSError, ValueError) as error:
        raise InvalidModel(
            f"The ONNX model is not valid: {str(error).splitlines()[0][:300]}",
            cure="Check it with onnx.checker and export it again.",
        ) from error
    return model


def _save(model: onnx.ModelProto, path: Path) -> None:
    # Deterministic: the same input gives the same bytes, and so the same digest.
    path.write_bytes(model.SerializeToString(deterministic=True))
