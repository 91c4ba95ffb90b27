"""Runs ONNX's node tests in all forms and prints docs/conformance.md: `make conformance`."""

from __future__ import annotations

import re
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

from tests.conformance.forms import FORMS
from tests.conformance.node_tests import verdicts

Answers = list[tuple[dict[str, str], dict[str, Any]]]

PAGE = """\
# ONNX's node tests

`make conformance` runs every node test that the `onnx` package ships ({tests}) through
`adlik_kernels.load_model`, in five forms: alone as published; with all but the data constant;
behind a Conv of 1 by 1 or a product, of an open batch; in both branches of an `If` behind that; two
of it behind that. Alone the published outputs are wanted too; all forms are held against what ONNX
Runtime answers with its optimizations off, within 16 times its own noise. `make test` runs the
same, the composed forms of operators that no plan knows as a sample.

| form | right | of these in plans | wrong | crashed | reference can't | no such form |
|---|---|---|---|---|---|---|
{forms}

"Reference can't": ONNX Runtime does not run it here, draws at random, or reads the published test
otherwise. "In plans" counts those of which a plan computes some part, most often the product in
front; the rest of the right ones is *declined*: ONNX Runtime runs it. Single calls are declined,
too, and answered by ONNX Runtime: no rows at all, inputs or results that are not finite, first
sizes that differ from input to input, sizes that only looked like the length of a sequence.

{refused}
## Declined

What plans decline of the operators that they know, by the number of forms:

{known}

Operators that plans do not know: {unknown}.
"""


def main() -> int:
    with tempfile.TemporaryDirectory() as cache:
        answers = list(verdicts(cache))
    bad = [(job, said) for job, said in answers if kind(said) in {"wrong", "crashed"}]
    for job, said in bad:
        sys.stderr.write(f"{job} {said}\n")
    sys.stdout.write(page(answers))
    return len(bad)


def kind(said: dict[str, Any]) -> str:
    """What became of a form, in one word or two."""
    return "crashed" if "crash" in said else said["verdict"]


def page(answers: Answers) -> str:
    """The page of all answers, in an order that does not depend on who was first."""
    refused = {
        f"{job['case']}: {said['words']}" for job, said in answers if kind(said) == "refused"
    }
    lines = "".join(f"- {line}\n" for line in sorted(refused))
    return PAGE.format(
        tests=f"{len({job['case'] for job, _ in answers}):,}",
        forms="\n".join(_row(form, answers) for form in FORMS),
        refused=f"Refused as a whole:\n\n{lines}" if refused else "",
        known=_known(said for _, said in answers),
        unknown=", ".join(f"`{name}`" for name in _unknown(said for _, said in answers)),
    )


def _row(form: str, answers: Answers) -> str:
    found = [said for job, said in answers if job["form"] == form]
    counts = Counter(kind(said) for said in found)
    plans = sum(bool(said.get("plans")) for said in found if kind(said) == "right")
    names = ("wrong", "crashed", "reference", "no form")
    right = counts["right"] + counts["refused"]
    return (
        " | ".join([f"| {form}", str(right), str(plans), *(str(counts[n]) for n in names)]) + " |"
    )


def _known(said: Iterable[dict[str, Any]]) -> str:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for answer in said:
        for operator, reason in answer.get("reasons", {}).items():
            counts[operator][general(reason)] += 1
    rows = ["| operator | declined where |", "|---|---|"]
    for operator, reasons in sorted(counts.items()):
        told = " · ".join(f"{reason} ({n})" for reason, n in sorted(reasons.items()))
        rows.append(f"| {operator} | {told} |")
    return "\n".join(rows)


def _unknown(said: Iterable[dict[str, Any]]) -> list[str]:
    return sorted({operator for answer in said for operator in answer.get("unknown", ())})


GENERAL = (
    (r".*: not float32 .*", "it reads what is not float32 with known sizes, the batch first"),
    (r".* are no sizes that a plan knows\.", "it reads no constant sizes"),
    (r".* is computed; a plan needs it to be constant\.", "what should be constant is computed"),
    (r"\S+ is no picture\.", "it reads no picture"),
    (r"A plan can't compute \S+\.", "it reads what a plan can't compute"),
    (r"A plan can't compute with the sizes of .*", "it reads columns of open number"),
    (r"A product of .* does not fit .*", "the product's sizes do not fit"),
    (r"A bias of .* does not fit .*", "a bias of another shape"),
    (r"The shape of .* is not known\.", "a result's shape is not known"),
    (r"A plan knows no clipping to .*", "another clipping than 0..6 and from 0 on"),
    (r"A plan knows no padding of .*", "padding below zero, or of other axes"),
    (r"A plan can't read this .*", "attributes of other dimensions"),
    (r"A plan can't take .* by itself\.", "a part of an operator that never came"),
)
"""What reasons say without the names and numbers of a single graph."""


def general(reason: str) -> str:
    """A reason without the names and numbers of a single graph."""
    for pattern, words in GENERAL:
        if re.fullmatch(pattern, reason, re.DOTALL):
            return words
    return reason.rstrip(".")


if __name__ == "__main__":
    sys.exit(bool(main()))
