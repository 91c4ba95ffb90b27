"""Whether rows that run together are answered as alone: only then requests may share a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from adlik_common.errors import AdlikError
from adlik_common.tensors import TensorSpec

from adlik_proof.noise import Noise
from adlik_proof.sameness import Leeway, difference, form_fault

Array = np.ndarray[Any, np.dtype[Any]]
Run = Callable[[Mapping[str, Array]], Mapping[str, Array]]

REQUESTS = 3
"""Requests that share a run of the proof: a mean or a rank over two looks too much like one."""


def naming_fault(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> str:
    """Returns why requests can't be joined by their first axes, "" where they may be.

    Args:
        inputs: What the model takes, with the names of its axes.
        outputs: What it gives.
    """
    firsts = {}
    for spec in (*inputs, *outputs):
        if not spec.shape or spec.shape[0] != -1:
            return f"the first axis of '{spec.name}' is not open"
        firsts[spec.name] = spec.axes[0] if spec.axes else ""
    if len(set(firsts.values())) != 1 or "" in firsts.values():
        return f"first axes have no name in common: {firsts}"
    return ""


def join(requests: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Returns the rows of requests one below the other."""
    return {name: np.concatenate([r[name] for r in requests]) for name in requests[0]}


def dependence(
    run: Run,
    requests: Sequence[Mapping[str, Array]],
    noise: Mapping[str, Noise],
) -> str:
    """Returns how an answer depends on its company, "" where none does.

    Args:
        run: Computes outputs.
        requests: At least three, whose inputs differ in their values only.
        noise: Float noise of the outputs, by name.
    """
    try:
        alone = [run(request) for request in requests]
        together = run(join(requests))
    except AdlikError as error:
        return f"{len(requests)} requests together can't be run: {error.message}"
    rows = [len(next(iter(request.values()))) for request in requests]
    ends = np.cumsum(rows)
    for at, answer in enumerate(alone):
        part = {
            name: array[ends[at] - rows[at] : ends[at]] if array.ndim else array
            for name, array in together.items()
        }
        if fault := form_fault(answer, part):
            return f"together with others the answer '{fault.output}' {fault.text}"
        for name, array in answer.items():
            found, _, _ = difference(name, array, part[name], Leeway(noise.get(name)))
            if found is not None:
                return f"together with others '{name}' {found.text}"
    total = int(ends[-1])
    for name, array in together.items():
        if array.shape[:1] != (total,):
            return f"'{name}' has {list(array.shape)} for {total} rows"
    return ""
