"""Shapes that inference can't find, by running a model on a few small inputs.

Where a model computes sizes, as of positions up to the length of its input, inference gives up.
Runs with two batches and several lengths tell each size apart: it is the batch, the length, or a
number that stays. A size that follows the length up to a limit is none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from adlik_kernels.plans.graph import BATCH, TOKENS, Size

Dims = tuple[Size | None, ...]
"""A shape with the batch; None for a size that nobody knows."""

SIZES = ((2, 5), (3, 7), (3, 67))
"""Batch and length of each run; a model may have no room for the last one's length."""


def probed(
    proto: Any, inputs: tuple[str, ...], dims: Mapping[str, Dims], types: Mapping[str, int]
) -> dict[str, Dims]:
    """Returns the shapes of computed values, as far as a few runs of the model tell them.

    Args:
        proto: The model.
        inputs: Names of its inputs.
        dims: Their shapes.
        types: Their element types, as ONNX numbers them.
    """
    runs: list[dict[str, tuple[int, ...]]] = []
    for sizes in SIZES:
        try:
            given = {name: (_filled(dims[name], *sizes), types[name]) for name in inputs}
            runs.append(_shapes(proto, given))
        except Exception:  # noqa: BLE001 # a model that can't be run on zeros stays unknown
            break
    if len(runs) < 2:
        return {}
    return {
        name: tuple(_size(seen) for seen in zip(*(run[name] for run in runs), strict=True))
        for name, first in runs[0].items()
        if all(len(run.get(name, ())) == len(first) for run in runs)
    }


def _filled(shape: Dims, batch: int, tokens: int) -> list[int]:
    """A shape whose open sizes are known."""
    sizes = {BATCH: batch, TOKENS: tokens}
    return [size if isinstance(size, int) else sizes[size or ""] for size in shape]


def _shapes(proto: Any, inputs: Mapping[str, tuple[list[int], int]]) -> dict[str, tuple[int, ...]]:
    """The shape of every value for inputs of zeros, given by shape and element type."""
    import onnx
    import onnxruntime

    model = onnx.ModelProto()
    model.CopyFrom(proto)
    known = {output.name for output in model.graph.output}
    names = [name for node in model.graph.node for name in node.output if name]
    model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in known)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    given = {
        name: np.zeros(shape, onnx.helper.tensor_dtype_to_np_dtype(kind))
        for name, (shape, kind) in inputs.items()
    }
    wanted = [output.name for output in session.get_outputs()]
    made = session.run(wanted, given)
    return {name: np.shape(array) for name, array in zip(wanted, made, strict=True)}


def _size(seen: tuple[int, ...]) -> Size | None:
    """What a size is that was seen so in each run."""
    if len(set(seen)) == 1:
        return seen[0]
    batches, lengths = (sizes[: len(seen)] for sizes in zip(*SIZES, strict=True))
    return {batches: BATCH, lengths: TOKENS}.get(seen)
