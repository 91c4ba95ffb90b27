"""The message of what verifying a variant has shown."""

from __future__ import annotations

from adlik_proof.figures import SCORES, OutputFigures
from adlik_proto.adlik.model.v1 import model_pb2
from adlik_runtimes import cpu

from adlik_compiler.judge import Limits, OutputLimits, Report, Verdict

_OUTPUT_LIMITS = (
    "min_r2", "min_expected_accuracy", "min_sure_agreement", "min_objects_kept", "max_abs_error",
)  # fmt: skip


def limits_of(limits: model_pb2.Limits) -> Limits:
    """Returns a plan's limits, with the defaults where it sets none."""
    common = _set_in(limits)
    outputs = {
        name: OutputLimits(**{**common, **_set_in(own)}) for name, own in limits.outputs.items()
    }
    drop = {}
    if limits.HasField("max_accuracy_drop"):
        drop["max_accuracy_drop"] = limits.max_accuracy_drop
    return Limits(common=OutputLimits(**common), outputs=outputs, **drop)


def _set_in(limits: model_pb2.Limits | model_pb2.OutputLimits) -> dict[str, float]:
    return {
        field.name: value for field, value in limits.ListFields() if field.name in _OUTPUT_LIMITS
    }


def describe(report: Report, verdict: Verdict, *, batching: str = "auto") -> model_pb2.Verification:
    """Returns the message of a report and the decision about it.

    Args:
        report: What was measured.
        verdict: The decision.
        batching: The plan's; "off": requests never share a run.
    """
    found = report.findings
    message = model_pb2.Verification(
        samples=found.samples,
        samples_source=found.source,
        fidelity=_fidelity(report),
        latency=model_pb2.Latency(p50_ms=report.p50_ms, p99_ms=report.p99_ms, runs=report.runs),
        reference_latency=model_pb2.Latency(
            p50_ms=report.reference_p50_ms, p99_ms=report.reference_p99_ms, runs=report.runs
        ),
        speedup=report.speedup,
        memory_bytes=report.memory_bytes,
        accepted=verdict.accepted,
        reasons=verdict.reasons,
        serving=model_pb2.Serving(
            independent_rows=found.independent and batching != "off",
            dependence="the plan's batching is off" if batching == "off" else found.dependence,
            deferred=found.deferred,
            refused=report.refused,
        ),
    )
    if found.accuracy.rows:
        message.reference_accuracy = found.accuracy.reference_right / found.accuracy.rows
        message.accuracy = found.accuracy.right / found.accuracy.rows
    message.machine = f"{cpu.model_name()}, {report.threads} threads, {report.sizes or 'no inputs'}"
    return message


def _fidelity(report: Report) -> model_pb2.Fidelity:
    figures = report.findings.figures
    fidelity = model_pb2.Fidelity(
        max_abs_error=max((f.max_error for f in figures), default=0.0),
        cosine=min((f.cosine for f in figures), default=1.0 if report.identical else 0.0),
        r2=min((f.r2 for f in figures), default=1.0 if report.identical else 0.0),
        outputs=[_output(f) for f in figures],
        noise_used=report.findings.used,
    )
    scores = next((f for f in figures if f.kind == SCORES), None)
    if scores is not None:
        fidelity.top1_agreement = scores.agreement or 0.0
        fidelity.expected_accuracy = scores.expected_accuracy or 0.0
    return fidelity


def _output(figures: OutputFigures) -> model_pb2.OutputFidelity:
    low, high = figures.interval
    return model_pb2.OutputFidelity(
        name=figures.name,
        kind=figures.kind,
        r2=figures.r2,
        snr_db=figures.snr_db,
        cosine=figures.cosine,
        max_abs_error=figures.max_error,
        max_spreads=figures.max_spreads,
        worst=figures.worst,
        expected_accuracy=figures.expected_accuracy,
        expected_accuracy_low=low,
        expected_accuracy_high=high,
        sure_agreement=figures.sure_agreement,
        agreement=figures.agreement,
        objects_kept=figures.objects_kept,
        exact_share=figures.exact_share,
    )
