"""Decides whether a variant may be released, and says why in words.

A variant that claims the pushed model's precision may differ by float noise only; what was found is
in `Findings.faults`. A lower precision is measured, and held to the plan's limits: each output by
what it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from adlik_proof.check import Findings
from adlik_proof.figures import DETECTIONS, EXACT, NUMBERS, SCORES, Accuracy, OutputFigures
from adlik_proof.sameness import Fault

LEAST_SHARE = 0.5
"""No single column (a class, a coordinate) and no single run may lose more than half."""
MAX_FAULTS = 3


@dataclass(frozen=True, slots=True)
class OutputLimits:
    """What one output of a lower precision must reach.

    Attributes:
        min_r2: Smallest share of the variance that is kept; None: 0.98, and 0.9 of class scores and
            detections, which are judged by what they decide.
        min_expected_accuracy: Smallest expected accuracy of class scores, 0..1.
        min_sure_agreement: Smallest share of the same class where the reference is sure, 0..1.
        min_objects_kept: Smallest F1 of objects against the reference's, 0..1.
        max_abs_error: Largest difference of an element; None: no limit.
    """

    min_r2: float | None = None
    min_expected_accuracy: float = 0.98
    min_sure_agreement: float = 0.95
    min_objects_kept: float = 0.9
    max_abs_error: float | None = None

    def r2_of(self, kind: str) -> float:
        """Returns the limit of an output of this kind."""
        if self.min_r2 is not None:
            return self.min_r2
        return 0.9 if kind in (SCORES, DETECTIONS) else 0.98

    def least_share(self, kind: str) -> float:
        """Returns what the worst column and the worst run must keep, in an output of this kind."""
        return min(LEAST_SHARE, self.r2_of(kind))


@dataclass(frozen=True, slots=True)
class Limits:
    """What a variant must reach.

    Attributes:
        common: For all outputs.
        outputs: For single ones, by name.
        max_accuracy_drop: Largest loss of labelled accuracy, in points (0..100).
    """

    common: OutputLimits = field(default_factory=OutputLimits)
    outputs: Mapping[str, OutputLimits] = field(default_factory=dict)
    max_accuracy_drop: float = 1.0

    def of(self, output: str) -> OutputLimits:
        """Returns the limits of an output."""
        return self.outputs.get(output, self.common)


@dataclass(frozen=True, slots=True)
class Report:
    """What running a variant beside the reference has shown.

    Attributes:
        findings: How it holds to the evidence.
        identical: It is the pushed model itself.
        is_exact: It claims the pushed model's precision.
        missing: Why there was nothing to judge by, "" where there was.
        shared: Samples that calibrated also judged.
        p50_ms: Median latency, milliseconds.
        p99_ms: 99th percentile.
        reference_p50_ms: Median latency of the reference.
        reference_p99_ms: Its 99th percentile.
        runs: Timed runs of each.
        sizes: Shapes that were timed, in words.
        memory_bytes: Resident memory that loading and running the variant added.
        threads: Threads of either engine.
        refused: Kinds of requests that the pushed model itself can't run.
    """

    findings: Findings = field(default_factory=Findings)
    identical: bool = False
    is_exact: bool = True
    missing: str = ""
    shared: bool = False
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    reference_p50_ms: float = 0.0
    reference_p99_ms: float = 0.0
    runs: int = 0
    sizes: str = ""
    memory_bytes: int = 0
    threads: int = 0
    refused: tuple[str, ...] = ()

    @property
    def speedup(self) -> float:
        """How many times faster than the reference by median latency; 0 where not measured."""
        if self.identical:
            return 1.0
        return self.reference_p50_ms / self.p50_ms if self.p50_ms else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Returns JSON-able fields."""
        return asdict(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Report:
        """Returns what `as_dict` gave away, after JSON."""
        found = dict(values["findings"])
        found["faults"] = [Fault(**fault) for fault in found["faults"]]
        found["figures"] = [
            OutputFigures(**{**figures, "interval": tuple(figures["interval"])})
            for figures in found["figures"]
        ]
        found["accuracy"] = Accuracy(**found["accuracy"])
        plain = {f.name: values[f.name] for f in fields(cls) if f.name != "findings"}
        plain["refused"] = tuple(plain["refused"])
        return cls(findings=Findings(**found), **plain)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision and its reasons, a sentence each."""

    accepted: bool
    reasons: tuple[str, ...]


def judge(report: Report, limits: Limits) -> Verdict:
    """Returns whether a variant may be released.

    Args:
        report: What was measured.
        limits: What it must reach.
    """
    if report.identical:
        return Verdict(accepted=True, reasons=tuple(_of_itself(report)))
    if report.missing:
        reason = (
            f"It can't be judged: {report.missing}. The pushed model is served; push samples "
            "(--data) to have variants made and verified."
        )
        return Verdict(accepted=False, reasons=(reason,))
    found = report.findings
    if found.faults:
        said = tuple(f"{_sentence(fault.text)}." for fault in found.faults[:MAX_FAULTS])
        return Verdict(accepted=False, reasons=said)
    checks = [*_checks(report, limits)]
    failed = tuple(text for passed, text in checks if not passed)
    if failed:
        return Verdict(accepted=False, reasons=failed)
    return Verdict(accepted=True, reasons=(*(text for _, text in checks), *_notes(report)))


def _of_itself(report: Report) -> Iterator[str]:
    yield "It is the pushed model itself, which the other variants are judged by."
    if report.missing:
        yield f"No variant can be judged: {report.missing}; push samples (--data)."


Check = tuple[bool, str]


def _checks(report: Report, limits: Limits) -> Iterator[Check]:
    found = report.findings
    kind = "samples among them" if found.source == "provided" else "made up"
    if report.is_exact:
        count = f"{found.samples} inputs, {kind}"
        yield True, f"Every output is the pushed model's within its float noise ({count})."
    for figures in found.figures:
        own = limits.of(figures.name)
        if not report.is_exact:
            yield from _nearness(figures, own)
        if own.max_abs_error is not None:
            largest = f"'{figures.name}': the largest error of {figures.max_error:.4g}"
            passed = figures.max_error <= own.max_abs_error
            relation = "is within" if passed else "is over"
            yield passed, f"{largest} {relation} the limit of {own.max_abs_error:g}."
    yield from _accuracy(report, limits)


def _nearness(figures: OutputFigures, own: OutputLimits) -> Iterator[Check]:
    if figures.kind != EXACT:
        kept = f"R² {figures.r2:.4f} ({figures.snr_db:.1f} dB)"
        yield _reaches(figures, kept, figures.r2, own.r2_of(figures.kind))
        if figures.column_r2 is not None:
            kept = f"R² {figures.column_r2:.4f} of its worst column"
            yield _reaches(figures, kept, figures.column_r2, own.least_share(figures.kind))
    elif figures.expected_accuracy is None and figures.exact_share is not None:
        kept = f"{figures.exact_share:.2%} of the values equal"
        yield _reaches(figures, kept, figures.exact_share, own.min_sure_agreement, "%")
    if figures.run_share is not None and figures.kind in (NUMBERS, EXACT):
        kept = f"{figures.run_share:.4f} of its worst run"
        yield _reaches(figures, kept, figures.run_share, own.least_share(figures.kind))
    if figures.expected_accuracy is not None:
        low, high = figures.interval
        kept = f"expected accuracy {figures.expected_accuracy:.1%} ({low:.1%} to {high:.1%})"
        yield _reaches(figures, kept, figures.expected_accuracy, own.min_expected_accuracy, "%")
    if figures.sure_agreement is not None:
        kept = f"{figures.sure_agreement:.1%} of its {figures.sure} sure classes"
        yield _reaches(figures, kept, figures.sure_agreement, own.min_sure_agreement, "%")
    if figures.objects_kept is not None:
        kept = f"{figures.objects_kept:.1%} of {figures.objects} objects (F1)"
        yield _reaches(figures, kept, figures.objects_kept, own.min_objects_kept, "%")


def _reaches(
    figures: OutputFigures, kept: str, value: float, limit: float, unit: str = ""
) -> Check:
    """Returns whether a figure reaches its limit, and says so; of a fault where it is worst."""
    needed = f"{limit:.1%}" if unit else f"{limit:g}"
    if value >= limit:
        return True, f"'{figures.name}' keeps {kept}; {needed} is needed."
    where = f"; the largest error is at {figures.worst}" if figures.worst else ""
    return False, f"'{figures.name}' keeps only {kept}; {needed} is needed{where}."


def _accuracy(report: Report, limits: Limits) -> Iterator[Check]:
    counted = report.findings.accuracy
    if not counted.rows:
        return
    accuracy, reference = counted.right / counted.rows, counted.reference_right / counted.rows
    drop = 100 * (reference - accuracy)
    # One sample of a hundred is a point exactly; rounding must not decide.
    passed = drop <= limits.max_accuracy_drop + 1e-9
    relation = "within" if passed else "over"
    said = f"Accuracy {accuracy:.2%} against {reference:.2%}: a drop of {drop:.2f} points"
    yield passed, f"{said} is {relation} the limit of {limits.max_accuracy_drop:g}."


_KINDS = {
    "nonfinite": "with NaN or infinite numbers",
    "wide": "with whole numbers beyond 32 bits",
    "empty": "without elements",
}


def _notes(report: Report) -> Iterator[str]:
    found = report.findings
    for output in found.ties:
        yield f"'{output}' fell another way between scores that are equal within float noise."
    if found.deferred:
        kinds = " and ".join(_KINDS.get(kind, kind) for kind in found.deferred)
        yield f"Requests {kinds} are answered by the pushed model: this engine's answers differ."
    if report.shared:
        yield "The samples that calibrated also judged: there are too few to hold some apart."
    if found.source == "generated" and not report.is_exact:
        yield "Classes were not judged: on made-up inputs they mean nothing; push samples (--data)."


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
