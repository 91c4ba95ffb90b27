"""What must be known of a model before it is served: little, because somebody waits for it.

It runs on its samples, what is known to end its process, and whether requests may share a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from adlik_common.errors import AdlikError, InvalidSamples
from adlik_common.samples import Samples, read_samples

from adlik_proof import evidence, gather
from adlik_proof.draws import Drawer, find_drawer
from adlik_proof.evidence import Evidence, Run
from adlik_proof.noise import Noise, measure_noise
from adlik_proof.probe import CRASHED, Apart
from adlik_proof.reference import Reference
from adlik_proof.rows import REQUESTS, dependence, naming_fault

Array = np.ndarray[Any, np.dtype[Any]]


def look(reference: Reference, samples: Path | None, effort: gather.Effort) -> Evidence:
    """Returns the evidence that serving needs at once; see `gather.gather` for all of it.

    Args:
        reference: The model.
        samples: NPZ archive; None: everything is made up.
        effort: How much.

    Raises:
        InvalidSamples: The samples do not fit the model, or it does not run on them.
    """
    drawer = find_drawer(reference, dict(effort.sizes or {}), effort.search_seconds)
    read = read_samples(samples, reference.inputs) if samples else None
    if read is not None:
        timed = read.run(read.judging()[0])
    elif drawer is not None:
        timed = drawer.typical()
    else:
        return gather.nothing(reference)
    empty = [draw.inputs for draw in drawer.empty()] if drawer is not None else []
    apart = Apart(reference.path, empty)
    known = Evidence(
        source="generated" if read is None else "provided",
        runs=[] if read is None else _runs(reference, read, effort),
        noise={},
        scores_noise={},
        axes={},
        timed=timed,
        shared=read is not None and read.is_shared,
    )
    reason = _dependence(reference, drawer, known)
    reference.close()
    unrunnable = [evidence.EMPTY] if CRASHED in apart.became() else []
    return replace(known, independent=not reason, dependence=reason, unrunnable=unrunnable)


def _runs(reference: Reference, samples: Samples, effort: gather.Effort) -> list[Run]:
    """Runs a few samples; all that judge where labels say what is right: they tell the accuracy."""
    give_up = monotonic() + effort.seconds
    most = 2 * REQUESTS if samples.labels is None else effort.max_samples
    runs: list[Run] = []
    for at in samples.judging()[:most]:
        if len(runs) >= gather.MIN_SAMPLES and monotonic() > give_up:
            break
        inputs = samples.run(at)
        try:
            expected = reference.run(inputs)
        except AdlikError as error:
            raise InvalidSamples(
                f"The model does not run on sample {at}: {error.message}", cure=error.cure
            ) from error
        label = None if samples.labels is None else int(samples.labels[at])
        runs.append(Run(evidence.SAMPLE, evidence.SAMPLE, inputs, expected, label))
    return runs


def _dependence(reference: Reference, drawer: Drawer | None, known: Evidence) -> str:
    """As `gather.row_dependence`; the noise is measured only where answers differ at all."""
    if reason := naming_fault(reference.inputs, reference.model.outputs):
        return reason
    sets = list(gather.company(drawer, known))
    if not sets:
        return "there are no inputs to prove it on"
    for _, requests in sets:
        if not dependence(reference.run, requests, {}):
            continue
        if reason := dependence(reference.run, requests, _noise(reference, requests)):
            return reason
    return ""


def _noise(reference: Reference, requests: Sequence[Mapping[str, Array]]) -> dict[str, Noise]:
    """Returns how far the answers to requests change without the engine's optimisations."""
    expected = [reference.run(request) for request in requests]
    plain = [reference.run_plainly(request) for request in requests]
    shaken = [
        reference.run_shaken(r, n) if reference.has_steps else None for n, r in enumerate(requests)
    ]
    return {
        name: measure_noise(
            [answer[name] for answer in expected],
            [[] if answer is None else [answer[name]] for answer in plain],
            [None if answer is None else answer[name] for answer in shaken],
        )
        for name, array in expected[0].items()
        if array.dtype.kind == "f"
    }
