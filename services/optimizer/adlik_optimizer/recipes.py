"""The recipes, as they run in a child process: files in, files and a report out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from adlik_common.errors import InvalidModel, InvalidSamples, UnsupportedOperator
from google.protobuf.message import DecodeError

CLEAN = "clean"
INT8 = "int8"
RECIPES = {CLEAN: "fp32", INT8: "int8"}
"""Recipe to the precision of the model it makes, in the order in which they run."""

CHECK_SAMPLES = 2


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


def int8(model: str, out: str, samples: str | None = None) -> dict[str, Any]:
    """Writes the quantized model.

    Args:
        model: A file that `clean` has written.
        out: File to write.
        samples: NPZ archive to calibrate with.

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
    quantized = quantize.quantize(source, load_samples(Path(samples)))
    _save(quantized, Path(out))
    return {"passes": []}


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
