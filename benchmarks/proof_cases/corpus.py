"""All models that the judge is tried on."""

from __future__ import annotations

from benchmarks.proof_cases import exact, packages, pictures, sequences, signatures, tables
from benchmarks.proof_cases.case import Case

MADE = (
    *tables.CASES,
    *pictures.CASES,
    *sequences.CASES,
    *exact.CASES,
    *signatures.CASES,
)
"""The models that are made here."""
SHORT = tuple(case for case in MADE if case.is_quick)
"""Those of the short form."""


def all_cases() -> list[Case]:
    """Returns the models that are made here, then those that come inside packages."""
    return [*MADE, *packages.cases()]


def case_named(name: str) -> Case:
    """Returns one of them."""
    made = next((case for case in MADE if case.name == name), None)
    return made or next(case for case in packages.cases() if case.name == name)
