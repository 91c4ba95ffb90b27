"""The inputs that a variant is judged on: the user's samples, or made-up ones."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from adlik_common.errors import AdlikError, InvalidSamples
from adlik_common.tensors import DATATYPES, TensorSpec, check_tensor, datatype_of
from adlik_runtimes.engine import Array, LoadedModel

LABELS = "labels"
GENERATED_SAMPLES = 8
_SEED = 20260101
# Sizes tried for open dimensions that are not the rows: some models refuse a size of 1.
_OPEN_SIZES = (1, 64, 224)


@dataclass(frozen=True, slots=True)
class Samples:
    """Inputs to run a model on, one run each.

    Attributes:
        source: "provided" or "generated".
        runs: Arrays by input name, with the model's own first dimension.
        labels: The right class per run; None where nobody said.
    """

    source: str
    runs: Sequence[dict[str, Array]]
    labels: Array | None = None


def read_samples(path: Path, inputs: Sequence[TensorSpec], *, limit: int) -> Samples:
    """Returns samples of an NPZ archive, in an order that is random but always the same.

    Args:
        path: One array per input, whose first axis counts samples; optionally "labels".
        inputs: What the model takes.
        limit: Most samples to return.

    Raises:
        InvalidSamples: The archive does not fit the model.
    """
    try:
        # Opened here: numpy leaves a file open that turns out to be no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidSamples(
            f"The samples can't be read: {error}.", cure="Push an .npz archive."
        ) from error
    labels = arrays.pop(LABELS, None)
    rows = _rows_of_one_run(inputs)
    runs_in_all = _check(arrays, inputs, rows)
    # Archives are often sorted by class: the first samples alone would not stand for the rest.
    order = np.random.default_rng(_SEED).permutation(runs_in_all)[:limit]
    runs = [
        {s.name: np.ascontiguousarray(arrays[s.name][at * rows : (at + 1) * rows]) for s in inputs}
        for at in order
    ]
    if labels is None or rows != 1 or labels.ndim != 1 or len(labels) != runs_in_all:
        return Samples("provided", runs)
    return Samples("provided", runs, labels[order])


def generate_samples(model: LoadedModel) -> Samples:
    """Returns made-up samples that the model runs: normal numbers, zeros and ones, fixed seed.

    Raises:
        AdlikError: The model ran none of them.
    """
    refused: AdlikError | None = None
    for size in _OPEN_SIZES:
        random = np.random.default_rng(_SEED)
        runs = list(_made_up(random, model.inputs, size))
        try:
            model.run(runs[0])
        except AdlikError as error:
            refused = refused or error
        else:
            return Samples("generated", runs)
    assert refused is not None
    raise refused


def _rows_of_one_run(inputs: Sequence[TensorSpec]) -> int:
    """Returns how many samples one run takes: the fixed first dimension, 1 where it is open."""
    fixed = {spec.shape[0] for spec in inputs if spec.shape and spec.shape[0] > 0}
    return max(fixed, default=1)


def _check(arrays: dict[str, Array], inputs: Sequence[TensorSpec], rows: int) -> int:
    """Returns the number of runs; raises `InvalidSamples` where an array does not fit."""
    for spec in inputs:
        array = arrays.get(spec.name)
        if array is None or not array.ndim:
            raise InvalidSamples(
                f"The samples have no array for the input '{spec.name}'.",
                cure=f"Push one array per input: {[s.name for s in inputs]}.",
            )
        try:
            check_tensor(spec, datatype_of(array.dtype), (rows, *array.shape[1:]))
        except AdlikError as error:
            raise InvalidSamples(error.message, cure=error.cure) from error
    counts = {len(arrays[spec.name]) // rows for spec in inputs}
    if len(counts) != 1 or 0 in counts:
        raise InvalidSamples(
            f"The samples hold {sorted(counts)} runs of {rows} rows.",
            cure="Push arrays of the same length, at least one run.",
        )
    return counts.pop()


def _made_up(
    random: np.random.Generator, inputs: Sequence[TensorSpec], size: int
) -> Iterator[dict[str, Array]]:
    for _ in range(GENERATED_SAMPLES):
        yield {spec.name: _array(random, spec, size) for spec in inputs}


def _array(random: np.random.Generator, spec: TensorSpec, size: int) -> Array:
    shape = [size if length == -1 else length for length in spec.shape]
    if spec.shape[:1] == (-1,):
        shape[0] = 1
    dtype = DATATYPES[spec.datatype]
    if dtype == np.object_:
        return np.full(shape, "a", np.object_)
    if dtype.kind == "f":
        return random.standard_normal(shape).astype(dtype)
    return random.integers(0, 2, shape).astype(dtype)
