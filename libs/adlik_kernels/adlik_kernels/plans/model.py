"""A model in parts: plans where they can, ONNX Runtime for the rest, one after the other."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adlik_kernels import configuration
from adlik_kernels.errors import InvalidOperand
from adlik_kernels.plans.costs import costs_of, measure_ways
from adlik_kernels.plans.graph import BATCH, Array, Size, UnsupportedGraph
from adlik_kernels.plans.partition import Part, Split, share, split
from adlik_kernels.plans.plan import Plan
from adlik_kernels.plans.probe import Dims
from adlik_kernels.plans.readers.levels import SIGNED
from adlik_kernels.plans.source import INT8, Source, read_source

Run = Callable[[Mapping[str, Array], tuple[str, ...]], list[Array]]
"""What computes a part: from its inputs by name and the names of its outputs to their arrays."""


@dataclass(frozen=True, slots=True)
class PartReport:
    """What runs one part, and why.

    Attributes:
        engine: "kernels" or "onnxruntime".
        nodes: Nodes of the model in it.
        operators: How often each operator occurs: fused ones of a plan, nodes of the other.
        reasons: Why nodes are not in a plan, by operator; empty for a plan.
    """

    engine: str
    nodes: int
    operators: dict[str, int]
    reasons: dict[str, str]


class Model:
    """A compiled model with any number of inputs and outputs.

    Args:
        source: The model.
        batches: Batch sizes to be ready for.
        threads: Threads that share a call; 0 as configured.

    Attributes:
        inputs: Names of its inputs.
        outputs: Names of its outputs.
        parts: What runs each of its parts, and why.
        graphs: What the plan of each part computes; None for a part that ONNX Runtime runs.
        source: As given.
        share: Part of the nodes that run as plans, from 0 to 1.
    """

    def __init__(self, source: Source, batches: Iterable[int] = (1,), threads: int = 0) -> None:
        batches = (source.batch,) if source.batch else tuple(batches)
        threads = threads or configuration.threads()
        found, self._parts = _compiled(source, batches, threads)
        self.inputs, self.outputs = source.inputs, source.outputs
        self.share = share(found.parts)
        self.graphs = tuple(part.graph for part in found.parts)
        self.parts = tuple(_report(part, found.refused) for part in found.parts)
        self.source = source
        self._threads = threads
        self._reference: Run | None = None
        self._lock = threading.Lock()
        self._last_use = self._uses()
        self._whole = self._only_run()

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Runs the model.

        Args:
            inputs: An array for each input, with the batch first.

        Returns:
            The outputs by name.

        Raises:
            InvalidOperand: An input is missing or does not fit.
        """
        missing = [name for name in self.inputs if name not in inputs]
        if missing:
            raise InvalidOperand(f"The inputs {missing} are missing.", cure="Give all inputs.")
        try:
            made = self._run(inputs)
        except InvalidOperand as declined:
            made = self._by_reference(inputs, declined)
        return dict(zip(self.outputs, made, strict=True))

    def _run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Runs the parts, one after the other."""
        if self._whole is not None:
            return self._whole(inputs, self.outputs)
        arrays = {name: inputs[name] for name in self.inputs}
        for number, (part, run) in enumerate(self._parts):
            made = run({name: arrays[name] for name in part.inputs}, part.outputs)
            arrays.update(zip(part.outputs, made, strict=True))
            for name in self._last_use.get(number, ()):
                del arrays[name]
        constants = self.source.constants
        return [arrays[n] if n in arrays else constants[n].copy() for n in self.outputs]

    def _by_reference(self, inputs: Mapping[str, Array], declined: InvalidOperand) -> list[Array]:
        """Runs the whole model on ONNX Runtime: for inputs that plans decline.

        Such are no rows at all, first sizes that differ from input to input, NaN and infinities,
        whose ways through a sum depend on its order, and sizes that only happen to be the length.

        Raises:
            InvalidOperand: ONNX Runtime declines them, too.
        """
        if all(part.graph is None for part, _ in self._parts):
            raise declined
        with self._lock:
            if self._reference is None:
                self._reference = _started(self.source.proto, self._threads)
        try:
            return self._reference({name: inputs[name] for name in self.inputs}, self.outputs)
        except Exception as error:  # ONNX Runtime's errors have no class of their own
            raise declined from error

    def _only_run(self) -> Run | None:
        """What computes the whole model, where one part does."""
        if len(self._parts) != 1:
            return None
        part, run = self._parts[0]
        return run if part.outputs == self.outputs else None

    def _uses(self) -> dict[int, list[str]]:
        """Names that nobody reads after a part, by its number."""
        last: dict[str, int] = {}
        for number, (part, _) in enumerate(self._parts):
            last.update(dict.fromkeys((*part.inputs, *part.outputs), number))
        ends: dict[int, list[str]] = {}
        for name, number in last.items():
            if name not in self.outputs:
                ends.setdefault(number, []).append(name)
        return ends


def load_model(path: Path, batches: Iterable[int] = (1,), threads: int = 0) -> Model:
    """Compiles an ONNX model; what plans do not know runs on ONNX Runtime.

    Args:
        path: The model's file.
        batches: Batch sizes to be ready for.
        threads: Threads that share a call; 0 as configured.

    Raises:
        UnsupportedGraph: The file has no outputs.
    """
    return Model(read_source(path), batches, threads)


def measure_model(path: Path, threads: int = 0, seconds: float = 60.0) -> list[str]:
    """Measures the ways to compute a model's convolutions, for plans that are made from now on.

    Args:
        path: The model's file.
        threads: Threads that share a call; 0 as configured.
        seconds: Time after which no further convolution is measured.

    Returns:
        The lines of all costs that are known of this model, as `costs.merge_costs` reads them.
    """
    threads, target = threads or configuration.threads(), configuration.target()
    graphs = [part.graph for part in split(read_source(path)).parts if part.graph is not None]
    end = time.monotonic() + seconds
    for graph in graphs:
        measure_ways(graph, target, threads, end - time.monotonic())
    return costs_of(graphs, target, threads)


def _compiled(
    source: Source, batches: tuple[int, ...], threads: int
) -> tuple[Split, list[tuple[Part, Run]]]:
    """A model's parts with what runs them; a part that has no kernels falls back as a whole."""
    refused: dict[int, str] = {}
    while True:
        found, runs = split(source, refused), []
        for part in found.parts:
            try:
                alone = len(found.parts) == 1
                runs.append((part, _runner(source, part, batches, threads, alone=alone)))
            except UnsupportedGraph as error:
                refused.update({node.number: error.message for node in part.nodes})
                break
        else:
            return found, runs


def _runner(
    source: Source, part: Part, batches: tuple[int, ...], threads: int, *, alone: bool
) -> Run:
    """What computes a part, which may be alone: all of the model."""
    if part.graph is None:
        return _started(source.proto if alone else _model_of(source, part), threads)
    graph, plan = part.graph, Plan(part.graph, batches, threads)
    masks = {o.inputs[3] for o in graph.operators if len(o.inputs) > 3}
    dims = [source.dims[name] for name in part.outputs]
    shapes = [plan.shape_of(name) for name in plan.graph.outputs]
    signed = [at for at, name in enumerate(part.outputs) if source.types.get(name) == INT8]

    # In a mask, minus infinity means: not this one.
    checked = [name for name in graph.inputs if name not in masks]

    def run(arrays: Mapping[str, Array], _outputs: tuple[str, ...]) -> list[Array]:
        given = [plan.fitted(name, arrays[name]) for name in graph.inputs]
        _check_finite(checked, [arrays[name] for name in checked])
        made = plan.run(given)
        _check_finite(part.outputs, made)
        for at in signed:
            made[at] = (made[at] ^ SIGNED).view(np.int8)
        return [_shaped(*told) for told in zip(made, shapes, dims, strict=True)]

    return run


def _shaped(array: Array, shape: tuple[Size, ...], dims: Dims) -> Array:
    """A plan's result in the model's own shape: a row may be a picture of one pixel there."""
    if len(dims) == array.ndim:
        return array
    sizes = dict(zip(shape, array.shape[1:], strict=True)) | {BATCH: len(array)}
    return array.reshape([d if isinstance(d, int) else sizes[d or ""] for d in dims])


def _check_finite(names: Sequence[str], arrays: Sequence[Array]) -> None:
    """Checks that numbers are finite.

    Raises:
        InvalidOperand: One is not. What becomes of it depends on the order of sums and comparisons:
            the model's own answer is ONNX Runtime's.
    """
    for name, array in zip(names, arrays, strict=True):
        if array.dtype == np.float32 and not np.logical_and.reduce(np.isfinite(array), None):
            message = f"{name} has numbers that are not finite."
            raise InvalidOperand(message, cure="Give finite ones.")


def _model_of(source: Source, part: Part) -> Any:
    """A part as a model of its own."""
    from onnx import ValueInfoProto, helper, numpy_helper

    read = {name for node in part.nodes for name in node.reads}
    made = {name for node in part.nodes for name in node.outputs}
    graph = helper.make_graph(
        [source.proto.graph.node[node.number] for node in part.nodes],
        "part",
        [_info(source, name) for name in part.inputs],
        [ValueInfoProto(name=name) for name in part.outputs],
        [
            numpy_helper.from_array(array, name)
            for name, array in source.constants.items()
            if name in read and name not in made
        ],
    )
    model = helper.make_model(
        graph, opset_imports=source.proto.opset_import, ir_version=source.proto.ir_version
    )
    model.functions.extend(source.proto.functions)
    return model


def _started(model: Any, threads: int) -> Run:
    """A model on ONNX Runtime; what its optimizer fails on runs as it is."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    content, providers = model.SerializeToString(), ["CPUExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(content, options, providers=providers)
    except Exception:  # noqa: BLE001 # its errors have no class of their own
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
        session = onnxruntime.InferenceSession(content, options, providers=providers)

    def run(arrays: Mapping[str, Array], outputs: tuple[str, ...]) -> list[Array]:
        results: list[Array] = session.run(list(outputs), dict(arrays))
        return results

    return run


def _info(source: Source, name: str) -> Any:
    """What a part's input is: a tensor with the sizes that are known, or whatever else."""
    from onnx import helper

    kind, dims = source.types.get(name), source.dims.get(name)
    if kind is None:
        return source.infos[name]
    shape = None if dims is None else [d if isinstance(d, int) else None for d in dims]
    return helper.make_tensor_value_info(name, kind, shape)


def _report(part: Part, refused: Mapping[int, str]) -> PartReport:
    if part.graph is not None:
        kinds = Counter(operator.kind for operator in part.graph.operators)
        return PartReport("kernels", len(part.nodes), dict(kinds), {})
    kinds = Counter(node.kind for node in part.nodes)
    reasons = {node.kind: refused[node.number] for node in part.nodes if node.number in refused}
    return PartReport("onnxruntime", len(part.nodes), dict(kinds), reasons)
