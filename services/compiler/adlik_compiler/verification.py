"""The message of what verifying a variant has shown."""

from __future__ import annotations

from adlik_proto.adlik.model.v1 import model_pb2
from adlik_runtimes import cpu

from adlik_compiler.judge import Limits, Report, Verdict


def limits_of(limits: model_pb2.Limits) -> Limits:
    """Returns a plan's limits, with the defaults where it sets none."""
    return Limits(
        **{
            name: getattr(limits, name)
            for name in ("min_cosine", "min_top1_agreement", "max_accuracy_drop")
            if limits.HasField(name)
        }
    )


def describe(report: Report, verdict: Verdict) -> model_pb2.Verification:
    """Returns the message of a report and the decision about it."""
    message = model_pb2.Verification(
        samples=report.samples,
        samples_source=report.samples_source,
        fidelity=model_pb2.Fidelity(
            max_abs_error=report.max_abs_error,
            mean_abs_error=report.mean_abs_error,
            cosine=report.cosine,
            top1_agreement=report.top1_agreement,
        ),
        accuracy=report.accuracy,
        reference_accuracy=report.reference_accuracy,
        latency=model_pb2.Latency(p50_ms=report.p50_ms, p99_ms=report.p99_ms, runs=report.runs),
        reference_latency=model_pb2.Latency(
            p50_ms=report.reference_p50_ms, p99_ms=report.reference_p99_ms, runs=report.runs
        ),
        speedup=report.speedup,
        memory_bytes=report.memory_bytes,
        accepted=verdict.accepted,
        reasons=verdict.reasons,
    )
    message.machine = f"{cpu.model_name()}, {report.threads} threads, batch 1"
    return message
