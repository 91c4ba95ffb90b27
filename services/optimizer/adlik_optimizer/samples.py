"""Samples to calibrate and to check with: those that were pushed, or generated ones."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import onnx
from adlik_common.errors import InvalidSamples, UnsupportedFormat

LABELS = "labels"
SEED = 20
MAX_INTEGER = 2
MAX_SAMPLE_BYTES = 256 * 1024 * 1024


def load_samples(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of an NPZ archive that the gateway has checked, without the labels.

    Raises:
        InvalidSamples: The archive can't be read.
    """
    try:
        # Opened here: numpy leaves a file open that turns out to be no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files if name != LABELS}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidSamples(f"The samples can't be read: {error}.") from error


def generate_samples(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Returns one seeded random sample of every input.

    Floats are standard normal, integers 0 or 1 (they may be indices), unknown sizes 1.

    Raises:
        UnsupportedFormat: An input is no tensor of numbers, or too large to make.
    """
    rng = np.random.default_rng(SEED)
    weights = {weight.name for weight in model.graph.initializer}
    return {
        value.name: _random(rng, value) for value in model.graph.input if value.name not in weights
    }


def _random(rng: np.random.Generator, value: onnx.ValueInfoProto) -> np.ndarray:
    tensor = value.type.tensor_type
    shape = [dim.dim_value if dim.dim_value > 0 else 1 for dim in tensor.shape.dim]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    if dtype.kind not in "fiub" or np.prod(shape, dtype=object) * dtype.itemsize > MAX_SAMPLE_BYTES:
        raise UnsupportedFormat(
            f"No samples can be made for '{value.name}' of dtype {dtype} and shape {shape}.",
            cure="Push samples with the model (--data).",
        )
    if dtype.kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, MAX_INTEGER, shape).astype(dtype)
