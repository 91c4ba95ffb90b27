"""Gathers evidence: chooses inputs, runs the reference on them, and measures its float noise."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from adlik_common.errors import AdlikError, InvalidSamples
from adlik_common.samples import Samples, read_samples

from adlik_proof import evidence
from adlik_proof.draws import Draw, Drawer, find_drawer, seconds_of
from adlik_proof.evidence import Evidence, Run
from adlik_proof.noise import Noise, measure_noise
from adlik_proof.probe import ANSWERED, CRASHED, Apart
from adlik_proof.reference import Reference
from adlik_proof.rows import REQUESTS, dependence, join, naming_fault
from adlik_proof.values import PLAIN, STYLES

Array = np.ndarray[Any, np.dtype[Any]]

MIN_SAMPLES = 8
"""Run even where that takes longer than the time set for it."""
SCALES = (30.0, 0.01, -1.0)
"""Of samples, as inputs that could show a fault."""
BRIEF_DRAWS = 3
MAX_DRIFT = 0.01
"""Noise between two equal runs, in units of the spread, from which a model draws at random."""
NOISE_RUNS = 4
"""Runs of a group of samples that the noise is measured on; the others are alike."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much evidence is gathered.

    Attributes:
        threads: Threads of the engine.
        max_samples: Most samples that are run.
        seconds: Time after which no more samples are run.
        search_seconds: Time after which no more sizes are looked for.
        max_bytes: About how many bytes of inputs and outputs are kept.
        sizes: Sizes of open axes that the plan names.
        is_brief: Made-up inputs of each size once: no crowds, nothing special. For what is checked
            often, and again later by more.
    """

    threads: int = 0
    max_samples: int = 128
    seconds: float = 10.0
    search_seconds: float = 5.0
    max_bytes: int = 512 * 2**20
    sizes: Mapping[str, int] | None = None
    is_brief: bool = False


def gather(model: Path, samples: Path | None, effort: Effort) -> Evidence:
    """Returns what the model answers, on its samples and on made-up inputs.

    Args:
        model: ONNX file, its weights inside.
        samples: NPZ archive; None: everything is made up.
        effort: How much.

    Raises:
        AdlikError: The model can't be loaded.
        InvalidSamples: The samples do not fit it, or it does not run on them.
    """
    reference = Reference(model, effort.threads)
    drawer = find_drawer(reference, dict(effort.sizes or {}), effort.search_seconds)
    read = read_samples(samples, reference.inputs) if samples else None
    if read is not None:
        timed = read.run(read.judging()[0])
    elif drawer is not None:
        timed = drawer.typical()
    else:
        return nothing(reference)
    gathering = _Gathering(reference, effort)
    empty = drawer.empty() if drawer is not None and not effort.is_brief else []
    apart = Apart(reference.path, [draw.inputs for draw in empty])
    if read is not None:
        gathering.add_samples(read)
    if drawer is not None:
        gathering.add_draws(drawer)
    gathering.add_empty(empty, apart.became())
    noise, scores_noise = gathering.noise()
    found = Evidence(
        source="provided" if read is not None else "generated",
        runs=gathering.runs,
        noise=noise,
        scores_noise=scores_noise,
        axes={choice.output: choice.axis for choice in reference.choices},
        timed=timed,
        shared=read is not None and read.is_shared,
        levels=reference.levels,
        unrunnable=gathering.unrunnable,
        missing=_randomness(reference, timed),
    )
    reason = row_dependence(reference, drawer, found)
    reference.close()
    return replace(found, independent=not reason, dependence=reason)


def row_dependence(reference: Reference, drawer: Drawer | None, known: Evidence) -> str:
    """Returns why requests of the model can't share a run, "" where they can."""
    if reason := naming_fault(reference.inputs, reference.model.outputs):
        return reason
    sets = list(company(drawer, known))
    if not sets:
        return "there are no inputs to prove it on"
    for group, requests in sets:
        if reason := dependence(reference.run, requests, known.noise.get(group, {})):
            return reason
    return ""


def company(drawer: Drawer | None, known: Evidence) -> Iterator[tuple[str, list[dict[str, Array]]]]:
    """Yields sets of requests that could share a run, each with its group."""
    samples = [dict(run.inputs) for run in known.of_kind(evidence.SAMPLE)]
    for at in range(0, min(len(samples) - REQUESTS + 1, 2 * REQUESTS), REQUESTS):
        requests = samples[at : at + REQUESTS]
        if _same_inner_sizes(requests):
            yield evidence.SAMPLE, requests
    if drawer is not None:
        for turn, style in enumerate(STYLES[: len(PLAIN) + 1]):
            yield style, drawer.company(REQUESTS, style, 1000 * (turn + 1))


def _randomness(reference: Reference, inputs: Mapping[str, Array]) -> str:
    """Returns why a model that draws at random can't be judged, "" of any other."""
    first, second = reference.run(inputs), reference.run(inputs)
    noise = {
        name: measure_noise([a], [[second[name]]])
        for name, a in first.items()
        if a.dtype.kind == "f" and second[name].shape == a.shape
    }
    differing = [
        name
        for name, known in noise.items()
        if (known.rms > MAX_DRIFT * known.spread + np.finfo(np.float32).eps).any()
    ]
    if differing or any(second[name].shape != a.shape for name, a in first.items()):
        return f"the same inputs get other answers each time ({', '.join(differing)})"
    return ""


def _same_inner_sizes(requests: Sequence[Mapping[str, Array]]) -> bool:
    return len({tuple(a.shape[1:] for a in r.values()) for r in requests}) == 1 and all(
        array.ndim for request in requests for array in request.values()
    )


def nothing(reference: Reference) -> Evidence:
    """Returns the evidence of a model for which nothing can be made up."""
    names = [f"'{spec.name}' {spec.datatype} {list(spec.shape)}" for spec in reference.inputs]
    return Evidence(
        "generated", (), {}, {}, {}, {},
        dependence="there are no inputs to prove it on",
        missing=f"no inputs could be made up that the model runs on ({', '.join(names)})",
    )  # fmt: skip


class _Gathering:
    """Runs and their noise, growing."""

    def __init__(self, reference: Reference, effort: Effort) -> None:
        self._reference, self._effort = reference, effort
        self._bytes = 0
        self.runs: list[Run] = []
        self._moved: list[list[dict[str, Array]]] = []
        self._shaken: list[dict[str, Array] | None] = []
        self._measured: dict[str, int] = defaultdict(int)
        self.unrunnable: list[str] = []

    def add_samples(self, samples: Samples) -> None:
        """Runs samples alone, and several of them together where that is possible."""
        give_up = monotonic() + self._effort.seconds
        judging = samples.judging()[: self._effort.max_samples]
        for number, at in enumerate(judging):
            if number >= MIN_SAMPLES and (monotonic() > give_up or self._is_full()):
                break
            label = None if samples.labels is None else int(samples.labels[at])
            try:
                self._add(evidence.SAMPLE, evidence.SAMPLE, samples.run(at), label)
            except AdlikError as error:
                raise InvalidSamples(
                    f"The model does not run on sample {at}: {error.message}", cure=error.cure
                ) from error
        alone = [dict(run.inputs) for run in self.runs]
        if not naming_fault(self._reference.inputs, ()):
            self._add_company(alone)
        self._add_scaled(alone)

    def _add_scaled(self, alone: Sequence[dict[str, Array]]) -> None:
        """Runs samples at other scales: a sample shows what is wrong of its own size only."""
        for number, scale in enumerate(SCALES):
            sample = alone[number % len(alone)]
            scaled = {
                name: (array * scale).astype(array.dtype) if array.dtype.kind == "f" else array
                for name, array in sample.items()
            }
            self._try(evidence.DRAWN, f"samples times {scale:g}", scaled)

    def _add_company(self, alone: Sequence[dict[str, Array]]) -> None:
        for first, size in ((0, 3), (3, 5)):
            requests = alone[first : first + size]
            if len(requests) == size and _same_inner_sizes(requests):
                self._try(evidence.COMPANY, evidence.SAMPLE, join(requests))

    def add_draws(self, drawer: Drawer) -> None:
        """Runs made-up inputs; what the model does not take is left out."""
        if self._effort.is_brief:
            for draw in islice(drawer.draws(), max(BRIEF_DRAWS, len(drawer.found.draws))):
                self._try_draw(draw)
            return
        give_up = monotonic() + self._effort.seconds
        for number, draw in enumerate(drawer.draws()):
            if number < MIN_SAMPLES or (monotonic() < give_up and not self._is_full()):
                self._try_draw(draw)
        drawn = [run for run in self.runs if run.kind == evidence.DRAWN]
        if drawn:
            small = min(drawn, key=lambda run: sum(a.nbytes for a in run.inputs.values()))
            rows = max(1, min((len(a) for a in small.inputs.values() if a.ndim), default=1))
            seconds = seconds_of(lambda: self._reference.run(small.inputs)) / rows
            arrays = (*small.inputs.values(), *small.expected.values())
            for draw in drawer.crowd(seconds, sum(a.nbytes for a in arrays) / rows):
                self._try_draw(draw)
        for draw in drawer.special():
            self._try_draw(draw)

    def add_empty(self, draws: Sequence[Draw], became: Sequence[str]) -> None:
        """Runs inputs without elements, as far as none of them ended the process apart."""
        if CRASHED in became:
            self.unrunnable.append(evidence.EMPTY)
            return
        for draw, word in zip(draws, became, strict=True):
            if word == ANSWERED:
                self._try_draw(draw)

    def _try_draw(self, draw: Draw) -> None:
        self._try(draw.kind, draw.style, draw.inputs)

    def _try(self, kind: str, group: str, inputs: Mapping[str, Array]) -> None:
        try:
            self._add(kind, group, inputs)
        except AdlikError:
            return

    def _add(
        self, kind: str, group: str, inputs: Mapping[str, Array], label: int | None = None
    ) -> None:
        expected = self._reference.run(inputs)
        moved: list[dict[str, Array]] = []
        shaken = None
        scores: dict[str, Array] = {}
        most = 1 if kind == evidence.CROWD else NOISE_RUNS  # its group was measured with few rows
        if self._measured[group] < most or self._reference.choices:
            self._measured[group] += 1
            plain = self._reference.run_plainly(inputs)
            again = self._reference.run_moved(inputs, len(self.runs))
            if self._reference.has_steps:
                shaken = self._reference.run_shaken(inputs, len(self.runs))
            moved = [found for found in (plain, again) if found is not None]
            if plain is not None:
                scores = {
                    c.output: plain[c.scores] for c in self._reference.choices if c.scores in plain
                }
        unsure = {name: _unsure(array, name, moved) for name, array in expected.items()}
        self.runs.append(
            Run(
                kind, group, inputs, expected, label,
                {name: mask for name, mask in unsure.items() if mask is not None and mask.any()},
                scores,
            )
        )  # fmt: skip
        self._moved.append(moved)
        self._shaken.append(shaken)
        self._bytes += sum(a.nbytes for a in (*inputs.values(), *expected.values()))

    def _is_full(self) -> bool:
        return self._bytes > self._effort.max_bytes

    def noise(self) -> tuple[dict[str, dict[str, Noise]], dict[str, float]]:
        """Returns the noise of each group and output, and that of scores behind indices."""
        groups: dict[str, dict[str, Noise]] = {}
        for group in dict.fromkeys(run.group for run in self.runs):
            numbers = [n for n, run in enumerate(self.runs) if run.group == group]
            groups[group] = {
                name: measure_noise(
                    [self.runs[n].expected[name] for n in numbers],
                    [[found[name] for found in self._moved[n]] for n in numbers],
                    [None if (s := self._shaken[n]) is None else s[name] for n in numbers],
                )
                for name, array in self.runs[numbers[0]].expected.items()
                if array.dtype.kind == "f"
            }
        return groups, self._scores_noise()

    def _scores_noise(self) -> dict[str, float]:
        noise: dict[str, float] = {}
        for choice in self._reference.choices:
            found = [
                _typical_difference(*(answer.get(choice.scores) for answer in moved))
                for run, moved in zip(self.runs, self._moved, strict=True)
                if run.kind not in evidence.SPECIAL and len(moved) == 2
            ]
            noise[choice.output] = max(found, default=0.0)
        return noise


def _typical_difference(one: Array | None, other: Array | None) -> float:
    """Returns what most elements stay below: a rounding that flips is no noise of the others."""
    if one is None or other is None or one.shape != other.shape or not one.size:
        return 0.0
    difference = np.abs(one.astype(np.float64) - other.astype(np.float64))
    return float(np.quantile(np.nan_to_num(difference, nan=0.0, posinf=0.0), 0.95))


def _unsure(expected: Array, name: str, moved: Sequence[Mapping[str, Array]]) -> Array | None:
    """Returns the elements that change though nothing does that matters; floats: to no number."""
    others = [found[name] for found in moved if found[name].shape == expected.shape]
    if not others or expected.dtype.kind not in "fiub":
        return None
    if expected.dtype.kind == "f":
        masks = [np.isfinite(other) != np.isfinite(expected) for other in others]
    else:
        masks = [other != expected for other in others]
    return np.asarray(np.logical_or.reduce(masks))
