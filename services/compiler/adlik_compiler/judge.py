"""Decides whether a measured variant may be released, and says why in words."""

from __future__ import annotations

from dataclasses import dataclass

MIN_SAMPLES_FOR_TOP1 = 8


@dataclass(frozen=True, slots=True)
class Limits:
    """What a variant must reach.

    Attributes:
        min_cosine: Smallest mean cosine similarity to the reference, 0..1.
        min_top1_agreement: Smallest share of samples with the reference's arg-max, 0..1.
        max_accuracy_drop: Largest loss of labelled accuracy, in points (0..100).
    """

    min_cosine: float = 0.98
    min_top1_agreement: float = 0.9
    max_accuracy_drop: float = 1.0


@dataclass(frozen=True, slots=True)
class Report:
    """What running a variant beside the reference has shown.

    Attributes:
        samples: How many runs were compared.
        samples_source: "provided" or "generated".
        identical: The variant is the reference itself, byte for byte, on the same engine.
        max_abs_error: Largest difference of any output element.
        mean_abs_error: Mean difference of the output elements.
        cosine: Mean over samples, all float outputs flattened.
        top1_agreement: Share of samples with the same arg-max; None where it says nothing.
        accuracy: Share of labelled samples that the variant answers right.
        reference_accuracy: The same of the reference.
        not_finite: Output elements that are NaN or infinite in the variant only.
        mismatch: How the outputs differ in name or shape, "" where they do not.
        compared: Whether any output value could be compared.
        failure: Why the variant could not be run on a sample that the reference ran, or "".
        p50_ms: Median latency of batch 1, milliseconds.
        p99_ms: 99th percentile.
        reference_p50_ms: Median latency of the reference.
        reference_p99_ms: Its 99th percentile.
        runs: Timed runs of each.
        memory_bytes: Resident memory that loading and running the variant added.
        threads: Threads of either engine.
    """

    samples: int
    samples_source: str
    identical: bool = False
    max_abs_error: float = 0.0
    mean_abs_error: float = 0.0
    cosine: float = 0.0
    top1_agreement: float | None = None
    accuracy: float | None = None
    reference_accuracy: float | None = None
    not_finite: int = 0
    mismatch: str = ""
    compared: bool = True
    failure: str = ""
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    reference_p50_ms: float = 0.0
    reference_p99_ms: float = 0.0
    runs: int = 0
    memory_bytes: int = 0
    threads: int = 0

    @property
    def speedup(self) -> float:
        """How many times faster than the reference by median latency; 0 where not measured."""
        if self.identical:
            return 1.0
        return self.reference_p50_ms / self.p50_ms if self.p50_ms else 0.0


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
    if fault := _fault(report):
        return Verdict(accepted=False, reasons=(fault,))
    if report.identical:
        return Verdict(
            accepted=True,
            reasons=("It is the pushed model itself, which the other variants are judged by.",),
        )
    checks = [_cosine(report, limits), _top1(report, limits), _accuracy(report, limits)]
    said = [check for check in checks if check is not None]
    failed = tuple(text for passed, text in said if not passed)
    return Verdict(accepted=not failed, reasons=failed or tuple(text for _, text in said))


def _fault(report: Report) -> str:
    if report.failure:
        return f"It could not run a sample that the pushed model runs: {report.failure}"
    if report.mismatch:
        return f"Its outputs are not the pushed model's: {report.mismatch}."
    if report.not_finite:
        return (
            f"{report.not_finite} output values are NaN or infinite where the pushed model's "
            "are finite."
        )
    if not report.compared:
        return (
            "Nothing could be compared: the pushed model gives no finite numbers on "
            f"{_count(report)}. Push samples on which it does."
        )
    return ""


def _cosine(report: Report, limits: Limits) -> tuple[bool, str]:
    passed = report.cosine >= limits.min_cosine
    relation = "reaches" if passed else "is below"
    return passed, (
        f"Cosine similarity {report.cosine:.5f} {relation} the limit of {limits.min_cosine:g} "
        f"({_count(report)})."
    )


def _top1(report: Report, limits: Limits) -> tuple[bool, str] | None:
    if report.samples_source == "generated":
        return True, (
            "Top-1 agreement was not judged: on generated samples the classes mean nothing; "
            "push samples to have it checked."
        )
    if report.top1_agreement is None:
        return None
    share = f"Top-1 agreement {report.top1_agreement:.1%}"
    if report.samples < MIN_SAMPLES_FOR_TOP1:
        return True, (
            f"{share} was not judged: {report.samples} samples are fewer than the "
            f"{MIN_SAMPLES_FOR_TOP1} it takes."
        )
    passed = report.top1_agreement >= limits.min_top1_agreement
    relation = "reaches" if passed else "is below"
    return passed, f"{share} {relation} the limit of {limits.min_top1_agreement:.1%}."


def _accuracy(report: Report, limits: Limits) -> tuple[bool, str] | None:
    if report.accuracy is None or report.reference_accuracy is None:
        return None
    drop = 100 * (report.reference_accuracy - report.accuracy)
    # One sample of a hundred is a point exactly; rounding must not decide.
    passed = drop <= limits.max_accuracy_drop + 1e-9
    relation = "within" if passed else "over"
    return passed, (
        f"Accuracy {report.accuracy:.2%} against {report.reference_accuracy:.2%}: a drop of "
        f"{drop:.2f} points is {relation} the limit of {limits.max_accuracy_drop:g}."
    )


def _count(report: Report) -> str:
    return f"{report.samples} {report.samples_source} sample{'s' if report.samples != 1 else ''}"
