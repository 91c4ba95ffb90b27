"""The recipes, as they run in a child process: files in, files and a report out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from adlik_common.errors import InvalidModel, InvalidSamples, UnsupportedOperator
from google.protobuf.message import DecodeError

if TYPE_CHECKING:
    from adlik_optimizer.quantize import Attempt

CLEAN = "clean"
INT8 = "int8"
RECIPES = {CLEAN: "fp32", INT8: "int8"}
"""Recipe to the precision of the model it makes, in the order in which they run."""

CHECK_SAMPLES = 2
DEFAULT_AGREEMENT = 0.9


def clean(model: str, out: str, samples: str | None = None) -> dict[str, Any]:
    """Writes the model after all passes.

    Args:
        model: ONNX file; files it refers to lie beside it.
        out: File to write, with all weights inside.
        samples: NPZ archive; the first samples check the passes.

    Returns:
        `passes`: a report of each pass.
    """
    from adlik_optimizer import pipeline
    from adlik_optimizer.passes.registry import passes
    from adlik_optimizer.samples import generate_samples, load_samples

    source = load_model(Path(model))
    if samples:
        arrays = {
            name: array[:CHECK_SAMPLES] for name, array in load_samples(Path(samples)).items()
        }
    else:
        arrays = generate_samples(source)
    arrays = _fitting(source, arrays)
    cleaned, reports = pipeline.run_passes(source, passes(), arrays)
    _save(cleaned, Path(out))
    return {"passes": [report.as_dict() for report in reports]}


def int8(
    model: str, out: str, samples: str | None = None, min_agreement: float = DEFAULT_AGREEMENT
) -> dict[str, Any]:
    """Writes the quantized model.

    Args:
        model: A file that `clean` has written.
        out: File to write.
        samples: NPZ archive to calibrate with.
        min_agreement: Share of samples, 0..1, whose class must stay; see `quantize`.

    Returns:
        `passes`: a report of each attempt.

    Raises:
        InvalidSamples: None were given: ranges taken from noise would be wrong on real data.
        UnsupportedOperator: There is nothing to quantize.
    """
    from adlik_optimizer import quantize
    from adlik_optimizer.samples import load_samples

    if not samples:
        raise InvalidSamples(
            "int8 needs samples to calibrate with, and none were pushed.",
            cure="Push representative inputs with the model: --data samples.npz.",
        )
    source = load_model(Path(model))
    if reason := quantize.quantizable(source):
        raise UnsupportedOperator(f"int8 does not apply: {reason}.", cure="None is needed.")
    started = time.perf_counter()
    attempts = quantize.quantize(source, load_samples(Path(samples)), min_agreement)
    _save(attempts[-1].model, Path(out))
    seconds = (time.perf_counter() - started) / len(attempts)
    return {"passes": [_attempt_report(attempt, seconds) for attempt in attempts]}


def _attempt_report(attempt: Attempt, seconds: float) -> dict[str, Any]:
    said = "no class scores to compare"
    if attempt.agreement is not None:
        said = f"top-1 agreement {attempt.agreement:.1%} on the calibration samples"
    return {
        "name": "quantize",
        "modified": True,
        "summary": f"{attempt.kept} kept in fp32: {said}",
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


def _fitting(model: onnx.ModelProto, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Cuts samples to a fixed first axis of the model's."""
    sizes = {
        value.name: value.type.tensor_type.shape.dim[0].dim_value
        for value in model.graph.input
        if value.type.tensor_type.shape.dim
    }
    return {
        name: array[: sizes[name]] if sizes.get(name, 0) > 0 else array
        for name, array in arrays.items()
    }


def _save(model: onnx.ModelProto, path: Path) -> None:
    # Deterministic: the same input gives the same bytes, and so the same digest.
    path.write_bytes(model.SerializeToString(deterministic=True))
