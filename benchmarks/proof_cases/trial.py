"""Tries the judges on one model: right variants, sabotaged ones, and what each judge says.

    python -m benchmarks.proof_cases.trial '{"case": "clock in int64"}'

Runs in a process of its own, for engines may end it. Writes a JSON line before each variant and one
with what came of it.
"""

from __future__ import annotations

import json
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import onnx
from adlik_common.errors import AdlikError, InvalidModel
from adlik_common.samples import read_samples
from adlik_compiler.judge import Limits, Report, judge
from adlik_proof import evidence_file, gather
from adlik_proof.check import check
from adlik_proof.evidence import Evidence
from adlik_runtimes import registry

from benchmarks.proof_cases import former, rewrites, truth
from benchmarks.proof_cases.case import Feed
from benchmarks.proof_cases.corpus import case_named
from benchmarks.proof_cases.sabotage import FORMS, GROSS, WRAPPERS, Scene
from benchmarks.proof_cases.tampering import TAMPERINGS
from benchmarks.proof_cases.truth import Runs, Truth

ENGINES = ("openvino", "kernels")
CALIBRATING = 48
SHORT_SHARE = 0.5
"""Share of the variants that the short form tries."""
CLAIMS = {"weights in bf16": rewrites.bf16_weights, "weights in int8": rewrites.int8_weights}


@dataclass(frozen=True, slots=True)
class Variant:
    """Something that claims to be the model.

    Attributes:
        kind: In the table.
        label: Of this one.
        load: Loads it; may raise `AdlikError` where it is not offered.
        is_exact: It claims the model's own precision.
        is_meant_right: It was made to be right.
    """

    kind: str
    label: str
    load: Callable[[], Runs]
    is_exact: bool = True
    is_meant_right: bool = False

    @property
    def is_engine(self) -> bool:
        """Whether it is the model itself, run by another engine."""
        return self.kind.startswith("engine")


@dataclass(slots=True)
class Trial:
    """One model with its truth and the evidence of both judges."""

    name: str
    folder: Path
    truth: Truth = field(init=False)
    known: Evidence = field(init=False)
    former_inputs: list[Feed] | None = None
    scene: Scene = field(init=False)
    model: onnx.ModelProto = field(init=False)
    file: Path = field(init=False)
    gather_seconds: float = 0.0

    def __post_init__(self) -> None:
        case = case_named(self.name)
        self.model = case.model()
        self.file = self.folder / "model.onnx"
        self.file.write_bytes(self.model.SerializeToString())
        self.truth = Truth(case, self.model, self.file)
        archive = case.archive(np.random.default_rng(11)) if case.samples else None
        samples = None
        if archive is not None:
            samples = self.folder / "samples.npz"
            np.savez(samples, **archive)
        self._gather(samples)
        self.scene = Scene.of(case, self.truth, archive)
        try:
            self.former_inputs = former.inputs_of(self.truth.optimised, archive)
        except AdlikError:
            self.former_inputs = None

    @property
    def case(self):
        return self.scene.case

    def _gather(self, samples: Path | None) -> None:
        started = cpu_seconds()
        known = gather.gather(self.file, samples, gather.Effort(threads=1))
        place = self.folder / "evidence.npz"
        evidence_file.save(known, place)
        self.known = evidence_file.load(place)
        self.gather_seconds = cpu_seconds() - started

    def variants(self) -> Iterator[Variant]:
        """Yields what is made to be right, then sabotage, then the engines, which may crash."""
        yield from self._rewritten()
        yield from self._tampered()
        yield from self._wrapped()
        if self.case.samples and self.case.share == 1:
            yield Variant(
                "int8 by NNCF", "int8 by NNCF", self._quantized, is_exact=False, is_meant_right=True
            )
        for engine in ENGINES:
            yield Variant(
                f"engine: {engine}", engine, lambda e=engine: self._engine(e), is_meant_right=True
            )

    def _rewritten(self) -> Iterator[Variant]:
        for name, model in rewrites.rewritten(self.model):
            yield Variant(name, name, lambda model=model: truth.load(model), is_meant_right=True)
        for name, round_weights in CLAIMS.items():
            model = round_weights(self.model)
            if model is not None:
                yield Variant(
                    name,
                    name,
                    lambda model=model: truth.load(model),
                    is_exact=False,
                    is_meant_right=True,
                )
        yield Variant("in batches of two", "in batches of two", self._in_twos, is_meant_right=True)

    def _tampered(self) -> Iterator[Variant]:
        for kind, tamper in TAMPERINGS.items():
            for at, model in enumerate(tamper(self.model, self.case)):
                yield Variant(kind, f"{kind} #{at}", lambda model=model: truth.load(model))

    def _wrapped(self) -> Iterator[Variant]:
        for kind, wrap in WRAPPERS.items():
            for at, wrapped in enumerate(wrap(self.scene)):
                yield Variant(kind, f"{kind} #{at}", lambda wrapped=wrapped: wrapped)
                if at == 0 and kind in (GROSS if self.scene.archive else FORMS):
                    label = f"{kind} #{at} in int8"
                    yield Variant(kind, label, lambda wrapped=wrapped: wrapped, is_exact=False)

    def _engine(self, name: str) -> Runs:
        engine = registry.engine(name)
        if reason := engine.unavailable():
            raise InvalidModel(reason)
        return engine.load(self.file, precision="fp32", threads=1)

    def _quantized(self) -> Runs:
        """Returns the model in 8 bits, as the optimizer makes it of the samples."""
        from adlik_optimizer.quantize import quantizable, quantize

        if reason := quantizable(self.model):
            raise InvalidModel(reason)
        samples = read_samples(self.folder / "samples.npz", self.truth.plain.inputs)
        runs = [samples.run(at) for at in samples.calibrating()[:CALIBRATING]]
        return truth.load(
            quantize(self.model, runs, Limits().common.min_expected_accuracy)[-1].model
        )

    def _in_twos(self) -> Runs:
        """Returns the model, run on two rows at a time."""
        axes = {o.rows for o in self.scene.outputs}
        if axes != {0} or self.truth.dependence() is not False:
            raise InvalidModel("Its rows are not a batch.")
        return InTwos(self.truth.optimised)


@dataclass
class InTwos:
    """A model that is run on two rows at a time."""

    model: Runs

    def run(self, inputs: Feed) -> Feed:
        rows = len(next(iter(inputs.values())))
        if not rows:
            return self.model.run(inputs)
        parts = [
            self.model.run({n: a[at : at + 2] for n, a in inputs.items()})
            for at in range(0, rows, 2)
        ]
        return {n: np.concatenate([part[n] for part in parts]) for n in parts[0]}


def tried(trial: Trial, variant: Variant) -> dict[str, Any]:
    """Returns what is true of a variant and what both judges say of it."""
    try:
        loaded = variant.load()
    except AdlikError as error:
        return {"truth": "none", "why": error.message}
    grading = trial.truth.grade if variant.is_exact else trial.truth.grade_coarse
    graded = grading(loaded)
    if variant.is_engine:  # once more: requests without rows leave OpenVINO with old buffers
        loaded = variant.load()
    started = cpu_seconds()
    findings = check(trial.known, loaded, is_exact=variant.is_exact)
    report = Report(findings, is_exact=variant.is_exact, missing=trial.known.missing)
    verdict = judge(report, Limits())
    new_seconds = cpu_seconds() - started
    started = cpu_seconds()
    reference = truth.load(trial.model)  # as it did for every variant
    old = trial.former_inputs is not None and former.accepts(
        reference, loaded, trial.former_inputs, provided=trial.known.source == "provided"
    )
    return {
        "truth": graded.grade,
        "text": graded.text,
        "kinds": sorted(graded.kinds),
        "deferred": findings.deferred,
        "new": verdict.accepted,
        "old": old,
        "why": " ".join(verdict.reasons)[:400],
        "new_seconds": new_seconds,
        "old_seconds": cpu_seconds() - started,
    }


def main(order: dict[str, Any]) -> None:
    """Tries all variants of a model but those that were tried."""
    with tempfile.TemporaryDirectory() as folder:
        say({"begin": "evidence"})
        trial = Trial(order["case"], Path(folder))
        dependent = trial.truth.dependence()
        say(
            {
                "gather_seconds": trial.gather_seconds,
                "missing": trial.known.missing,
                "runs": len(trial.known.runs),
                "independent": trial.known.independent,
                "dependent": dependent,
                "dependence": trial.known.dependence,
            }
        )
        give_up = monotonic() + order.get("seconds", 1e9)
        pick = random.Random(f"{order.get('seed', 0)} {trial.name}")
        share = trial.case.share * (SHORT_SHARE if order.get("short") else 1.0)
        variants = list(trial.variants())
        if trial.case.share < 1:  # time may be up before the last
            pick.shuffle(variants)
        for variant in variants:
            if monotonic() > give_up:
                say({"time": "up"})
                return
            if pick.random() > share and not variant.is_engine:
                continue
            if order.get("short") and (variant.is_engine or "NNCF" in variant.kind):
                continue
            if variant.label in order.get("done", ()):
                continue
            say(
                {
                    "begin": variant.label,
                    "kind": variant.kind,
                    "exact": variant.is_exact,
                    "right": variant.is_meant_right,
                }
            )
            say(tried(trial, variant))


def cpu_seconds() -> float:
    """Returns the processor time of this process and of its children that have ended."""
    return sum(os.times()[:4])


def say(line: dict[str, Any]) -> None:
    print(json.dumps(line, default=str), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
