"""Searches for graphs that plans answer otherwise than ONNX Runtime, and makes them small.

    python -m tests.fuzz --minutes 5 --seed 1000

A finding is written to `regressions/`, where the tests replay it: mend it, and keep the file.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.conformance.children import Child, answers
from tests.fuzz.findings import FOLDER, write_finding
from tests.fuzz.generate import generated
from tests.fuzz.shrink import Finding, shrunk

MODULE = "tests.fuzz.worker"


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz ARGS=…", description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the first seed")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long new ones are begun")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where findings are written")
    parser.add_argument("--keep", type=Path, help="a folder of compiled kernels to use and fill")
    given = parser.parse_args()
    end = time.monotonic() + 60 * given.minutes
    with tempfile.TemporaryDirectory() as scratch:
        cache = str(given.keep or scratch)
        seeds = itertools.takewhile(lambda _: time.monotonic() < end, itertools.count(given.seed))
        return search(({"seed": seed} for seed in seeds), cache, given.folder)


def search(jobs: Iterator[dict[str, int]], cache: str, folder: Path) -> int:
    """Runs jobs, tells what was found, and writes findings; returns how many there are."""
    verdicts, in_plans = Counter(), 0
    for job, said in answers(MODULE, cache, jobs=jobs):
        verdict = said.get("verdict", "crash")
        verdicts[verdict] += 1
        in_plans += bool(said.get("plans"))
        if verdict in {"wrong", "crash"}:
            tell(f"seed {job['seed']}: {said.get('words') or said}")
            path = folder / f"seed_{job['seed']}.onnx"
            with contextlib.closing(Shows(cache, path)) as shows:
                write_finding(path, *shrunk(generated(job["seed"]), shows))
            tell(f"  made small: {path}")
    total = sum(verdicts.values())
    tell(f"{total} graphs, {in_plans} of them in plans: {dict(verdicts)}")
    return verdicts["wrong"] + verdicts["crash"]


def tell(words: str) -> None:
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


class Shows:
    """Whether a graph is a finding still, found out in a child.

    Args:
        cache: Where the child keeps compiled kernels.
        path: Where to write candidates.
    """

    def __init__(self, cache: str, path: Path) -> None:
        self._child, self._path = Child(MODULE, cache), path

    def __call__(self, finding: Finding) -> bool:
        write_finding(self._path, *finding)
        said = self._child.answer({"path": str(self._path)})
        return "crash" in said or said["verdict"] == "wrong"

    def close(self) -> None:
        self._child.close()


if __name__ == "__main__":
    sys.exit(bool(main()))
