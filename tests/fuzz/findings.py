"""Findings as files: a graph, and beside it in the same file the inputs that show the fault."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

FOLDER = Path(__file__).parent / "regressions"
"""Every fault that was found and mended, made small: `test_fuzz.py` replays them."""

_KEY = "feeds"


def write_finding(path: Path, model: onnx.ModelProto, feeds: list[dict[str, np.ndarray]]) -> None:
    """Writes a graph and its inputs."""
    kept = onnx.ModelProto()
    kept.CopyFrom(model)
    texts = [{name: _text(array) for name, array in feed.items()} for feed in feeds]
    helper.set_model_props(kept, {_KEY: json.dumps(texts)})
    onnx.save(kept, path)


def read_finding(path: Path) -> tuple[onnx.ModelProto, list[dict[str, np.ndarray]]]:
    """Returns a graph and its inputs."""
    model = onnx.load(path)
    (prop,) = (prop for prop in model.metadata_props if prop.key == _KEY)
    feeds = [{name: _array(text) for name, text in feed.items()} for feed in json.loads(prop.value)]
    model.ClearField("metadata_props")
    return model, feeds


def _text(array: np.ndarray) -> str:
    return numpy_helper.from_array(array).SerializeToString().hex()


def _array(text: str) -> np.ndarray:
    tensor = onnx.TensorProto.FromString(bytes.fromhex(text))
    return numpy_helper.to_array(tensor).copy()
