"""A model to try the judge on, with what it is really used on, and how to write one briefly."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, np.dtype[Any]]
Feed = dict[str, Array]
node = helper.make_node

F, D, H = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16
I64, I32, U8, BOOL, TEXT = (
    TensorProto.INT64, TensorProto.INT32, TensorProto.UINT8, TensorProto.BOOL, TensorProto.STRING
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Case:
    """A model and its world.

    Attributes:
        name: In the table.
        model: Builds it.
        feed: Makes inputs as they really come: a random generator and how many rows.
        samples: How many samples are pushed with it; 0: none.
        sample_rows: Rows of one run: the fixed first size, 1 where it is open.
        is_quick: It is part of the short form.
        share: Share of the variants that are tried, drawn by chance: for models that take long.
        reason: Why it can't be tried here, "" where it can.
    """

    name: str
    model: Callable[[], onnx.ModelProto]
    feed: Callable[[np.random.Generator, int], Feed]
    samples: int = 0
    sample_rows: int = 1
    is_quick: bool = False
    share: float = 1.0
    reason: str = ""

    def archive(self, random: np.random.Generator) -> Feed:
        """Returns the samples as a user pushes them: rows below each other, scalars once."""
        runs = [self.feed(random, self.sample_rows) for _ in range(self.samples)]
        return {
            name: np.concatenate([run[name] for run in runs]) if array.ndim else array
            for name, array in runs[0].items()
        }


Value = tuple[str, int, Sequence[int | str | None] | None]


def build(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    weights: Mapping[str, Any],
    opset: int = 17,
    domains: Mapping[str, int] | None = None,
) -> onnx.ModelProto:
    """Returns a model of nodes, values (name, type, shape) and weights."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    versions = {"": opset, **(domains or {})}
    imports = [helper.make_opsetid(domain, version) for domain, version in versions.items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def normal(*shape: int, seed: int = 1, scale: float = 1.0) -> Array:
    """Returns float32 normal numbers, always the same."""
    random = np.random.default_rng([seed, *shape])
    return (scale * random.standard_normal(shape)).astype(np.float32)


def he(*shape: int, seed: int = 1) -> Array:
    """Returns the weights of a convolution [out, in, ...] that keep the size of activations."""
    return normal(*shape, seed=seed, scale=float((2 / np.prod(shape[1:])) ** 0.5))


def glorot(rows: int, columns: int, seed: int = 1) -> Array:
    """Returns the weights of a product [in, out] that keep the size of activations."""
    return normal(rows, columns, seed=seed, scale=float((1.5 / rows) ** 0.5))


def whole(*numbers: int) -> Array:
    """Returns int64 numbers as a vector."""
    return np.array(numbers, np.int64)


def draw(random: np.random.Generator, *shape: int) -> Array:
    """Returns float32 normal numbers as inputs."""
    return random.standard_normal(shape).astype(np.float32)


def length(random: np.random.Generator, *choices: int) -> int:
    """Returns one of several sizes of an open axis."""
    return int(random.choice(choices))
