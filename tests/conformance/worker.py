"""The child that runs ONNX's node tests: one form of one test a job, see `node_tests.py`."""

from __future__ import annotations

import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from adlik_kernels import UnsupportedGraph, configure, load_model
from adlik_kernels.plans.readers import READERS

from tests.conformance.children import serve
from tests.conformance.forms import Form, formed
from tests.conformance.judge import Reference, differ, judged


@cache
def cases() -> dict[str, Any]:
    from onnx.backend.test.case.node import collect_testcases

    return {case.name: case for case in collect_testcases(None)}


def answer(job: dict[str, str]) -> dict[str, Any]:
    """Says what became of one form of one test.

    Returns:
        "verdict": "right", "wrong", "refused" (with words), or why there is nothing to compare
        with: "no form", "reference"; "reasons": why nodes run on ONNX Runtime, by operator;
        "unknown": operators that no plan knows; "plans": how many nodes run in plans.
    """
    if job.get("list"):
        return {"names": {name: operators(case) for name, case in cases().items()}}
    case = cases()[job["case"]]
    form = formed(case, job["form"])
    if form is None:
        return {"verdict": "no form"}
    try:
        reference = Reference(form.model)
        feeds = [feed for feed in form.feeds if _runs(reference, feed)]
    except Exception as error:  # noqa: BLE001 # ONNX Runtime's have no class of their own
        return {"verdict": "reference", "words": str(error)[:160]}
    if not feeds:
        return {"verdict": "reference", "words": "no run"}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(form.model, path)
        return _checked(path, case, form, reference, feeds)


def operators(case: Any) -> list[str]:
    return sorted({node.op_type for node in case.model.graph.node})


def _runs(reference: Reference, feed: dict[str, Any]) -> bool:
    try:
        reference(feed)
    except Exception:  # noqa: BLE001 # as above; a second batch may not fit the test
        return False
    return True


def _checked(
    path: Path, case: Any, form: Form, reference: Reference, feeds: list[dict[str, Any]]
) -> dict[str, Any]:
    try:
        model = load_model(path)
    except UnsupportedGraph as error:
        return {"verdict": "refused", "words": error.message}
    reasons = {kind: why for part in model.parts for kind, why in part.reasons.items()}
    told = {
        "plans": sum(part.nodes for part in model.parts if part.engine == "kernels"),
        "reasons": {kind: why for kind, why in reasons.items() if kind in READERS},
        "unknown": [kind for kind in reasons if kind not in READERS],
    }
    for feed in feeds:
        got = model(feed)
        said = judged(reference, feed, got)
        if said and _is_random(reference, feed):
            return {**told, "verdict": "reference", "words": "random"}
        if said:
            return {**told, "verdict": "wrong", "words": said}
        for published, want in zip(form.feeds, form.wants, strict=False):
            if published is feed and (words := _published(case, want, got)):
                # Our answer is the reference's: it is the reference that reads the test otherwise.
                return {**told, "verdict": "reference", "words": f"not as published: {words}"}
    return {**told, "verdict": "right"}


def _published(case: Any, want: dict[str, Any], got: dict[str, Any]) -> str:
    for name, array in want.items():
        least = case.atol + 1e-6
        if isinstance(array, np.ndarray) and array.dtype.kind not in "fiub":
            continue
        if words := differ(array, got[name], max(case.rtol, 1e-3), least):
            return f"{name}: {words}"
    return ""


def _is_random(reference: Reference, feed: dict[str, Any]) -> bool:
    first, second = reference(feed), reference(feed)
    return any(differ(first[name], second[name]) for name in first)


if __name__ == "__main__":
    configure(cache=Path(sys.argv[1]), threads=1)
    serve(answer)
