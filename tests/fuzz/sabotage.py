"""A child that finds every graph with a Relu wrong: for the test of the search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.conformance.children import serve
from tests.fuzz.findings import read_finding
from tests.fuzz.generate import generated


def answer(job: dict[str, Any]) -> dict[str, Any]:
    found = generated(job["seed"]) if "seed" in job else read_finding(Path(job["path"]))
    is_wrong = any(node.op_type == "Relu" for node in found[0].graph.node)
    return {"verdict": "wrong" if is_wrong else "right", "plans": 1, "words": "it has a Relu"}


if __name__ == "__main__":
    serve(answer)
