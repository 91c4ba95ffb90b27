"""ONNX's node tests in plans: each form of each is right, or declined to ONNX Runtime; see
`worker.py`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from adlik_kernels.plans.readers import READERS

from tests.conformance.children import Child, answers
from tests.conformance.forms import FORMS

MODULE = "tests.conformance.worker"


def jobs(cache: str, sample: int = 1) -> list[dict[str, str]]:
    """Every test alone; the other forms of what plans may take, and a sample of those of the rest.

    Args:
        cache: Where the children keep compiled kernels.
        sample: One in so many of the composed forms of operators that plans do not know.
    """
    child = Child(MODULE, cache)
    names = child.answer({"list": True})["names"]
    child.close()
    return [
        {"case": name, "form": form}
        for name, operators in names.items()
        for form in FORMS
        if form == "alone" or set(operators) & set(READERS) or _drawn(name + form, sample)
    ]


def _drawn(key: str, sample: int) -> bool:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % sample == 0


def verdicts(cache: str, sample: int = 1) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    """Gives each job with what became of it."""
    return answers(MODULE, cache, jobs=jobs(cache, sample))
