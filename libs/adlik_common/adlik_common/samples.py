"""The one rule for samples: how the arrays of an NPZ archive become runs of a model.

An array belongs to the input of its name. It holds either the input as it is, one run after the
other along one more axis in front, or rows: as many in a run as the input's first dimension says;
where that is open one, or as many as share the rows out over the runs that other inputs have. A
scalar that every run shares may be given once.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adlik_common.errors import InvalidSamples
from adlik_common.tensors import DATATYPES, TensorSpec

Array = np.ndarray[Any, np.dtype[Any]]

LABELS = "labels"
"""Name of the array with the right class of each run, where no input is called so."""
MIN_HELD_OUT = 8
"""Runs that must be left to judge by before some are set aside to calibrate with."""
_SEED = 20260101


@dataclass(frozen=True, slots=True)
class Layout:
    """How one array holds its input.

    Attributes:
        runs: How many runs it holds; 0: one value that every run shares.
        rows: Rows along its first axis that are one run; 0: the first axis counts runs.
    """

    runs: int
    rows: int

    @property
    def is_shared(self) -> bool:
        """Whether it is one value for every run."""
        return not self.runs and not self.rows

    def run(self, array: Array, at: int) -> Array:
        """Returns the input of one run: a view where the array allows it."""
        if self.is_shared:
            return array
        if not self.rows:
            return array[at, ...]
        return array[at * self.rows : (at + 1) * self.rows]


def layout_of(spec: TensorSpec, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Layout:
    """Returns how an array of a dtype and shape holds an input.

    Raises:
        InvalidSamples: It does not fit the input.
    """
    wanted = DATATYPES[spec.datatype]
    is_text = wanted == np.object_ and dtype.kind in "US"
    if dtype != wanted and not is_text:
        raise InvalidSamples(
            f"'{spec.name}' has dtype {dtype}; the model takes {spec.datatype}.",
            cure="Convert the array before saving it.",
        )
    rank = len(spec.shape)
    if not shape and not rank:
        return Layout(runs=0, rows=0)
    if len(shape) == rank + 1 and _fits(shape[1:], spec.shape):
        return Layout(runs=shape[0], rows=0)
    if rank and len(shape) == rank and _fits(shape[1:], spec.shape[1:]):
        rows = max(spec.shape[0], 1)
        return Layout(runs=shape[0] // rows, rows=rows)
    raise InvalidSamples(
        f"'{spec.name}' has an array of shape {list(shape)}; the model takes {list(spec.shape)}.",
        cure="Give rows of the input one below the other, or whole inputs along one more axis "
        "in front.",
    )


def arrange(
    layouts: Mapping[str, Layout], inputs: Sequence[TensorSpec]
) -> tuple[int, dict[str, Layout]]:
    """Returns how many runs a set of arrays holds, and how each holds its input.

    Rows of an input whose first dimension is open are shared out evenly where the other inputs say
    how many runs there are.

    Args:
        layouts: Of the arrays, by name.
        inputs: What the model takes.

    Raises:
        InvalidSamples: An input has no array, or the arrays hold different numbers of runs.
    """
    names = [spec.name for spec in inputs]
    missing = sorted(set(names) - set(layouts))
    if missing:
        raise InvalidSamples(
            f"The samples lack the model's inputs {missing}.",
            cure=f"Push one array per input: {names}.",
        )
    counts = {name: layouts[name].runs for name in names if not layouts[name].is_shared}
    is_open = {spec.name: spec.shape[:1] == (-1,) and layouts[spec.name].rows for spec in inputs}
    fixed = {count for name, count in counts.items() if not is_open[name]} or set(counts.values())
    count = min(fixed, default=0)
    fits = len(fixed) == 1 and count and all(counts[name] % count == 0 for name in counts)
    if not fits:
        raise InvalidSamples(
            f"The arrays hold different numbers of runs, or none: {counts}.",
            cure="Push arrays for the same number of runs, at least one.",
        )
    return count, {
        name: Layout(count, layouts[name].runs // count) if is_open[name] else layouts[name]
        for name in names
    }


def check_labels(labels: Array, count: int, layouts: Mapping[str, Layout]) -> None:
    """Raises `InvalidSamples` unless labels are whole numbers, one for each run or row."""
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise InvalidSamples(
            f"'{LABELS}' has dtype {labels.dtype} and shape {list(labels.shape)}.",
            cure="Give one whole number per sample: the index of its class.",
        )
    rows = max((layout.rows for layout in layouts.values()), default=1)
    if not count <= len(labels) < (count + 1) * max(rows, 1):
        raise InvalidSamples(
            f"There are different numbers of labels ({len(labels)}) and runs ({count}).",
            cure="Give one label per sample.",
        )


def labels_name(inputs: Iterable[TensorSpec]) -> str:
    """Returns the name of the array that holds labels, "" where an input bears it."""
    return "" if any(spec.name == LABELS for spec in inputs) else LABELS


@dataclass(frozen=True, slots=True)
class Samples:
    """The runs of an archive.

    Attributes:
        arrays: By input.
        layouts: How each holds its input.
        count: Number of runs.
        labels: Whole numbers [count], the right class of each run; None where nobody said.
    """

    arrays: Mapping[str, Array]
    layouts: Mapping[str, Layout]
    count: int
    labels: Array | None = None

    def run(self, at: int) -> dict[str, Array]:
        """Returns the inputs of one run, contiguous."""
        return {
            name: np.array(self.layouts[name].run(array, at), order="C", copy=None)
            for name, array in self.arrays.items()
        }

    def calibrating(self) -> list[int]:
        """Returns the runs to calibrate with, in an order that is random but always the same.

        Half of them, and never those that judge: what was fitted to a sample looks better on it
        than it is. Where there are too few to share, all do both.
        """
        order = self._order()
        return order[: self.count - self._held_out()] if self._held_out() else order

    def judging(self) -> list[int]:
        """Returns the runs to judge by, in an order that is random but always the same."""
        order = self._order()
        return order[self.count - self._held_out() :] if self._held_out() else order

    @property
    def is_shared(self) -> bool:
        """Whether the runs that calibrate also judge, since there are too few."""
        return not self._held_out()

    def _held_out(self) -> int:
        half = self.count // 2
        return half if half >= MIN_HELD_OUT else 0

    def _order(self) -> list[int]:
        # Archives are often sorted by class: the first runs alone would not stand for the rest.
        return [int(at) for at in np.random.default_rng(_SEED).permutation(self.count)]


def read_samples(path: Path, inputs: Sequence[TensorSpec]) -> Samples:
    """Returns the runs of an archive.

    Args:
        path: NPZ file; nothing is unpickled.
        inputs: What the model takes.

    Raises:
        InvalidSamples: The archive can't be read or does not fit the model.
    """
    try:
        # Opened here: numpy leaves a file open that turns out to be no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidSamples(
            f"The samples can't be read: {error}.", cure="Push an .npz archive."
        ) from error
    labels = arrays.pop(labels_name(inputs), None)
    layouts = {
        spec.name: layout_of(spec, arrays[spec.name].dtype, arrays[spec.name].shape)
        for spec in inputs
        if spec.name in arrays
    }
    count, layouts = arrange(layouts, inputs)
    kept = {spec.name: _objects(arrays[spec.name]) for spec in inputs}
    one_each = all(layout.rows in (0, 1) for layout in layouts.values())
    if labels is None or labels.shape != (count,) or not one_each:
        return Samples(kept, layouts, count)
    return Samples(kept, layouts, count, labels)


def _objects(array: Array) -> Array:
    """Returns texts as Python's own, as engines take them; other arrays as they are."""
    return array.astype(np.object_) if array.dtype.kind in "US" else array


def _fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    return len(shape) == len(wanted) and all(
        want in (-1, size) for size, want in zip(shape, wanted, strict=True)
    )
