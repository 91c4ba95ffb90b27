"""Requests that a variant must not answer: the pushed model does, or nobody.

The proof tells kinds of requests on which a variant's engine answers otherwise than the pushed
model: NaN and infinities that it drops, whole numbers that it computes in 32 bits, tensors without
elements. Such requests are few, so the pushed model is loaded when the first of them comes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from threading import Lock

import numpy as np
from adlik_common.errors import InvalidTensor
from adlik_runtimes.engine import LoadedModel

from adlik_serving.oip.request import Array

NONFINITE, WIDE, EMPTY = "nonfinite", "wide", "empty"

_CURES = {
    NONFINITE: "Send finite numbers.",
    WIDE: "Send whole numbers of at most 32 bits.",
    EMPTY: "Send at least one element along each axis.",
}


class Guard:
    """Tells special requests apart and finds who answers them; called by one thread at a time.

    Args:
        deferred: Kinds that the pushed model answers.
        refused: Kinds that the pushed model can't run: one may even end the process.
        open_pushed: Loads the pushed model.
    """

    def __init__(
        self,
        deferred: Collection[str],
        refused: Collection[str],
        open_pushed: Callable[[], LoadedModel],
    ) -> None:
        self._watched = frozenset(deferred) | frozenset(refused)
        self._refused = frozenset(refused)
        self._open, self._lock = open_pushed, Lock()
        self._pushed: LoadedModel | None = None

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to tell apart."""
        return bool(self._watched)

    def kind_of(self, inputs: Mapping[str, Array]) -> str:
        """Returns the special kind of a request, "" where it is like any other."""
        for array in inputs.values():
            if not array.size:
                if EMPTY in self._watched:
                    return EMPTY
            elif array.dtype.kind == "f":
                if NONFINITE in self._watched and _has_nonfinite(array):
                    return NONFINITE
            elif WIDE in self._watched and _is_wide(array):
                return WIDE
        return ""

    def model_for(self, kind: str) -> LoadedModel:
        """Returns the model that answers a kind of requests.

        Raises:
            InvalidTensor: None does.
            AdlikError: The pushed model could not be loaded.
        """
        if kind in self._refused:
            raise InvalidTensor(f"The model takes no such input ({kind}).", cure=_CURES[kind])
        with self._lock:
            if self._pushed is None:
                self._pushed = self._open()
            return self._pushed

    def close(self) -> None:
        """Gives the pushed model's memory back."""
        with self._lock:
            if self._pushed is not None:
                self._pushed.close()
                self._pushed = None


def _has_nonfinite(array: Array) -> bool:
    # A sum is several times faster than looking at each element, and NaN and infinities survive it.
    with np.errstate(over="ignore", invalid="ignore"):
        total = np.add.reduce(array, axis=None)
    return not np.isfinite(total) and not bool(np.isfinite(array).all())


def _is_wide(array: Array) -> bool:
    if array.dtype.itemsize != 8 or array.dtype.kind not in "iu":
        return False
    return bool(array.max() > np.iinfo(np.int32).max or array.min() < np.iinfo(np.int32).min)
