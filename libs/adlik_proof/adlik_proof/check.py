"""Holds a variant to the evidence of its reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from adlik_common.errors import AdlikError

from adlik_proof import evidence
from adlik_proof.evidence import Evidence, Run
from adlik_proof.figures import Accuracy, OutputFigures, Pair, summarize
from adlik_proof.noise import Noise
from adlik_proof.rows import dependence
from adlik_proof.sameness import Fault, difference, form_fault
from adlik_proof.tolerance import NOISE_FACTOR
from adlik_proof.values import PLAIN

Array = np.ndarray[Any, np.dtype[Any]]

_COMPANY_SHARE = 0.05
"""What company may change in an answer of a lower precision, in units of the output's spread."""


class Runs(Protocol):
    """Something that computes outputs, as `adlik_runtimes.engine.LoadedModel` does."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Returns all outputs; raises `AdlikError` where it can't."""


@dataclass(slots=True)
class Findings:
    """What holding a variant to the evidence has shown.

    Attributes:
        samples: Runs that were compared.
        source: "provided" or "generated".
        faults: What is wrong, the worst of each output first.
        figures: How near each output is, on samples where there are any.
        accuracy: Labelled accuracy.
        ties: Outputs of indices that fell another way between equal scores.
        used: Largest share of the allowed float noise that was needed; of a lower precision 0.
        deferred: Kinds of requests that the variant answers otherwise than the reference.
        independent: Whether requests may share a run.
        dependence: Why not.
    """

    samples: int = 0
    source: str = "generated"
    faults: list[Fault] = field(default_factory=list)
    figures: list[OutputFigures] = field(default_factory=list)
    accuracy: Accuracy = field(default_factory=Accuracy)
    ties: list[str] = field(default_factory=list)
    used: float = 0.0
    deferred: list[str] = field(default_factory=list)
    independent: bool = False
    dependence: str = ""


def check(known: Evidence, variant: Runs, *, is_exact: bool) -> Findings:
    """Runs a variant on all that the reference was run on.

    Args:
        known: What the reference answers.
        variant: What is held to it.
        is_exact: It claims the reference's precision: only float noise is allowed. A lower
            precision is measured, and its figures are for the plan's limits to judge.
    """
    found = Findings(source=known.source)
    checking = _Checking(known, variant, found, is_exact=is_exact)
    checking.all()
    found.faults.sort(key=lambda fault: -fault.excess)
    if found.faults:
        return found
    summary = summarize(checking.pairs, known.axes, is_real=known.source == "provided")
    found.figures, found.accuracy = summary.outputs, summary.accuracy
    found.independent, found.dependence = known.independent, known.dependence
    if known.independent and (reason := checking.dependence()):
        # Rows of the pushed model do not look at each other: those of the variant must not.
        found.independent, found.dependence = False, reason
        found.faults.append(Fault("", f"answers depend on their company: {reason}"))
    return found


class _Checking:
    def __init__(self, known: Evidence, variant: Runs, found: Findings, *, is_exact: bool) -> None:
        self._known, self._variant, self._found = known, variant, found
        self._is_exact = is_exact
        self._faulty: set[str] = set()
        self.pairs: list[Pair] = []

    def all(self) -> None:
        """Compares every run, the special ones last, and after those an ordinary one again.

        Runs of one shape follow each other: an engine that gives its last answer again is met.
        """
        numbered = list(enumerate(self._known.runs))
        ordinary = [(n, run) for n, run in numbered if run.kind not in evidence.SPECIAL]
        ordinary.sort(key=lambda item: [array.shape for array in item[1].inputs.values()])
        for number, run in ordinary:
            self._found.samples += 1
            if not self.ordinary(run, number):
                return  # it can't run: nothing more is to be learned
        for _, run in numbered:
            if run.kind in evidence.SPECIAL:
                self.special(run)
                if ordinary and run.kind not in self._found.deferred:
                    self._again(*ordinary[0])

    def _again(self, number: int, run: Run) -> None:
        """Compares a run again after a special one, which may have left something behind."""
        pairs = list(self.pairs)
        self.ordinary(run, number)
        self.pairs = pairs

    def ordinary(self, run: Run, number: int) -> bool:
        """Compares one run; returns whether the variant could run it."""
        title = _title(run, number)
        try:
            answer = self._variant.run(run.inputs)
        except AdlikError as error:
            self._blame(
                Fault("", f"it can't run what the pushed model runs: {error.message}"), title
            )
            return False
        if fault := form_fault(run.expected, answer):
            self._blame(fault, title)
            return True
        if self._is_exact:
            self._compare(run, answer, title)
        else:
            self._compare_finite(run, answer, title)
        if self._is_judged(run):
            self.pairs.append(Pair(title, run.expected, answer, run.label, run.scores))
        return True

    def special(self, run: Run) -> None:
        """Notes a kind of requests that the variant does not answer as the reference does."""
        if run.kind in self._found.deferred:
            return
        try:
            answer = self._variant.run(run.inputs)
        except AdlikError:
            self._found.deferred.append(run.kind)
            return
        if form_fault(run.expected, answer) or not all(
            _alike(name, array, answer[name], self._known, run, is_exact=self._is_exact)
            for name, array in run.expected.items()
        ):
            self._found.deferred.append(run.kind)

    def dependence(self) -> str:
        """Returns how an answer of the variant depends on its company, "" where none does."""
        for group, requests in self._company():
            noise = self._known.noise.get(group, {})
            if not self._is_exact:
                noise = {name: _coarse(known) for name, known in noise.items()}
            if reason := dependence(self._variant.run, requests, noise):
                return reason
        return ""

    def _company(self) -> Iterator[tuple[str, list[Mapping[str, Array]]]]:
        """Yields sets of single rows of runs: requests that could share a run."""
        if not self._known.independent:
            return
        for run in self._known.runs:
            rows = {len(array) if array.ndim else 0 for array in run.inputs.values()}
            if run.kind in (evidence.COMPANY, evidence.DRAWN) and len(rows) == 1:
                count = rows.pop()
                if count >= 3:
                    yield (
                        run.group,
                        [
                            {name: array[at : at + 1] for name, array in run.inputs.items()}
                            for at in range(count)
                        ],
                    )

    def _compare(self, run: Run, answer: Mapping[str, Array], title: str) -> None:
        for name, array in run.expected.items():
            fault, used, tied = difference(name, array, answer[name], self._known.leeway(run, name))
            if tied and name not in self._found.ties:
                self._found.ties.append(name)
            if fault is not None:
                self._blame(fault, title)
            else:
                self._found.used = max(self._found.used, used)

    def _compare_finite(self, run: Run, answer: Mapping[str, Array], title: str) -> None:
        for name, array in run.expected.items():
            if array.dtype.kind != "f":
                continue
            wrong = np.isfinite(array) & ~np.isfinite(answer[name])
            if wrong.any():
                text = "are NaN or infinite where the pushed model's are finite"
                self._blame(Fault(name, f"{int(wrong.sum())} elements {text}"), title)

    def _is_judged(self, run: Run) -> bool:
        """Whether a run counts for the figures; of an exact claim they are for people only."""
        if self._is_exact and run.kind == evidence.CROWD:
            return False
        if self._known.source == "provided":
            return run.kind in (evidence.SAMPLE, evidence.COMPANY)
        return run.group in PLAIN

    def _blame(self, fault: Fault, title: str) -> None:
        if fault.output in self._faulty:
            return
        self._faulty.add(fault.output)
        output = f"'{fault.output}' " if fault.output else ""
        self._found.faults.append(
            Fault(fault.output, f"{title}: {output}{fault.text}", fault.excess)
        )


def _alike(
    name: str, expected: Array, found: Array, known: Evidence, run: Run, *, is_exact: bool
) -> bool:
    if is_exact:
        return difference(name, expected, found, known.leeway(run, name))[0] is None
    if expected.dtype.kind != "f":
        return bool(np.array_equal(expected, found))
    return bool(np.array_equal(np.isfinite(expected), np.isfinite(found)))


def _coarse(noise: Noise) -> Noise:
    """Returns the leeway between two runs of a lower precision."""
    share = _COMPANY_SHARE / NOISE_FACTOR * noise.spread
    return Noise(noise.axis, share, 4 * share, 0 * noise.spread, noise.step)


def _title(run: Run, number: int) -> str:
    shapes = ", ".join(f"{list(array.shape)}" for array in list(run.inputs.values())[:3])
    if run.kind in (evidence.SAMPLE, evidence.COMPANY):
        together = " (several together)" if run.kind == evidence.COMPANY else ""
        return f"sample {number}{together}"
    return f"made-up input {number} ({run.group}, {shapes})"
