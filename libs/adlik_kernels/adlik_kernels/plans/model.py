"""A model in parts: plans where they can, ONNX Runtime for the rest, one after the other."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adlik_kernels import configuration
from adlik_kernels.errors import InvalidOperand
from adlik_kernels.plans.costs import costs_of, measure_ways
from adlik_kernels.plans.graph import BATCH, TOKENS, Array, Size, UnsupportedGraph
from adlik_kernels.plans.partition import Part, Split, share, split
from adlik_kernels.plans.plan import Plan
from adlik_kernels.plans.source import Source, read_source

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
        if self._whole is not None:
            made = self._whole(inputs, self.outputs)
            return dict(zip(self.outputs, made, strict=True))
        arrays = {name: inputs[name] for name in self.inputs}
        sizes = self._sizes(arrays)
        for number, (part, run) in enumerate(self._parts):
            made = run({name: arrays[name] for name in part.inputs}, part.outputs)
            for name, array in zip(part.outputs, made, strict=True):
                arrays[name] = self._shaped(name, array, sizes)
            for name in self._last_use.get(number, ()):
                del arrays[name]
        return {name: arrays[name] for name in self.outputs}

    def _only_run(self) -> Run | None:
        """What computes the whole model, where one part does and gives outputs as they are."""
        if len(self._parts) != 1:
            return None
        part, run = self._parts[0]
        ranks = {name: len(self.source.dims.get(name, ())) for name in self.outputs}
        if part.outputs != self.outputs:
            return None
        if part.graph is not None:
            values = (part.graph.values[name] for name in part.graph.outputs)
            plain = [1 + len(value.shape) for value in values]
            return run if plain == list(ranks.values()) else None
        return run

    def _sizes(self, arrays: Mapping[str, Array]) -> dict[Size | None, int]:
        """What the open sizes are in these inputs."""
        sizes: dict[Size | None, int] = {}
        for name, array in arrays.items():
            dims = self.source.dims.get(name, ())
            if len(dims) != array.ndim:
                continue
            sizes.update((d, n) for d, n in zip(dims, array.shape, strict=True) if d in _OPEN)
        return sizes

    def _shaped(self, name: str, array: Array, sizes: Mapping[Size | None, int]) -> Array:
        """A plan's result in the model's own shape: a row may be a picture of one pixel there."""
        dims = self.source.dims.get(name, ())
        shape = [size if isinstance(size, int) else sizes.get(size, 0) for size in dims]
        return array.reshape(shape) if shape and all(shape) else array

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


_OPEN = (BATCH, TOKENS)


def load_model(path: Path, batches: Iterable[int] = (1,), threads: int = 0) -> Model:
    """Compiles an ONNX model; what plans do not know runs on ONNX Runtime.

    Args:
        path: The model's file.
        batches: Batch sizes to be ready for.
        threads: Threads that share a call; 0 as configured.

    Raises:
        UnsupportedGraph: The file has no inputs or outputs.
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
                runs.append((part, _runner(source, part, batches, threads)))
            except UnsupportedGraph as error:
                refused.update({node.number: error.message for node in part.nodes})
                break
        else:
            return found, runs


def _runner(source: Source, part: Part, batches: tuple[int, ...], threads: int) -> Run:
    if part.graph is None:
        return _session(source, part, threads)
    plan = Plan(part.graph, batches, threads)
    names = part.graph.inputs

    def run(arrays: Mapping[str, Array], _outputs: tuple[str, ...]) -> list[Array]:
        return list(plan.run([plan.fitted(name, arrays[name]) for name in names]))

    return run


def _session(source: Source, part: Part, threads: int) -> Run:
    """A part as a model of its own for ONNX Runtime."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    read = {name for node in part.nodes for name in node.inputs}
    made = {name for node in part.nodes for name in node.outputs}
    graph = helper.make_graph(
        [source.proto.graph.node[node.number] for node in part.nodes],
        "part",
        [_info(source, name) for name in part.inputs],
        [helper.make_tensor_value_info(n, TensorProto.UNDEFINED, None) for n in part.outputs],
        [
            numpy_helper.from_array(array, name)
            for name, array in source.constants.items()
            if name in read and name not in made
        ],
    )
    for info in graph.output:
        info.type.tensor_type.elem_type = source.types.get(info.name, TensorProto.FLOAT)
    model = helper.make_model(
        graph, opset_imports=source.proto.opset_import, ir_version=source.proto.ir_version
    )
    model.functions.extend(source.proto.functions)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )

    def run(arrays: Mapping[str, Array], outputs: tuple[str, ...]) -> list[Array]:
        results: list[Array] = session.run(list(outputs), dict(arrays))
        return results

    return run


def _info(source: Source, name: str) -> Any:
    from onnx import TensorProto, helper

    kind = source.types.get(name, TensorProto.FLOAT)
    dims = source.dims.get(name)
    shape = None if dims is None else [d if isinstance(d, int) else None for d in dims]
    return helper.make_tensor_value_info(name, kind, shape)


def _report(part: Part, refused: Mapping[int, str]) -> PartReport:
    if part.graph is not None:
        kinds = Counter(operator.kind for operator in part.graph.operators)
        return PartReport("kernels", len(part.nodes), dict(kinds), {})
    kinds = Counter(node.kind for node in part.nodes)
    reasons = {node.kind: refused[node.number] for node in part.nodes if node.number in refused}
    return PartReport("onnxruntime", len(part.nodes), dict(kinds), reasons)
