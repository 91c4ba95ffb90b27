"""How good the judge is: right variants that it refuses, and sabotaged ones that it releases.

    python -m benchmarks.proof                      # all models, about ten minutes on two cores
    python -m benchmarks.proof --short              # a seeded part, under a minute
    python -m benchmarks.proof --models clock doubles --verbose

Every model of the corpus is rewritten in ways that change nothing, run by other engines, and
sabotaged in ways that compilers and engines have been seen to fail. What is really right or wrong
is found apart from the judge (`benchmarks.proof_cases.truth`): on fresh inputs, beside plain
arithmetic. What is wrong by no more than float noise counts on neither side. The former judge is
run beside the new one. Requests that serving can tell apart (NaN, wide integers, no rows) are
guarded where the judge has the pushed model answer them.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from threading import Timer
from typing import Any

from benchmarks.machine import describe
from benchmarks.proof_cases.case import Case
from benchmarks.proof_cases.corpus import SHORT, all_cases

TOLD_APART = {"nonfinite", "empty"}
"""Kinds of requests on which a right variant may be wrong, for the pushed model answers them."""
CASE_SECONDS, GRACE_SECONDS = 120.0, 60.0
"""Time after which no more variants of a model are tried, and in which the last must end."""
VARIANTS_OF_A_PUSH = 6
MIN_CAUGHT, MAX_REFUSED = 0.99, 0.01


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one variant."""

    case: str
    kind: str
    label: str
    is_exact: bool
    is_meant_right: bool
    truth: str
    kinds: frozenset[str]
    deferred: frozenset[str]
    new: bool
    old: bool
    why: str
    text: str

    @property
    def is_wrong(self) -> bool:
        return self.truth == "wrong"

    @property
    def is_right(self) -> bool:
        """Meant to be right, and right but for NaN and requests without elements.

        Of a lower precision what is neither clearly good nor clearly bad counts on no side.
        """
        if not self.is_meant_right or (self.is_wrong and not self.kinds <= TOLD_APART):
            return False
        return self.is_exact or self.truth != "slight"

    @property
    def is_sabotage(self) -> bool:
        return self.is_wrong and not self.is_right

    @property
    def is_caught(self) -> bool:
        return not self.new or self.kinds <= self.deferred

    @property
    def is_caught_by_old(self) -> bool:
        return not self.old


@dataclass(slots=True)
class Tally:
    """All results, and what it took."""

    results: list[Result] = field(default_factory=list)
    crashed: list[str] = field(default_factory=list)
    cut_short: list[str] = field(default_factory=list)
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    seconds: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: defaultdict(list))
    not_run: dict[str, str] = field(default_factory=dict)

    @property
    def right(self) -> list[Result]:
        return [result for result in self.results if result.is_right]

    @property
    def sabotaged(self) -> list[Result]:
        return [result for result in self.results if result.is_sabotage]

    @property
    def caught(self) -> float:
        """Share of what is wrong that the new judge does not let out."""
        return _share(result.is_caught for result in self.sabotaged)

    @property
    def refused(self) -> float:
        """Share of what is right that the new judge refuses."""
        return _share(not result.new for result in self.right)

    @property
    def unguarded(self) -> list[Result]:
        """Right ones that are wrong on a kind of requests which nobody guards."""
        return [r for r in self.right if r.new and r.is_wrong and not r.kinds <= r.deferred]

    @property
    def wrongly_batched(self) -> list[str]:
        return [n for n, m in self.models.items() if m.get("independent") and m.get("dependent")]

    @property
    def unbatched(self) -> list[str]:
        return [
            n
            for n, m in self.models.items()
            if not m.get("independent") and m.get("dependent") is False
        ]


def bench(
    chosen: Sequence[Case], *, short: bool, seed: int, jobs: int, out: Path | None = None
) -> Tally:
    """Tries the judges on models, several at a time; writes what came of each as JSON lines."""
    tally = Tally()
    for case in chosen:
        if case.reason:
            tally.not_run[case.name] = case.reason
    ready = [case.name for case in chosen if not case.reason]
    with ThreadPoolExecutor(jobs) as pool:
        tasks = [pool.submit(_try_case, name, short=short, seed=seed) for name in ready]
        for name, task in zip(ready, tasks, strict=True):
            _count(tally, name, task.result())
            if out is not None:
                with out.open("a") as file:
                    file.write(json.dumps({"case": name, "lines": task.result()}) + "\n")
    return tally


def read(files: Sequence[Path]) -> Tally:
    """Returns what earlier runs have written; of a model that was tried twice the later trial."""
    tried = {}
    for file in files:
        for line in file.read_text().splitlines():
            found = json.loads(line)
            tried[found["case"]] = found["lines"]
    tally = Tally()
    for name, lines in tried.items():
        _count(tally, name, lines)
    return tally


def _try_case(name: str, *, short: bool, seed: int) -> list[dict[str, Any]]:
    """Returns all lines of a model's trial; a variant that ends the process has a line, too."""
    lines: list[dict[str, Any]] = []
    give_up = time.monotonic() + CASE_SECONDS
    while time.monotonic() < give_up:
        done = [line["begin"] for line in lines if "begin" in line]
        if lines and "time" in lines[-1]:
            break
        left = give_up - time.monotonic()
        order = {"case": name, "short": short, "seed": seed, "done": done, "seconds": left}
        fresh, code = _run(order, left + GRACE_SECONDS)
        lines += fresh
        if not code or fresh[-2:-1] == [{"begin": "evidence"}]:
            break
    return lines


def _run(order: dict[str, Any], seconds: float) -> tuple[list[dict[str, Any]], int]:
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "benchmarks.proof_cases.trial",
        json.dumps(order),
    ]
    with (
        TemporaryFile("w+") as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True) as child,
    ):
        timer = Timer(max(seconds, 1), child.kill)
        timer.start()
        lines = [json.loads(line) for line in child.stdout if line.startswith("{")]
        in_time = timer.is_alive()
        timer.cancel()
        if child.wait() and not in_time:
            lines.append({"time": "up"})
        elif child.wait():
            said.seek(0)
            last = said.read().strip().splitlines()[-1:]
            lines.append({"crashed": f"{child.returncode} {' '.join(last)[:200]}".strip()})
    return lines, child.returncode


def _count(tally: Tally, case: str, lines: list[dict[str, Any]]) -> None:
    begun: dict[str, Any] = {}
    for line in lines:
        if "begin" in line:
            begun = line
        elif "crashed" in line:
            tally.crashed.append(f"{case}: {begun.get('begin', '?')} ({line['crashed']})")
        elif "time" in line:
            tally.cut_short.append(case)
        elif "gather_seconds" in line:
            tally.models.setdefault(case, line)
        elif line["truth"] != "none" and not tally.models[case]["missing"]:
            tally.results.append(
                Result(
                    case, begun["kind"], begun["begin"], begun["exact"], begun["right"],
                    line["truth"], frozenset(line["kinds"]), frozenset(line["deferred"]),
                    line["new"], line["old"], line["why"], line["text"],
                )
            )  # fmt: skip
            if begun["right"]:
                tally.seconds[case].append((line["new_seconds"], line["old_seconds"]))


def _share(truths: Iterator[bool]) -> float:
    counted = list(truths)
    return sum(counted) / len(counted) if counted else 0.0


def table(tally: Tally) -> str:
    """Returns what is shown: kinds of sabotage, kinds of right variants, times."""
    parts = (_sabotage_table, _right_table, _times, _rest)
    return "\n\n".join("\n".join(part(tally)) for part in parts)


def _sabotage_table(tally: Tally) -> Iterator[str]:
    yield "| sabotage | beyond the limits | caught | former judge |"
    yield "|---|---|---|---|"
    for kind, results in _by_kind(tally.sabotaged):
        yield (
            f"| {kind} | {len(results)} | {_percent(r.is_caught for r in results)} "
            f"| {_percent(r.is_caught_by_old for r in results)} |"
        )
    found = tally.sabotaged
    yield (
        f"| **all** | {len(found)} | **{_percent(r.is_caught for r in found)}** "
        f"| {_percent(r.is_caught_by_old for r in found)} |"
    )


def _right_table(tally: Tally) -> Iterator[str]:
    yield "| right variant | tried | refused | former judge |"
    yield "|---|---|---|---|"
    for kind, results in _by_kind(tally.right):
        yield (
            f"| {kind} | {len(results)} | {_percent(not r.new for r in results)} "
            f"| {_percent(not r.old for r in results)} |"
        )
    found = tally.right
    yield (
        f"| **all** | {len(found)} | **{_percent(not r.new for r in found)}** "
        f"| {_percent(not r.old for r in found)} |"
    )


def _times(tally: Tally) -> Iterator[str]:
    """Yields how long a push of several variants is verified, medians over the models."""
    new, old = [], []
    for case, pairs in tally.seconds.items():
        gathered = tally.models[case]["gather_seconds"]
        checks, comparisons = (sum(pair[at] for pair in pairs) / len(pairs) for at in (0, 1))
        new.append(gathered + VARIANTS_OF_A_PUSH * checks)
        old.append(VARIANTS_OF_A_PUSH * comparisons)
    if new:
        middle = len(new) // 2
        yield (
            f"Processor time to verify {VARIANTS_OF_A_PUSH} variants of a model: "
            f"{sorted(new)[middle]:.2f} s (median; largest {max(new):.2f}), "
            f"former judge {sorted(old)[middle]:.2f} s (largest {max(old):.2f})."
        )


def _rest(tally: Tally) -> Iterator[str]:
    slight = [r for r in tally.results if r.truth == "slight" and not r.is_meant_right]
    within = [r for r in tally.results if r.truth == "right" and not r.is_meant_right]
    yield (
        f"{len(tally.models)} models. Left out: {len(within)} sabotages that change nothing there, "
        f"{len(slight)} between noise and limits."
    )
    for title, found in (
        ("Ended the process", tally.crashed),
        ("Time was up before the last variant of", tally.cut_short),
        (
            "Not judged, since nothing could be made up (the pushed model is served)",
            [n for n, m in tally.models.items() if m["missing"]],
        ),
        ("Batched though rows depend on each other", tally.wrongly_batched),
        ("Not batched though rows are independent", tally.unbatched),
        (
            "Unguarded kinds of requests",
            [f"{r.case}: {r.label} {set(r.kinds)}" for r in tally.unguarded],
        ),
        ("Not run here", [f"{name}: {reason}" for name, reason in tally.not_run.items()]),
    ):
        if found:
            yield f"{title}: {'; '.join(found)}."


def _by_kind(results: Sequence[Result]) -> Iterator[tuple[str, list[Result]]]:
    kinds: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        kinds[result.kind].append(result)
    yield from kinds.items()


def _percent(truths: Iterator[bool]) -> str:
    share = _share(truths)
    return f"{100 * share:.0f} %" if share in (0.0, 1.0) else f"{100 * share:.1f} %"


def misjudged(tally: Tally) -> Iterator[str]:
    """Yields every sabotage that was released and every right variant that was refused."""
    for result in tally.sabotaged:
        if not result.is_caught:
            yield f"RELEASED {result.case} / {result.label}: {result.text} {sorted(result.kinds)}"
    for result in tally.right:
        if not result.new:
            what = f"{result.case} / {result.label}"
            yield f"REFUSED {what}: {result.why} [{result.truth}: {result.text}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--models", nargs="*", default=[], help="only those whose name holds one of these"
    )
    parser.add_argument("--short", action="store_true", help="a seeded part, under a minute")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--verbose", action="store_true", help="each variant that is misjudged")
    parser.add_argument("--out", type=Path, help="append what came of each model, JSON lines")
    parser.add_argument("--read", nargs="*", type=Path, help="only print what was written")
    given = parser.parse_args()
    print(describe("onnxruntime", "openvino"))
    started = time.monotonic()
    tally = read(given.read) if given.read else _run_given(given)
    print(table(tally))
    print(f"{time.monotonic() - started:.0f} s.")
    if given.verbose:
        print("\n".join(misjudged(tally)))
    if tally.caught < MIN_CAUGHT or tally.refused > MAX_REFUSED:
        raise SystemExit(1)


def _run_given(given: argparse.Namespace) -> Tally:
    chosen = [
        case
        for case in (SHORT if given.short else all_cases())
        if not given.models or any(word in case.name for word in given.models)
    ]
    return bench(chosen, short=given.short, seed=given.seed, jobs=given.jobs, out=given.out)


if __name__ == "__main__":
    main()
