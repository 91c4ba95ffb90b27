"""What verification runs in child processes: the reference alone, its evidence, and variants."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from adlik_common import bundle
from adlik_common.errors import AdlikError
from adlik_proof import evidence_file, first_look, gather
from adlik_proof.check import Findings, check
from adlik_proof.evidence import Evidence
from adlik_proof.figures import Accuracy, Pair, summarize
from adlik_proof.reference import Reference
from adlik_runtimes import kernels, onnxruntime, registry
from adlik_runtimes.engine import LoadedModel, return_memory

from adlik_compiler.judge import Report
from adlik_compiler.measure import Latency, measure_in_turns, resident_bytes
from adlik_compiler.onnx_source import self_contained

EXACT_PRECISIONS = frozenset({"fp32"})
"""Precisions whose variants may differ from the pushed model by float noise only."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A compiled variant.

    Attributes:
        path: Its artifact.
        media_type: Of the artifact.
        engine: Engine to run it with.
        precision: Precision to run it in, and what it claims to be.
    """

    path: str
    media_type: str
    engine: str
    precision: str


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured.

    Attributes:
        threads: Threads of either engine; 0: as many as this process may use cores.
        max_samples: Most samples that are compared.
        compare_seconds: Time after which no more samples are run.
        latency_seconds: About how long latency is measured.
        max_bundle_bytes: Largest size of an unpacked bundle.
        sizes: Sizes of open axes that the plan names.
    """

    threads: int = 0
    max_samples: int = 128
    compare_seconds: float = 10.0
    latency_seconds: float = 0.5
    max_bundle_bytes: int = 4 * 2**30
    sizes: Mapping[str, int] = field(default_factory=dict)

    def cores(self) -> int:
        """Returns the threads of an engine."""
        return self.threads or len(os.sched_getaffinity(0))

    def gathering(self) -> gather.Effort:
        """Returns how much evidence is gathered."""
        return gather.Effort(
            threads=self.cores(),
            max_samples=self.max_samples,
            seconds=self.compare_seconds / 2,  # the other half is for made-up inputs
            sizes=self.sizes,
        )


def verify_reference(model: str, samples: str, effort: Mapping[str, Any]) -> dict[str, Any]:
    """Measures the pushed model alone, and what must be known before it is served.

    Args:
        model: The pushed ONNX file, its external files beside it.
        samples: NPZ file; "": samples are made up.
        effort: Fields of an `Effort`.

    Returns:
        A `judge.Report` as plain values.

    Raises:
        InvalidSamples: The samples do not fit the model.
        AdlikError: It could not be loaded.
    """
    work = Effort(**effort)
    onnxruntime.ENGINE.unavailable()  # as in `_load`
    path = self_contained(Path(model), Path.cwd())
    before = resident_bytes()
    reference = Reference(path, work.cores())
    known = first_look.look(reference, Path(samples) if samples else None, work.gathering())
    findings = Findings(
        samples=len(known.runs) or 1,  # what it is timed on
        source=known.source,
        independent=known.independent,
        dependence=known.dependence,
        accuracy=_own_accuracy(known),
    )
    report = Report(
        findings=findings,
        identical=True,
        missing=known.missing,
        memory_bytes=max(0, resident_bytes() - before),
        threads=work.cores(),
        refused=tuple(known.unrunnable),
        sizes=_shapes(known),
    )
    if known.missing:
        return report.as_dict()
    (latency,) = measure_in_turns([partial(reference.model.run, known.timed)], work.latency_seconds)
    return _with_latency(report, latency, latency)


def gather_evidence(
    model: str, samples: str, out: str, effort: Mapping[str, Any]
) -> dict[str, Any]:
    """Writes what the pushed model answers; see `verify_reference` for the arguments.

    Args:
        model: The pushed ONNX file, its external files beside it.
        samples: NPZ file; "": samples are made up.
        out: File to write.
        effort: Fields of an `Effort`.

    Returns:
        `runs`: how many inputs it was run on.
    """
    work = Effort(**effort)
    path = self_contained(Path(model), Path.cwd())
    known = gather.gather(path, Path(samples) if samples else None, work.gathering())
    evidence_file.save(known, Path(out))
    return {"runs": len(known.runs)}


def verify_variant(
    reference: str, candidate: Mapping[str, Any], evidence: str, effort: Mapping[str, Any]
) -> dict[str, Any]:
    """Holds a variant to the evidence and measures it beside the pushed model.

    Args:
        reference: The pushed ONNX file, its external files beside it.
        candidate: Fields of a `Candidate`.
        evidence: File that `gather_evidence` has written.
        effort: Fields of an `Effort`.

    Returns:
        A `judge.Report` as plain values.

    Raises:
        AdlikError: One of the models could not be loaded.
    """
    work, variant = Effort(**effort), Candidate(**candidate)
    known = evidence_file.load(Path(evidence))
    is_exact = variant.precision in EXACT_PRECISIONS
    if known.missing:
        return Report(missing=known.missing, is_exact=is_exact).as_dict()
    pushed = self_contained(Path(reference), Path.cwd())
    judged_by = onnxruntime.ENGINE.load(pushed, threads=work.cores())
    judged_by.run(known.timed)
    loaded, memory = _load(variant, known, work)
    findings = check(known, loaded, is_exact=is_exact)
    report = Report(
        findings=findings,
        is_exact=is_exact,
        shared=known.shared,
        sizes=_shapes(known),
        memory_bytes=memory,
        threads=work.cores(),
        refused=tuple(known.unrunnable),
    )
    if findings.faults:  # of what is wrong the speed does not matter
        return report.as_dict()
    theirs, ours = measure_in_turns(
        [partial(judged_by.run, known.timed), partial(loaded.run, known.timed)],
        work.latency_seconds,
    )
    return _with_latency(report, ours, theirs)


def _with_latency(report: Report, ours: Latency, theirs: Latency) -> dict[str, Any]:
    timed = replace(
        report,
        p50_ms=ours.p50_ms,
        p99_ms=ours.p99_ms,
        reference_p50_ms=theirs.p50_ms,
        reference_p99_ms=theirs.p99_ms,
        runs=ours.runs,
    )
    return timed.as_dict()


def _load(variant: Candidate, known: Evidence, work: Effort) -> tuple[LoadedModel, int]:
    """Returns the loaded variant and the resident memory that loading and running it added."""
    engine = registry.engine(variant.engine)
    engine.unavailable()  # imports the engine: its code is no part of the model's memory
    path = Path(variant.path)
    if variant.engine == kernels.ENGINE.name:
        kernels.keep_records_in(Path.cwd())
    if variant.media_type == bundle.MEDIA_TYPE:
        folder = Path.cwd() / "candidate"
        folder.mkdir()
        bundle.unpack(path, folder, max_bytes=work.max_bundle_bytes)
        path = folder
    return_memory()
    before = resident_bytes()
    loaded = engine.load(path, precision=variant.precision, threads=work.cores())
    with contextlib.suppress(AdlikError):  # the check meets it again and reports it
        loaded.run(known.timed)
    return loaded, max(0, resident_bytes() - before)


def _own_accuracy(known: Evidence) -> Accuracy:
    """Returns how many labelled samples the reference itself answers right."""
    pairs = [
        Pair("", run.expected, run.expected, run.label)
        for run in known.runs
        if run.label is not None
    ]
    return summarize(pairs, {}, is_real=False).accuracy


def _shapes(known: Evidence) -> str:
    return ", ".join(f"{name} {list(array.shape)}" for name, array in known.timed.items())
