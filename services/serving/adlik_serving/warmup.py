"""Runs a freshly loaded model before anybody waits for it, and learns how it may be batched."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np
from adlik_common.errors import AdlikError
from adlik_common.tensors import DATATYPES, TensorSpec
from adlik_proof.noise import Noise
from adlik_proof.rows import REQUESTS, dependence
from adlik_proof.tolerance import NOISE_FACTOR
from adlik_runtimes.engine import LoadedModel

from adlik_serving.oip.request import Array

log = logging.getLogger(__name__)

FREE_SIZES = (8, 64, 224, 1)
"""Sizes tried for dimensions that the model leaves open."""
MAX_RUN_NS = 100_000_000
"""A batch that takes longer makes its first request wait too long: larger ones are not formed."""
MIN_GAIN = 0.05
"""Share of its time that a row must save in a batch: else the batch only makes its rows wait."""
_SCALES = (1.0, 30.0, 0.1)
_EXACT_SHARE, _COARSE_SHARE = 2e-4, 0.05

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


def warm_up(
    model: LoadedModel, max_rows: int, clock: Clock = perf_counter_ns, *, is_exact: bool = True
) -> WarmUp:
    """Runs every power of two of rows up to the largest batch, on zeros.

    A model that fills the machine with one row gains nothing by more, and may lose its caches:
    batches grow only as far as each row becomes faster by it.

    Args:
        model: What was loaded.
        max_rows: Largest batch that is configured; 0: none, since nobody wants any or since the
            proof found that an answer may depend on its company.
        clock: Nanoseconds, never going back.
        is_exact: It computes in the pushed model's precision.

    Returns:
        How the model may be batched. A model that no made-up input of ours can run is served
        without batches.
    """
    free_size = _runnable_size(model)
    if free_size is None:
        log.warning("no made-up input runs the model: it is served cold and without batches")
        return WarmUp(0, MAX_RUN_NS)
    run_ns = min(_timed(model, zeros(model.inputs, 1, free_size), clock) for _ in range(3))
    if max_rows < 1 or _depends_on_company(model, free_size, is_exact=is_exact):
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


def _depends_on_company(model: LoadedModel, free_size: int, *, is_exact: bool) -> bool:
    """Whether rows run together are answered otherwise than alone, on this engine and machine.

    The compiler has proved it of the model; engines of other machines may still differ. Where
    made-up requests can't be run, its proof stands.
    """
    if any(spec.shape[:1] != (-1,) for spec in (*model.inputs, *model.outputs)):
        return True
    for seed, scale in enumerate(_SCALES):
        requests = [
            _random(model.inputs, 1, free_size, seed=10 * seed + at, scale=scale)
            for at in range(REQUESTS)
        ]
        try:
            answers = [model.run(request) for request in requests]
        except AdlikError as error:
            log.info("made-up requests do not run: %s", error)
            return False
        noise = {
            name: _leeway([a[name] for a in answers], is_exact=is_exact) for name in answers[0]
        }
        if reason := dependence(model.run, requests, noise):
            log.warning("not batched: %s", reason)
            return True
    return False


def _leeway(answers: list[Array], *, is_exact: bool) -> Noise:
    """Returns what company may change: float noise, of a lower precision a share of the spread."""
    values = np.stack(answers)
    spread = (
        float(np.nan_to_num(values.astype(np.float64)).std()) if values.dtype.kind == "f" else 0.0
    )
    share = (_EXACT_SHARE if is_exact else _COARSE_SHARE) * spread / NOISE_FACTOR
    return Noise(None, np.array([share]), np.array([4 * share]), np.zeros(1), np.zeros(1))


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


def _random(
    specs: tuple[TensorSpec, ...], rows: int, free_size: int, *, seed: int, scale: float
) -> dict[str, Array]:
    """Returns inputs of normal numbers, of zeros and ones for whole numbers, and of texts."""
    random = np.random.default_rng(seed)
    inputs = zeros(specs, rows, free_size)
    for name, array in inputs.items():
        if array.dtype.kind == "f":
            inputs[name] = (scale * random.standard_normal(array.shape)).astype(array.dtype)
        elif array.dtype == np.object_:
            inputs[name] = random.choice(np.array(["", "a", "b c"], np.object_), array.shape)
        else:
            inputs[name] = random.integers(0, 2, array.shape).astype(array.dtype)
    return inputs


def _shape(spec: TensorSpec, rows: int, free_size: int) -> tuple[int, ...]:
    sizes = [free_size if size == -1 else size for size in spec.shape]
    if spec.shape[:1] == (-1,):
        sizes[0] = rows
    return tuple(sizes)
