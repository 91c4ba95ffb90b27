"""ONNX to a bundle for Adlik's own kernels: the model, and a report of what runs as a plan."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from adlik_common import bundle
from adlik_common.errors import EngineFailed
from adlik_runtimes.kernels import COSTS_FILE, ENGINE, MODEL_FILE, REPORT_FILE

from adlik_compiler.onnx_source import self_contained
from adlik_compiler.planner import Step

MEASURE_SECONDS = 20.0
"""Time after which no further convolution's algorithms and layouts are compared."""


def convert(source: str, folder: str, precision: str) -> str:
    """Returns a bundle, once the model has been compiled to plans here.

    Raises:
        EngineFailed: No part of the model can be computed by a plan.
        InvalidModel: It is no ONNX model.
    """
    import adlik_kernels

    output = Path(folder)
    model = self_contained(Path(source), output)
    report = ENGINE.load(model, precision=precision).report()
    if not report["share"]:
        reasons = {kind: why for part in report["parts"] for kind, why in part["reasons"].items()}
        told = "; ".join(f"{kind}: {why}" for kind, why in sorted(reasons.items()))
        raise EngineFailed(
            f"No part of the model is faster as a plan: {told[:500]}.",
            cure="Nothing to do: other engines serve it.",
        )
    costs = adlik_kernels.measure_model(model, seconds=MEASURE_SECONDS)
    (output / COSTS_FILE).write_text("".join(f"{line}\n" for line in costs))
    (output / REPORT_FILE).write_text(json.dumps(report, indent=1))
    shutil.copyfile(model, output / MODEL_FILE)
    archive = output / "kernels.zip"
    bundle.pack(output, [MODEL_FILE, REPORT_FILE, COSTS_FILE], archive)
    return str(archive)


STEP = Step(
    source="onnx",
    target="kernels_bundle",
    function="adlik_compiler.steps.onnx_to_kernels:convert",
    media_type=bundle.MEDIA_TYPE,
    distribution="adlik-kernels",
    cost=2.0,
    unavailable=ENGINE.unavailable,
)
