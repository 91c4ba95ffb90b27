"""A whole model as one call: kernels in a row, in one arena, with weights packed beforehand.

The batch is a run-time argument of every kernel, so a new batch size needs new addresses and no new
code.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adlik_kernels import configuration
from adlik_kernels.codegen.build import Loaded, load
from adlik_kernels.machine.pool import shared
from adlik_kernels.operators.conv import conv2d_kernel, pack_filters
from adlik_kernels.operators.dense import FEW_ROWS, WORTH_SHARING, dense_kernel
from adlik_kernels.operators.operands import address, aligned_empty, check
from adlik_kernels.operators.packing import pack_weights, pad_columns
from adlik_kernels.plans.arena import Lifetime, arrange
from adlik_kernels.plans.graph import Graph, Operator, UnsupportedGraph, read_onnx
from adlik_kernels.schedules.registry import choose
from adlik_kernels.templates.depthwise import Depthwise, depthwise_module
from adlik_kernels.templates.small import Grid, Layout, Map, Pool, Small, Softmax, small_module
from adlik_kernels.workload import Conv2d, Dense

SMALL_WORTH_SHARING = 100_000
"""Numbers above which a small operator is shared among threads."""


@dataclass(frozen=True, slots=True)
class Step:
    """One kernel of a plan.

    Attributes:
        kernel: Its code.
        values: Names of the values whose addresses are arguments, by place; "" for none.
        fixed: Weights, by place.
        batch_place: Place of the batch.
        work: Operations for one picture, to decide whether to share it.
        threshold: Operations above which it is shared.
    """

    kernel: Loaded
    values: dict[int, str]
    fixed: dict[int, NDArray[Any]]
    batch_place: int
    work: int
    threshold: int


@dataclass(frozen=True, slots=True)
class _Bound:
    """A plan's addresses for one batch size."""

    operations: NDArray[np.int64]
    arguments: NDArray[np.int64]
    memory: NDArray[np.float32]
    source: NDArray[np.float32]
    result: NDArray[np.float32]


class Plan:
    """A compiled model with one input and one output; one call runs it all without the interpreter.

    Calls from several threads wait for each other: they share the arena.

    Args:
        graph: The model.
        batches: Batch sizes to be ready for; others are made ready when they first come, without
            compiling.
    """

    def __init__(self, graph: Graph, batches: Iterable[int] = (1,)) -> None:
        self.graph = graph
        self._target, self._threads = configuration.target(), configuration.threads()
        self._grids = self._layouts()
        self._steps: list[Step] = []
        self._few_steps: dict[tuple[int, int], Step] = {}
        self._lock = threading.Lock()
        self._bound: dict[int, _Bound] = {}
        self._make_steps()
        for batch in batches:
            self._bind(batch)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input without the batch: (channels, height, width) or (columns,)."""
        return _outside(self.graph.shapes[self.graph.input])

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of the output without the batch."""
        return _outside(self.graph.shapes[self.graph.output])

    def __call__(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Runs the model.

        Args:
            x: float32 [batch, *input_shape], contiguous.

        Returns:
            float32 [batch, *output_shape].

        Raises:
            InvalidOperand: x does not fit.
        """
        batch = self.graph.batch or None
        x = check("x", x, np.float32, (batch, *self.input_shape))
        with self._lock:
            bound = self._bound.get(x.shape[0]) or self._bind(x.shape[0])
            bound.source[...] = x
            shared(self._threads).run_plan(bound.operations)
            return bound.result.copy()

    def _layouts(self) -> dict[str, Grid]:
        """Every value's place in memory: its border is what its convolutions' padding needs."""
        borders: dict[str, int] = dict.fromkeys(self.graph.shapes, 0)
        for operator in self.graph.operators:
            if operator.kind in {"conv", "depthwise"}:
                source = operator.inputs[0]
                borders[source] = max(borders[source], *operator.padding)
        return {
            name: Grid(*(shape if len(shape) == 3 else (1, 1, shape[0])), border=borders[name])
            for name, shape in self.graph.shapes.items()
        }

    def _make_steps(self) -> None:
        first, last = self.graph.input, self.graph.output
        if len(self.graph.shapes[first]) == 3:
            self._small(Layout(self._grids[first], to_last=True), {0: "@in", 1: first})
        for operator in self.graph.operators:
            makers = {
                "conv": self._conv,
                "depthwise": self._depthwise,
                "dense": self._dense,
            }
            makers.get(operator.kind, self._other)(operator)
        if len(self.graph.shapes[last]) == 3:
            self._small(Layout(self._grids[last], to_last=False), {0: last, 1: "@out"})

    def _small(self, workload: Small, values: dict[int, str]) -> None:
        lanes = self._target.lanes
        name = type(workload).__name__.lower()
        loaded = load(name, workload, lambda: small_module(workload, lanes), self._target)
        grid = workload.grid if isinstance(workload, Layout) else workload.source
        step = Step(
            kernel=loaded,
            values=values,
            fixed={},
            batch_place=3,
            work=grid.numbers,
            threshold=SMALL_WORTH_SHARING,
        )
        self._steps.append(step)

    def _other(self, operator: Operator) -> None:
        grids = [self._grids[name] for name in operator.inputs]
        made = self._grids[operator.output]
        values = {0: operator.inputs[0], 1: operator.output}
        workload: Small
        if operator.kind == "softmax":
            workload = Softmax(grids[0], made)
        elif operator.kind in {"max", "mean"}:
            shape = (operator.window, operator.stride, operator.padding)
            workload = Pool(grids[0], made, operator.kind, *shape)
        else:
            second = grids[1] if operator.kind == "sum" else None
            workload = Map(grids[0], made, second, operator.activation)
            if second is not None:
                values[2] = operator.inputs[1]
        self._small(workload, values)

    def _conv(self, operator: Operator) -> None:
        assert operator.w is not None
        given, made = self._grids[operator.inputs[0]], self._grids[operator.output]
        residual = operator.inputs[1] if len(operator.inputs) > 1 else ""
        workload = Conv2d(
            height=given.height,
            width=given.width,
            channels=given.channels,
            filters=made.channels,
            kernel=operator.window,
            stride=operator.stride,
            padding=operator.padding,
            border=(given.border, given.border),
            out_border=made.border,
            residual_border=self._grids[residual].border if residual else 0,
            bias=operator.bias is not None,
            residual=bool(residual),
            activation=operator.activation,
        )
        schedule = choose(workload, self._target, self._threads).schedule
        packed = pack_filters(operator.w, schedule.vectors * self._target.lanes)
        code = conv2d_kernel(workload, schedule, self._target)
        self._product(operator, residual, code, packed, workload.operations)

    def _depthwise(self, operator: Operator) -> None:
        assert operator.w is not None
        given, made = self._grids[operator.inputs[0]], self._grids[operator.output]
        shape = (operator.window, operator.stride, operator.padding)
        workload = Depthwise(given, made, *shape, operator.activation)
        target = self._target
        loaded = load("depthwise", workload, lambda: depthwise_module(workload, target), target)
        weights = np.ascontiguousarray(operator.w[:, 0].transpose(1, 2, 0))
        bias = pad_columns(0.0 if operator.bias is None else operator.bias, made.channels)
        values = {0: operator.inputs[0], 1: operator.output}
        fixed = {2: weights, 4: bias}
        work = 2 * made.numbers * operator.window[0] * operator.window[1]
        self._steps.append(Step(loaded, values, fixed, 3, work, WORTH_SHARING))

    def _dense(self, operator: Operator) -> None:
        """One kernel for few rows and one for many; which runs depends on the batch."""
        assert operator.w is not None
        depth, columns = operator.w.shape
        if self._grids[operator.inputs[0]].border:
            raise UnsupportedGraph("A plan cannot flatten a picture that a convolution pads.")
        residual = operator.inputs[1] if len(operator.inputs) > 1 else ""
        workload = Dense(
            rows=0,
            columns=columns,
            depth=depth,
            bias=operator.bias is not None,
            residual=bool(residual),
            activation=operator.activation,
        )
        for rows in (1, 4, 0):
            schedule = choose(workload.for_rows(rows), self._target, self._threads).schedule
            width = schedule.vectors * self._target.lanes
            packed = pack_weights(operator.w, width, "fp32")
            kind = workload.for_rows(1) if rows == 1 else workload
            code = dense_kernel(kind, schedule, self._target)
            self._product(operator, residual, code, packed, workload.for_rows(1).operations)
            if rows:
                step = self._steps.pop()
                self._few_steps[len(self._steps), rows] = step

    def _product(
        self, operator: Operator, residual: str, code: Loaded, packed: NDArray[Any], work: int
    ) -> None:
        columns = self._grids[operator.output].channels
        bias = pad_columns(0.0 if operator.bias is None else operator.bias, columns)
        values = {0: operator.inputs[0], 2: operator.output, 4: residual}
        fixed = {1: packed, 3: bias}
        self._steps.append(Step(code, values, fixed, 7, work, WORTH_SHARING))

    def _bind(self, batch: int) -> _Bound:
        """Lays out memory for a batch size and writes all addresses down."""
        steps = self.steps(batch)
        places, total = self.arena(batch)
        memory = aligned_empty(total, np.float32)
        memory[...] = 0  # borders stay zero for ever: nobody writes there
        base, chunks = address(memory), shared(self._threads).chunks
        arguments = np.zeros((len(steps), 8), np.int64)
        operations = np.zeros((len(steps), 3), np.int64)
        for number, step in enumerate(steps):
            for place, name in step.values.items():
                arguments[number, place] = base + 4 * places[name] if name else 0
            for place, weights in step.fixed.items():
                arguments[number, place] = address(weights)
            arguments[number, step.batch_place] = batch
            share = chunks if batch * step.work >= step.threshold else 1
            operations[number] = (step.kernel.address, address(arguments[number]), share)
        source, result = (
            memory[start : start + batch * int(np.prod(shape))].reshape(batch, *shape)
            for start, shape in zip(
                self.ends(batch), (self.input_shape, self.output_shape), strict=True
            )
        )
        bound = _Bound(operations, arguments, memory, source, result)
        self._bound[batch] = bound
        return bound

    def steps(self, batch: int) -> list[Step]:
        """Returns the kernels that run for a batch size, in order."""
        kind = 1 if batch == 1 else 4 if batch < FEW_ROWS else 0
        return [self._few_steps.get((n, kind), step) for n, step in enumerate(self._steps)]

    def arena(self, batch: int) -> tuple[dict[str, int], int]:
        """Returns where each value begins, in floats, and how many floats are needed in all."""
        return arrange(self._lifetimes(self.steps(batch)), batch)

    def ends(self, batch: int) -> tuple[int, int]:
        """Returns where input and output begin in the arena, in floats."""
        places, _ = self.arena(batch)
        given, made = self.graph.input, self.graph.output
        return places.get("@in", places[given]), places.get("@out", places[made])

    def _lifetimes(self, steps: list[Step]) -> list[Lifetime]:
        """First and last step of each value; input and output live from end to end."""
        found: dict[str, list[int]] = {}
        for number, step in enumerate(steps):
            for name in step.values.values():
                if name:
                    found.setdefault(name, []).append(number)
        ends = {"@in", "@out", self.graph.input, self.graph.output}
        lifetimes = []
        for name, uses in found.items():
            grid = self._grids.get(name)
            inner = self.graph.input if name == "@in" else self.graph.output
            numbers = grid.numbers if grid else int(np.prod(self.graph.shapes[inner]))
            first, last = (0, len(steps)) if name in ends else (min(uses), max(uses))
            border = (grid.height, grid.width, grid.channels) if grid and grid.border else None
            lifetimes.append(Lifetime(name, first, last, numbers, border))
        return lifetimes


def load_plan(path: Path, batches: Iterable[int] = (1,)) -> Plan:
    """Compiles an ONNX model to a plan.

    Args:
        path: The model's file.
        batches: Batch sizes to be ready for.

    Raises:
        UnsupportedGraph: The model has something that plans do not know.
    """
    graph = read_onnx(path)
    return Plan(graph, (graph.batch,) if graph.batch else batches)


def _outside(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape as models see it: channels first."""
    return (shape[2], shape[0], shape[1]) if len(shape) == 3 else shape
