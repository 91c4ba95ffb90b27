"""The former judge, as it was before each output was judged for what it is: the baseline.

Eight made-up inputs of one size, or the pushed samples one by one; one cosine over all float
outputs; the class that the first table of floats points at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from adlik_common.errors import AdlikError, InvalidSamples
from adlik_common.tensors import DATATYPES, TensorSpec

from benchmarks.proof_cases.case import Array, Feed
from benchmarks.proof_cases.truth import Runs

MIN_COSINE, MIN_AGREEMENT, MIN_SAMPLES, MAX_SAMPLES = 0.98, 0.9, 8, 128
_SEED, _SIZES = 20260101, (1, 64, 224)


def inputs_of(reference, archive: Feed | None) -> list[Feed]:
    """Returns what the former judge ran; raises `AdlikError` where it found nothing to run."""
    if archive is not None:
        return _samples(reference.inputs, archive)
    refused: AdlikError | None = None
    for size in _SIZES:
        random = np.random.default_rng(_SEED)
        runs = [{s.name: _made_up(random, s, size) for s in reference.inputs} for _ in range(8)]
        try:
            reference.run(runs[0])
        except AdlikError as error:
            refused = refused or error
        else:
            return runs
    raise refused or InvalidSamples("There are no inputs.")


def accepts(reference: Runs, variant: Runs, runs: Sequence[Feed], *, provided: bool) -> bool:
    """Returns whether the former judge released a variant."""
    cosines: list[float] = []
    same = rows = 0
    for run in runs:
        expected = reference.run(run)
        try:
            found = variant.run(run)
        except AdlikError:
            return False
        if set(found) != set(expected) or any(
            found[n].shape != a.shape for n, a in expected.items()
        ):
            return False
        left, right = (_flat(_comparable(expected), answer) for answer in (expected, found))
        usable = np.isfinite(left)
        if (usable & ~np.isfinite(right)).any():
            return False
        if usable.any():
            cosines.append(_cosine(left[usable], right[usable]))
        agreeing, counted = _classes(expected, found)
        same, rows = same + agreeing, rows + counted
    if not cosines or float(np.mean(cosines)) < MIN_COSINE:
        return False
    judged = provided and rows and len(runs) >= MIN_SAMPLES
    return not judged or same / rows >= MIN_AGREEMENT


def _samples(inputs: Sequence[TensorSpec], archive: Feed) -> list[Feed]:
    fixed = {spec.shape[0] for spec in inputs if spec.shape and spec.shape[0] > 0}
    rows = max(fixed, default=1)
    if any(not archive[spec.name].ndim for spec in inputs):
        raise InvalidSamples("A scalar can't be sampled.")
    count = min(len(archive[spec.name]) // rows for spec in inputs)
    order = np.random.default_rng(_SEED).permutation(count)[:MAX_SAMPLES]
    return [{s.name: archive[s.name][at * rows : (at + 1) * rows] for s in inputs} for at in order]


def _made_up(random: np.random.Generator, spec: TensorSpec, size: int) -> Array:
    shape = [size if length == -1 else length for length in spec.shape]
    if spec.shape[:1] == (-1,):
        shape[0] = 1
    dtype = DATATYPES[spec.datatype]
    if dtype == np.object_:
        return np.full(shape, "a", np.object_)
    if dtype.kind == "f":
        return random.standard_normal(shape).astype(dtype)
    return random.integers(0, 2, shape).astype(dtype)


def _comparable(outputs: Feed) -> list[str]:
    floats = [name for name, array in outputs.items() if array.dtype.kind == "f"]
    return floats or [name for name, array in outputs.items() if array.dtype.kind in "iub"]


def _flat(names: list[str], outputs: Feed) -> Array:
    return np.concatenate([outputs[n].astype(np.float64).ravel() for n in names] or [np.zeros(0)])


def _cosine(left: Array, right: Array) -> float:
    one, other = float(np.abs(left).max(initial=0.0)), float(np.abs(right).max(initial=0.0))
    if one == 0.0 or other == 0.0:
        return float(one == other)
    left, right = left / one, right / other
    return float(left @ right / (np.linalg.norm(left) * np.linalg.norm(right)))


def _classes(expected: Feed, found: Feed) -> tuple[int, int]:
    for name, array in _tables(expected):
        answered = ~np.isnan(array).any(axis=1)
        same = array[answered].argmax(axis=1) == found[name][answered].argmax(axis=1)
        return int(same.sum()), int(answered.sum())
    return 0, 0


def _tables(outputs: Feed) -> Iterator[tuple[str, Array]]:
    for name, array in outputs.items():
        if array.ndim == 2 and array.shape[1] >= 2 and array.dtype.kind == "f":
            yield name, array
