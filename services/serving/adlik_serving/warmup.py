"""Runs a freshly loaded model before anybody waits for it, and learns how it may be batched."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np
from adlik_common.errors import AdlikError
from adlik_common.tensors import DATATYPES, TensorSpec
from adlik_runtimes.engine import LoadedModel

from adlik_serving.oip.request import Array

log = logging.getLogger(__name__)

FREE_SIZES = (8, 64, 224, 1)
"""Sizes tried for dimensions that the model leaves open."""
MAX_RUN_NS = 100_000_000
"""A batch that takes longer makes its first request wait too long: larger ones are not formed."""
MIN_GAIN = 0.05
"""Share of its time that a row must save in a batch: else the batch only makes its rows wait."""
_TOLERANCE = 0.05

Clock = Callable[[], int]


@dataclass(frozen=True, slots=True)
class WarmUp:
    """What running a model before its first request has shown.

    Attributes:
        max_rows: Largest batch worth forming; 0: requests must be run one by one.
        run_ns: Time of a run of one row, in nanoseconds.
    """

    max_rows: int
    run_ns: int


def warm_up(model: LoadedModel, max_rows: int, clock: Clock = perf_counter_ns) -> WarmUp:
    """Runs every power of two of rows up to the largest batch, on zeros.

    A model that fills the machine with one row gains nothing by more, and may lose its caches:
    batches grow only as far as each row becomes faster by it.

    Args:
        model: What was loaded.
        max_rows: Largest batch that is configured; 0: none.
        clock: Nanoseconds, never going back.

    Returns:
        How the model may be batched. A model that no made-up input of ours can run is served
        without batches.
    """
    free_size = _runnable_size(model)
    if free_size is None:
        log.warning("no made-up input runs the model: it is served cold and without batches")
        return WarmUp(0, MAX_RUN_NS)
    run_ns = min(_timed(model, zeros(model.inputs, 1, free_size), clock) for _ in range(3))
    if max_rows < 1 or not _is_batchable(model, free_size):
        return WarmUp(0, run_ns)
    return WarmUp(_largest_batch(model, max_rows, free_size, run_ns, clock), run_ns)


def _runnable_size(model: LoadedModel) -> int | None:
    open_sizes = any(-1 in spec.shape[1:] for spec in model.inputs)
    for size in FREE_SIZES if open_sizes else (1,):
        try:
            model.run(zeros(model.inputs, 1, size))
        except AdlikError as error:
            log.info("warm-up with open dimensions of %d: %s", size, error)
        else:
            return size
    return None


def _largest_batch(
    model: LoadedModel, max_rows: int, free_size: int, one_row_ns: int, clock: Clock
) -> int:
    """Warms every bucket up; returns the largest that pays and runs in good time."""
    largest, row_ns = 1, float(one_row_ns)
    for rows in _buckets(max_rows):
        inputs = zeros(model.inputs, rows, free_size)
        try:
            # The first run of a size prepares the engine; the others are what requests meet.
            run_ns = min(_timed(model, inputs, clock) for _ in range(2))
        except AdlikError as error:
            log.warning("batches end at %d rows: %s", largest, error)
            break
        if run_ns / rows <= row_ns * (1 - MIN_GAIN):
            largest, row_ns = rows, run_ns / rows
        if run_ns > MAX_RUN_NS:
            break
    return largest


def _buckets(max_rows: int) -> Iterator[int]:
    rows = 2
    while rows < max_rows:
        yield rows
        rows *= 2
    yield max_rows


def _is_batchable(model: LoadedModel, free_size: int) -> bool:
    """Whether rows run together are answered as they are alone.

    Not every open first dimension is a batch: it may be time, or a number of found objects.
    """
    if any(spec.shape[:1] != (-1,) for spec in (*model.inputs, *model.outputs)):
        return False
    pair = _random(model.inputs, 2, free_size)
    try:
        both = model.run(pair)
        alone = [
            model.run({name: array[row : row + 1] for name, array in pair.items()})
            for row in range(2)
        ]
    except AdlikError as error:
        log.info("not batched: %s", error)
        return False
    return all(_same(array, [single[name] for single in alone]) for name, array in both.items())


def _same(both: Array, alone: list[Array]) -> bool:
    if both.shape[:1] != (2,) or any(single.shape != (1, *both.shape[1:]) for single in alone):
        return False
    if both.dtype.kind != "f":  # an arg-max may fall either way
        return True
    expected = np.nan_to_num(np.concatenate(alone).astype(np.float64))
    difference = np.abs(np.nan_to_num(both.astype(np.float64)) - expected)
    return bool(difference.max(initial=0) <= _TOLERANCE * np.abs(expected).max(initial=1e-6))


def _timed(model: LoadedModel, inputs: Mapping[str, Array], clock: Clock) -> int:
    started = clock()
    model.run(inputs)
    return clock() - started


def zeros(specs: tuple[TensorSpec, ...], rows: int, free_size: int) -> dict[str, Array]:
    """Returns inputs of zeros (empty strings for BYTES) with this many rows."""
    inputs = {}
    for spec in specs:
        shape = _shape(spec, rows, free_size)
        inputs[spec.name] = (
            np.full(shape, "", np.object_)
            if spec.datatype == "BYTES"
            else np.zeros(shape, DATATYPES[spec.datatype])
        )
    return inputs


def _random(specs: tuple[TensorSpec, ...], rows: int, free_size: int) -> dict[str, Array]:
    """Returns inputs of normal numbers, or of zeros and ones for whole numbers."""
    random = np.random.default_rng(0)
    inputs = zeros(specs, rows, free_size)
    for name, array in inputs.items():
        if array.dtype.kind == "f":
            inputs[name] = random.standard_normal(array.shape).astype(array.dtype)
        elif array.dtype != np.object_:
            inputs[name] = random.integers(0, 2, array.shape).astype(array.dtype)
    return inputs


def _shape(spec: TensorSpec, rows: int, free_size: int) -> tuple[int, ...]:
    sizes = [free_size if size == -1 else size for size in spec.shape]
    if spec.shape[:1] == (-1,):
        sizes[0] = rows
    return tuple(sizes)
