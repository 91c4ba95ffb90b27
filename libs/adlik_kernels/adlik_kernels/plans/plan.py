"""A whole model as one call: kernels in a row, in one arena, with weights packed beforehand.

The batch, and the length of sequences where it is open, are run-time arguments of every kernel, so
new sizes need new addresses and no new code.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adlik_kernels import configuration
from adlik_kernels.codegen.build import missing_features
from adlik_kernels.errors import InvalidOperand
from adlik_kernels.machine.pool import shared
from adlik_kernels.operators.operands import address, aligned_empty, check
from adlik_kernels.plans.arena import Lifetime, arrange
from adlik_kernels.plans.graph import BATCH, TOKENS, Array, Graph, Size, Value
from adlik_kernels.plans.layouts import arranged
from adlik_kernels.plans.lowering import lower
from adlik_kernels.plans.onnx_graph import read_onnx
from adlik_kernels.plans.steps import IN, OUT, Lowering, Step, grids_of, product

MOST_BOUND = 16
"""Combinations of batch and length that keep an arena of their own."""

WORDS = 24
"""Words of one kernel's arguments."""


_FLOAT, _LEVELS = np.dtype(np.float32), np.dtype(np.uint8)
_OPEN = (BATCH, TOKENS)


class _Bound:
    """A plan's addresses for sizes, and where those of callers' arrays are filled in.

    Args:
        operations: Calls of kernels, as `Pool.run_plan` takes them.
        arguments: Their arguments.
        memory: What the addresses point into.
        given: For each input, the places of its address among the arguments.
        made: For each output that is made, its shape, its element type and the places of its
            address.
    """

    def __init__(
        self,
        operations: NDArray[np.int64],
        arguments: NDArray[np.int64],
        memory: NDArray[np.uint8],
        given: list[tuple[int, ...]],
        made: list[tuple[tuple[int, ...], np.dtype[Any], tuple[int, ...]]],
    ) -> None:
        self.operations, self._memory = operations, memory
        self.start = address(operations)
        self._words = memoryview(arguments.reshape(-1))  # type: ignore[arg-type] # an array
        self._given, self._made = given, made

    def filled(self, inputs: Sequence[Array]) -> list[Array]:
        """Returns new arrays for the outputs, their addresses and those of inputs filled in."""
        words = self._words
        for places, array in zip(self._given, inputs, strict=True):
            where = address(array)
            for place in places:
                words[place] = where
        results = []
        for shape, kind, places in self._made:
            results.append(result := np.empty(shape, kind))
            where = address(result)
            for place in places:
                words[place] = where
        return results


class Plan:
    """A compiled model; one call runs it all without the interpreter.

    Calls from several threads wait for each other: they share the arena.

    Args:
        graph: The model.
        batches: Batch sizes to be ready for; others are made ready when they first come, without
            compiling.
        threads: Threads that share a call; 0 as configured.

    Attributes:
        graph: The model, its convolutions with algorithms and layouts.
        threads: Threads that share a call.
    """

    def __init__(self, graph: Graph, batches: Iterable[int] = (1,), threads: int = 0) -> None:
        self.threads = threads or configuration.threads()
        self.graph = graph = arranged(graph, configuration.target(), self.threads)
        self._grids = grids_of(graph)
        lowering = Lowering(graph, configuration.target(), self.threads, self._grids)
        self._steps = lower(lowering)
        self._lock = threading.Lock()
        self._bound: dict[tuple[int, int], _Bound] = {}
        self._has_tokens = any(TOKENS in graph.values[name].shape for name in graph.inputs)
        self._shapes = {name: _outside(graph.values[name]) for name in graph.inputs}
        given = {name: -1 - at for at, name in enumerate(graph.inputs)}
        self._made = [name for name in dict.fromkeys(graph.outputs) if name not in given]
        places = given | {name: at for at, name in enumerate(self._made)}
        self._ends = [places[name] for name in graph.outputs]
        # A plan for another machine can be exported, and says so when it is called.
        if not self._has_tokens and not missing_features(configuration.target()):
            for batch in batches:
                self._bind(batch, 1)

    @property
    def input_shape(self) -> tuple[Size, ...]:
        """Shape of the first input without the batch: (channels, height, width) or (columns,)."""
        return self.shape_of(self.graph.inputs[0])

    @property
    def output_shape(self) -> tuple[Size, ...]:
        """Shape of the first output without the batch."""
        return self.shape_of(self.graph.outputs[0])

    def shape_of(self, name: str) -> tuple[Size, ...]:
        """Returns the shape of a value without the batch, channels first."""
        return _outside(self.graph.values[name])

    def __call__(self, x: NDArray[np.float32]) -> Array:
        """Runs a model of one input and gives its first output.

        Args:
            x: float32 [batch, *input_shape], contiguous.

        Returns:
            float32, or uint8 for levels, [batch, *output_shape].

        Raises:
            InvalidOperand: x does not fit.
        """
        return self.run((x,))[0]

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Runs the model.

        Args:
            inputs: float32, contiguous, in the order of `graph.inputs`.

        Returns:
            Arrays in the order of `graph.outputs`: float32, or levels as uint8, signed ones 128
            above what they are.

        Raises:
            InvalidOperand: An input does not fit.
        """
        batch, tokens = self._sizes_of(inputs)
        with self._lock:
            bound = self._bound.get((batch, tokens)) or self._bind(batch, tokens)
            made = bound.filled(inputs)
            shared(self.threads).run_calls(bound.start, len(bound.operations))
        return [inputs[-1 - at].copy() if at < 0 else made[at] for at in self._ends]

    @contextmanager
    def held(self, batch: int, tokens: int = 1) -> Iterator[NDArray[np.int64]]:
        """Yields the calls of a plan on inputs of zeros, to run them one by one.

        Args:
            batch: Pictures or rows.
            tokens: Length of sequences, where it is open.

        Yields:
            [kernels, 3] words: address of the code, of its arguments, chunks; valid inside only.
        """
        sizes = {BATCH: batch, TOKENS: tokens}
        shapes = [(batch, *_sized(shape, sizes)) for shape in self._shapes.values()]
        inputs = [np.zeros(shape, np.float32) for shape in shapes]
        with self._lock:
            bound = self._bound.get((batch, tokens)) or self._bind(batch, tokens)
            kept = bound.filled(inputs)
            yield bound.operations
            del kept

    def fitted(self, name: str, array: Array) -> Array:
        """Returns an input of the same numbers in the shape that `run` takes.

        Args:
            name: The input's name.
            array: The array as the model takes it: a mask may be [batch, 1, 1, keys] there.
        """
        extra = array.ndim - 1 - len(self._shapes[name])
        if extra > 0 and array.shape[1 : 1 + extra] == (1,) * extra:
            array = array.reshape(array.shape[0], *array.shape[1 + extra :])
        return array if array.flags.c_contiguous else np.ascontiguousarray(array)

    def _sizes_of(self, inputs: Sequence[Array]) -> tuple[int, int]:
        """Checks inputs; returns their batch and length."""
        if batch := self._quick_batch(inputs):
            return batch, 1
        if len(inputs) != len(self._shapes):
            raise InvalidOperand(f"{len(inputs)} inputs were given, expected {len(self._shapes)}.")
        sizes: dict[str, int] = {BATCH: self.graph.batch} if self.graph.batch else {}
        for (name, shape), array in zip(self._shapes.items(), inputs, strict=True):
            known = [size if isinstance(size, int) else sizes.get(size) for size in shape]
            found = check(name, array, np.float32, (sizes.get(BATCH), *known)).shape
            sizes.update((s, n) for s, n in zip((BATCH, *shape), found, strict=True) if s in _OPEN)
        return sizes[BATCH], sizes.get(TOKENS, 1)

    def _quick_batch(self, inputs: Sequence[Array]) -> int:
        """The batch of inputs that plainly fit; 0 where that takes a closer look."""
        if self._has_tokens or len(inputs) != len(self._shapes):
            return 0
        batch = self.graph.batch or len(inputs[0])
        for array, shape in zip(inputs, self._shapes.values(), strict=True):
            if not isinstance(array, np.ndarray) or array.shape != (batch, *shape):
                return 0
            if array.dtype != _FLOAT or not (array.flags.c_contiguous and array.flags.aligned):
                return 0
        return batch

    def _bind(self, batch: int, tokens: int) -> _Bound:
        """Lays out memory for sizes and writes all addresses down."""
        sizes = {BATCH: batch, TOKENS: tokens}
        steps = self.steps(sizes)
        places, total = self.arena(sizes)
        memory = aligned_empty(total, np.uint8)
        for start, stop, level in [(0, total, 0), *self.levels(sizes)]:
            memory[start:stop] = level  # borders stay as they are for ever: nobody writes there
        base, chunks = address(memory), shared(self.threads).chunks
        arguments = np.zeros((len(steps), WORDS), np.int64)
        operations = np.zeros((len(steps), 3), np.int64)
        outside: dict[str, list[int]] = {}
        for number, step in enumerate(steps):
            for place, name in step.values.items():
                if name in places:
                    arguments[number, place] = base + places[name]
                elif name:
                    outside.setdefault(name, []).append(number * WORDS + place)
            for place, word in step.known(sizes).items():
                arguments[number, place] = word
            for place in step.scratch:
                arguments[number, place] = base + places[scratch_name(number)]
            share = chunks if product(step.rows, sizes) * step.work >= step.threshold else 1
            operations[number] = (step.kernel.address, address(arguments[number]), share)
        given = [(*outside.get(IN + n, ()), *outside.get(n, ())) for n in self.graph.inputs]
        made = [
            (
                (batch, *_sized(self.shape_of(name), sizes)),
                _LEVELS if self.graph.values[name].levels else _FLOAT,
                (*outside.get(OUT + name, ()), *outside.get(name, ())),
            )
            for name in self._made
        ]
        bound = _Bound(operations, arguments, memory, given, made)
        if len(self._bound) >= MOST_BOUND:
            del self._bound[next(iter(self._bound))]
        self._bound[batch, tokens] = bound
        return bound

    def steps(self, sizes: Mapping[str, int]) -> list[Step]:
        """Returns the kernels that run for sizes, in order."""
        return [step.at(sizes) for step in self._steps]

    def arena(self, sizes: Mapping[str, int]) -> tuple[dict[str, int], int]:
        """Returns where each value begins, in bytes, and how many bytes are needed in all."""
        return arrange(self._lifetimes(sizes))

    def levels(self, sizes: Mapping[str, int]) -> list[tuple[int, int, int]]:
        """Returns the parts of the arena that are not zero in the beginning: start, stop, level."""
        places, _ = self.arena(sizes)
        filled = []
        for name, start in places.items():
            if name not in self.graph.values:
                continue
            levels, grid = self.graph.values[name].levels, self._grids[name]
            if levels is not None and levels.zero and grid.border:
                filled.append((start, start + self._bytes(name, sizes), levels.zero))
        return filled

    def _bytes(self, name: str, sizes: Mapping[str, int]) -> int:
        value = self.graph.values[name]
        numbers = self._grids[name].numbers if value.is_picture else value.numbers(sizes)
        return numbers * sizes[BATCH] * value.itemsize

    def _lifetimes(self, sizes: Mapping[str, int]) -> list[Lifetime]:
        """First and last step of each value that is not a caller's."""
        values = self.graph.values
        outside = {n for n in (*self.graph.inputs, *self.graph.outputs) if not values[n].is_picture}
        found: dict[str, list[int]] = {}
        for number, step in enumerate(self.steps(sizes)):
            for name in step.values.values():
                if name and name not in outside and not name.startswith((IN, OUT)):
                    found.setdefault(name, []).append(number)
        lifetimes = [
            Lifetime(name, min(uses), max(uses), self._bytes(name, sizes), self._border(name))
            for name, uses in found.items()
        ]
        for number, step in enumerate(self.steps(sizes)):
            size = sum(step.scratch.values())
            if size:
                lifetimes.append(Lifetime(scratch_name(number), number, number, size))
        return lifetimes

    def _border(self, name: str) -> tuple[int, ...] | None:
        """What values must share to share a place in spite of their borders."""
        grid, levels = self._grids[name], self.graph.values[name].levels
        if not grid.border:
            return None
        kind = levels.zero if levels else -1
        is_blocked = self.graph.values[name].layout != "last"
        return (grid.height, grid.width, grid.channels, grid.border, kind, is_blocked)


def load_plan(path: Path, batches: Iterable[int] = (1,)) -> Plan:
    """Compiles an ONNX model to a plan.

    Args:
        path: The model's file.
        batches: Batch sizes to be ready for.

    Raises:
        UnsupportedGraph: The model has something that plans do not know; `load_model` runs such
            parts by ONNX Runtime.
    """
    graph = read_onnx(path)
    return Plan(graph, (graph.batch,) if graph.batch else batches)


def scratch_name(number: int) -> str:
    """Returns the name of the memory that only one kernel of a plan uses."""
    return f"@scratch:{number}"


def _outside(value: Value) -> tuple[Size, ...]:
    """A shape as models see it: channels first."""
    shape = value.shape
    return (shape[2], shape[0], shape[1]) if value.is_picture else shape


def _sized(shape: Sequence[Size], sizes: Mapping[str, int]) -> list[int]:
    return [size if isinstance(size, int) else sizes[size] for size in shape]
