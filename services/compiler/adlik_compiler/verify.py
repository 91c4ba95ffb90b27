"""Runs a compiled variant beside the pushed model and measures both, in a child process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from adlik_common import bundle
from adlik_common.errors import AdlikError
from adlik_runtimes import kernels, onnxruntime, registry
from adlik_runtimes.engine import LoadedModel, return_memory

from adlik_compiler.fidelity import Comparison
from adlik_compiler.judge import Report
from adlik_compiler.measure import measure_in_turns, resident_bytes
from adlik_compiler.onnx_source import self_contained
from adlik_compiler.samples import Samples, generate_samples, read_samples

MIN_SAMPLES = 8
"""Compared even where that takes longer than the time set for it."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A compiled variant.

    Attributes:
        path: Its artifact.
        media_type: Of the artifact.
        engine: Engine to run it with.
        precision: Precision to run it in.
        is_reference: It is the pushed model itself, for ONNX Runtime.
    """

    path: str
    media_type: str
    engine: str
    precision: str
    is_reference: bool = False


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured.

    Attributes:
        threads: Threads of either engine; 0: as many as this process may use cores.
        max_samples: Most samples that are compared.
        compare_seconds: Time after which no more samples are compared.
        latency_seconds: About how long latency is measured.
        max_bundle_bytes: Largest size of an unpacked bundle.
    """

    threads: int = 0
    max_samples: int = 128
    compare_seconds: float = 10.0
    latency_seconds: float = 0.5
    max_bundle_bytes: int = 4 * 2**30


def verify_variant(
    reference: str, candidate: Mapping[str, Any], samples: str, effort: Mapping[str, Any]
) -> dict[str, Any]:
    """Measures a variant; what `run_isolated` calls, so arguments and result are JSON-able.

    Args:
        reference: The pushed ONNX file, its external files beside it.
        candidate: Fields of a `Candidate`.
        samples: NPZ file; "": samples are made up.
        effort: Fields of an `Effort`.

    Returns:
        The fields of a `judge.Report`.

    Raises:
        InvalidSamples: The samples do not fit the model.
        AdlikError: One of the models could not be loaded, or the reference not run.
    """
    work = Effort(**effort)
    variant = Candidate(**candidate)
    threads = work.threads or len(os.sched_getaffinity(0))
    if variant.is_reference:
        return asdict(_measure_reference(variant, samples, work, threads))
    pushed = self_contained(Path(reference), Path.cwd())
    judged_by = onnxruntime.ENGINE.load(pushed, threads=threads)
    chosen = _choose(samples, judged_by, work)
    judged_by.run(chosen.runs[0])
    loaded, memory = _load(variant, chosen, work, threads)
    comparison, failure = _compare(judged_by, loaded, chosen, work.compare_seconds)
    if failure:
        return asdict(
            Report(samples=comparison.runs, samples_source=chosen.source, failure=failure)
        )
    run = chosen.runs[0]
    theirs, ours = measure_in_turns(
        [partial(judged_by.run, run), partial(loaded.run, run)], work.latency_seconds
    )
    is_generated = chosen.source == "generated"
    return asdict(
        Report(
            samples=comparison.runs,
            samples_source=chosen.source,
            max_abs_error=comparison.max_abs_error,
            mean_abs_error=comparison.mean_abs_error,
            cosine=comparison.cosine,
            # The arg-max of an answer to noise is chance: it would only mislead.
            top1_agreement=None if is_generated else comparison.top1_agreement,
            accuracy=comparison.accuracy,
            reference_accuracy=comparison.reference_accuracy,
            not_finite=comparison.not_finite,
            mismatch=comparison.mismatch,
            compared=comparison.compared > 0,
            p50_ms=ours.p50_ms,
            p99_ms=ours.p99_ms,
            reference_p50_ms=theirs.p50_ms,
            reference_p99_ms=theirs.p99_ms,
            runs=ours.runs,
            memory_bytes=memory,
            threads=threads,
        )
    )


def _measure_reference(variant: Candidate, samples: str, work: Effort, threads: int) -> Report:
    """Measures the pushed model alone: compared with itself it would only take time."""
    onnxruntime.ENGINE.unavailable()  # as in `_load`
    before = resident_bytes()
    model = onnxruntime.ENGINE.load(Path(variant.path), threads=threads)
    chosen = _choose(samples, model, work)
    model.run(chosen.runs[0])
    memory = resident_bytes() - before
    comparison = Comparison()
    if chosen.labels is not None:  # its accuracy is all that a comparison can tell
        comparison, _ = _compare(model, None, chosen, work.compare_seconds)
    (latency,) = measure_in_turns([partial(model.run, chosen.runs[0])], work.latency_seconds)
    return Report(
        samples=comparison.runs or len(chosen.runs),
        samples_source=chosen.source,
        identical=True,
        cosine=1.0,
        top1_agreement=comparison.top1_agreement,
        accuracy=comparison.accuracy,
        reference_accuracy=comparison.reference_accuracy,
        p50_ms=latency.p50_ms,
        p99_ms=latency.p99_ms,
        reference_p50_ms=latency.p50_ms,
        reference_p99_ms=latency.p99_ms,
        runs=latency.runs,
        memory_bytes=max(0, memory),
        threads=threads,
    )


def _choose(samples: str, model: LoadedModel, work: Effort) -> Samples:
    if samples:
        return read_samples(Path(samples), model.inputs, limit=work.max_samples)
    return generate_samples(model)


def _load(
    variant: Candidate, samples: Samples, work: Effort, threads: int
) -> tuple[LoadedModel, int]:
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
    loaded = engine.load(path, precision=variant.precision, threads=threads)
    with contextlib.suppress(AdlikError):  # the comparison meets it again and reports it
        loaded.run(samples.runs[0])
    return loaded, max(0, resident_bytes() - before)


def _compare(
    reference: LoadedModel, candidate: LoadedModel | None, samples: Samples, seconds: float
) -> tuple[Comparison, str]:
    """Returns the comparison over the samples, and why the candidate failed on one, or ""."""
    comparison = Comparison()
    give_up = monotonic() + seconds
    for at, run in enumerate(samples.runs):
        if at >= MIN_SAMPLES and monotonic() > give_up:
            break
        expected = reference.run(run)
        label = None if samples.labels is None else int(samples.labels[at])
        if candidate is None:
            comparison.add(expected, expected, label)
            continue
        try:
            found = candidate.run(run)
        except AdlikError as error:
            return comparison, error.message
        comparison.add(expected, found, label)
    return comparison, ""
