"""How near a variant's outputs are to the reference's, counted up run by run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from adlik_runtimes.engine import Array


@dataclass(slots=True)
class Comparison:
    """Sums over the runs compared so far.

    Attributes:
        runs: How many were compared.
        max_abs_error: Largest difference of any element.
        not_finite: Elements that are NaN or infinite in the candidate only.
        mismatch: How names or shapes of outputs differ, "" where they do not.
        compared: Elements that were compared: numbers that are finite in the reference.
    """

    runs: int = 0
    max_abs_error: float = 0.0
    not_finite: int = 0
    mismatch: str = ""
    compared: int = 0
    _error_sum: float = 0.0
    _cosine_sum: float = 0.0
    _cosines: int = 0
    _rows: int = 0
    _same_class: int = 0
    _labelled: int = 0
    _right: int = 0
    _reference_right: int = 0

    def add(
        self, reference: Mapping[str, Array], candidate: Mapping[str, Array], label: int | None
    ) -> None:
        """Compares the outputs of one run; label is the right class where it is known."""
        self.runs += 1
        self.mismatch = self.mismatch or _mismatch(reference, candidate)
        if self.mismatch:
            return
        names = _comparable(reference)
        left = _flat([reference[name] for name in names])
        right = _flat([candidate[name] for name in names])
        usable = np.isfinite(left)
        broken = usable & ~np.isfinite(right)
        self.not_finite += int(broken.sum())
        usable &= ~broken
        left, right = left[usable], right[usable]
        if not left.size:  # nothing to compare is no likeness
            return
        difference = np.abs(left - right)
        self.max_abs_error = max(self.max_abs_error, float(difference.max(initial=0.0)))
        self._error_sum += float(difference.sum())
        self.compared += difference.size
        self._cosine_sum += cosine(left, right)
        self._cosines += 1
        self._count_classes(reference, candidate, label)

    @property
    def mean_abs_error(self) -> float:
        """Mean difference over all elements of all runs."""
        return self._error_sum / self.compared if self.compared else 0.0

    @property
    def cosine(self) -> float:
        """Mean over the runs of the cosine between all outputs, flattened; 0 without any."""
        return 0.0 if self.mismatch or not self._cosines else self._cosine_sum / self._cosines

    @property
    def top1_agreement(self) -> float | None:
        """Share of rows with the same arg-max; None where no output looks like class scores."""
        return self._same_class / self._rows if self._rows else None

    @property
    def accuracy(self) -> float | None:
        """Share of labelled rows that the candidate answers right; None without labels."""
        return self._right / self._labelled if self._labelled else None

    @property
    def reference_accuracy(self) -> float | None:
        """Share of labelled rows that the reference answers right; None without labels."""
        return self._reference_right / self._labelled if self._labelled else None

    def _count_classes(
        self, reference: Mapping[str, Array], candidate: Mapping[str, Array], label: int | None
    ) -> None:
        name = class_scores(reference)
        if name is None:
            return
        answered = ~np.isnan(reference[name]).any(axis=1)  # arg-max would point at the NaN
        expected = reference[name][answered].argmax(axis=1)
        found = candidate[name][answered].argmax(axis=1)
        self._rows += len(expected)
        self._same_class += int((expected == found).sum())
        if label is not None:
            self._labelled += len(expected)
            self._right += int((found == label).sum())
            self._reference_right += int((expected == label).sum())


def class_scores(outputs: Mapping[str, Array]) -> str | None:
    """Returns the first output that looks like class scores: floats [N, C], C of 2 or more."""
    for name, array in outputs.items():
        if array.ndim == 2 and array.shape[1] >= 2 and array.dtype.kind == "f":
            return name
    return None


def cosine(left: Array, right: Array) -> float:
    """Returns the cosine similarity of two float64 vectors, 1 where both are zero."""
    largest_left = float(np.abs(left).max(initial=0.0))
    largest_right = float(np.abs(right).max(initial=0.0))
    if largest_left == 0.0 or largest_right == 0.0:
        return 1.0 if largest_left == largest_right else 0.0
    # Squares of very small or large numbers would leave the range of float64.
    left, right = left / largest_left, right / largest_right
    norms = math.sqrt(float(left @ left)) * math.sqrt(float(right @ right))
    return max(-1.0, min(1.0, float(left @ right) / norms))


def _mismatch(reference: Mapping[str, Array], candidate: Mapping[str, Array]) -> str:
    if set(reference) != set(candidate):
        return f"outputs {sorted(candidate)} in place of {sorted(reference)}"
    for name, array in reference.items():
        if candidate[name].shape != array.shape:
            found, wanted = list(candidate[name].shape), list(array.shape)
            return f"'{name}' has shape {found} in place of {wanted}"
    return ""


def _comparable(outputs: Mapping[str, Array]) -> list[str]:
    """Returns the float outputs; without any, all that hold numbers."""
    floats = [name for name, array in outputs.items() if array.dtype.kind == "f"]
    return floats or [name for name, array in outputs.items() if array.dtype.kind in "iub"]


def _flat(arrays: Sequence[Array]) -> Array:
    return np.concatenate([a.astype(np.float64).ravel() for a in arrays] or [np.zeros(0)])
