"""What a reference model answers, on which inputs, and how surely: what its variants are held to.

It is gathered once for a version. The reference runs as it is served, once more without any
optimisation of the engine, and once more on inputs that are moved by one unit in the last place:
what differs between these is its float noise, and a variant of the same precision may differ by a
small multiple of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from adlik_proof.noise import Noise
from adlik_proof.sameness import Leeway

Array = np.ndarray[Any, np.dtype[Any]]

SAMPLE, COMPANY, DRAWN, CROWD = "sample", "company", "drawn", "crowd"
NONFINITE, WIDE, EMPTY = "nonfinite", "wide", "empty"
SPECIAL = (NONFINITE, WIDE, EMPTY)
"""Kinds of requests that serving can tell apart: the pushed model answers them, or nobody."""


@dataclass(frozen=True, slots=True)
class Run:
    """Inputs and what the reference answers.

    Attributes:
        kind: A pushed sample, several of them together, made-up inputs, many rows of those, or
            inputs with NaN and infinities, with whole numbers beyond 32 bits, or without rows.
        group: Runs whose outputs are of one scale and share their noise.
        inputs: By name.
        expected: The reference's outputs by name.
        label: The right class where it is known.
        unsure: Elements of outputs that the reference itself changes, by name.
        scores: What outputs of indices were chosen among, by output.
    """

    kind: str
    group: str
    inputs: Mapping[str, Array]
    expected: Mapping[str, Array]
    label: int | None = None
    unsure: Mapping[str, Array] = field(default_factory=dict)
    scores: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a reference.

    Attributes:
        source: "provided" or "generated" samples.
        runs: What was run.
        noise: Of each group and output.
        scores_noise: Noise of the scores behind outputs of indices, by output.
        axes: Axis along which the scores of an output of indices were chosen.
        timed: What to measure speed and memory on.
        independent: Whether rows run together are answered as they are alone.
        dependence: Why they can't be batched, "" where they can.
        missing: Why there is nothing to judge by, "" where there is.
        shared: Samples that calibrate also judge: they are too few.
        levels: Outputs of levels that floats were rounded to: few may fall the other way.
        unrunnable: Kinds of requests that the reference itself does not run.
    """

    source: str
    runs: Sequence[Run]
    noise: Mapping[str, Mapping[str, Noise]]
    scores_noise: Mapping[str, float]
    axes: Mapping[str, int]
    timed: Mapping[str, Array]
    independent: bool = False
    dependence: str = ""
    missing: str = ""
    shared: bool = False
    levels: Sequence[str] = ()
    unrunnable: Sequence[str] = ()

    def leeway(self, run: Run, output: str) -> Leeway:
        """Returns what an output may differ by in a run without being wrong."""
        return Leeway(
            self.noise.get(run.group, {}).get(output),
            run.unsure.get(output),
            run.scores.get(output),
            self.scores_noise.get(output, 0.0),
            self.axes.get(output, 0),
            output in self.levels,
        )

    def of_kind(self, *kinds: str) -> list[Run]:
        """Returns the runs of some kinds."""
        return [run for run in self.runs if run.kind in kinds]
