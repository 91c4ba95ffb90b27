"""Small models whose whole way through the mesh takes seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from tests.unit.optimizer import graphs

INPUT = (3, 8, 8)
CLASSES = 10


def save_small(path: Path, seed: int = 0) -> Path:
    """Writes a network of 1100 weights, another one for each seed."""
    onnx.save(graphs.residual_cnn(seed=seed), path)
    return path


def save_wide(path: Path) -> Path:
    """Writes convolutions so heavy that less precision is surely faster."""
    rng = np.random.default_rng(3)
    channels, depth = 96, 4
    weights = [
        numpy_helper.from_array(_scaled(rng, channels, 3 if i == 0 else channels, 3, 3), f"w{i}")
        for i in range(depth)
    ]
    weights.append(numpy_helper.from_array(_scaled(rng, channels, CLASSES), "head"))
    nodes = []
    before = "x"
    for i in range(depth):
        nodes.append(helper.make_node("Conv", [before, f"w{i}"], [f"c{i}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"]))
        before = f"r{i}"
    nodes += [
        helper.make_node("GlobalAveragePool", [before], ["g"]),
        helper.make_node("Flatten", ["g"], ["f"]),
        helper.make_node("MatMul", ["f", "head"], ["y"]),
    ]
    made = graphs.model(
        nodes,
        [("x", TensorProto.FLOAT, ["n", 3, 48, 48])],
        [("y", TensorProto.FLOAT, ["n", CLASSES])],
        weights,
    )
    onnx.save(made, path)
    return path


def save_external(path: Path, location: str = "weights/data.bin") -> Path:
    """Writes a small model whose weights lie in another file, named as given."""
    made = graphs.residual_cnn(seed=5)
    external_data_helper.convert_model_to_external_data(made, location="data.bin", size_threshold=0)
    onnx.save(made, path)
    written = path.parent / "data.bin"
    target = path.parent / location
    target.parent.mkdir(parents=True, exist_ok=True)
    written.rename(target)
    rename_external(path, location)
    return path


def rename_external(path: Path, location: str) -> None:
    """Makes a model refer to another file for all its external weights."""
    made = onnx.load(path, load_external_data=False)
    for tensor in made.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    path.write_bytes(made.SerializeToString())


def save_samples(path: Path, number: int = 16, shape: tuple[int, ...] = INPUT, **more) -> Path:
    """Writes random samples of the input `x`, and further arrays."""
    rng = np.random.default_rng(11)
    np.savez(path, x=rng.standard_normal((number, *shape)).astype(np.float32), **more)
    return path


def random_input(shape: tuple[int, ...] = INPUT, rows: int = 2) -> dict[str, np.ndarray]:
    """Returns random values of the input `x`."""
    values = np.random.default_rng(12).standard_normal((rows, *shape))
    return {"x": values.astype(np.float32)}


def _scaled(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Returns weights that keep the size of the activations."""
    fan_in = np.prod(shape[1:]) if len(shape) > 2 else shape[0]
    return (rng.standard_normal(shape) * np.sqrt(2 / fan_in)).astype(np.float32)
