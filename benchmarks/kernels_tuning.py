"""How soon search agents find fast schedules, at equal trials and at equal seconds, five seeds.

    python -m benchmarks.kernels_tuning                                   # four shapes
    python -m benchmarks.kernels_tuning 64x1024x1024 --trials 48 --plot curves.svg
    python -m benchmarks.kernels_tuning 64x1024x1024 --tvm 300            # TVM MetaSchedule beside

All agents search the same table of measured schedules (a coarse grid over the space, kept in the
cache folder), so that luck in measuring is the same for all. A trial costs the seconds that it took
to compile and measure when the table was made; what an agent thinks is timed and added. The default
schedule is not counted: what is compared is the search. "Transfer" begins with 64 random records of
each of the other shapes and with those that are shipped for other machines.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path

from adlik_kernels import configure, configured
from adlik_kernels.configuration import target
from adlik_kernels.schedules.db import shipped, workload_of
from adlik_kernels.schedules.schedule import Schedule
from adlik_kernels.schedules.space import Space
from adlik_kernels.search import Learned, Policy, tune
from adlik_kernels.search.measure import Meter

from benchmarks.kernel_cases.plots import curves
from benchmarks.kernel_cases.replay import AGENTS, Run, Transfer, records_of, replay
from benchmarks.kernel_cases.schedule_tables import Entry, ListedSpace, load_table

SHAPES = ("49x512x2048", "64x1024x1024", "784x128x1152", "196x1024x256")
SEEDS = 5
MARKS, SECONDS = (4, 8, 16, 32, 48), (2.0, 4.0, 8.0, 16.0)
"""Trials and seconds after which the agents are compared."""

GOOD = 0.98
"""Part of the best that counts as found."""

TVM = Path(".venv-tvm/bin/python")
"""The interpreter of the environment that holds TVM: `make .venv-tvm/ready`."""


def compare(
    key: str, threads: int, trials: int, table: dict[Schedule, Entry], others: Transfer
) -> dict[str, list[Run]]:
    space = ListedSpace(workload_of(key), target(), threads, frozenset(table))
    runs = {
        name: [replay(name, space, table, seed, trials, others) for seed in range(SEEDS)]
        for name in AGENTS
    }
    best, default = max(entry.speed for entry in table.values()), table[space.default()].speed
    print(f"\n{key}, {threads} threads: {len(table)} schedules, best {best:.3f} times the default")
    print(f"the default, not counted: {default / best:.3f} of the best; columns: mean ± spread")
    marks = [mark for mark in MARKS if mark <= trials]
    heads = [f"{mark} trials" for mark in marks] + [f"{mark:.0f} s" for mark in SECONDS]
    print(f"{'':20}" + "".join(f"{head:>13}" for head in heads) + f"{f'{GOOD:.0%} at':>10}")
    for name, found in runs.items():
        print(f"{name:20}{cells(found, marks)}{reached(found):>10}", flush=True)
    return runs


def cells(runs: Sequence[Run], marks: Sequence[int]) -> str:
    columns = [[run.parts[mark - 1] for run in runs] for mark in marks]
    columns += [[run.part_at(seconds) for run in runs] for seconds in SECONDS]
    return "".join(f"{statistics.mean(c):7.3f} ±{statistics.stdev(c):.3f}" for c in columns)


def reached(runs: Sequence[Run]) -> str:
    """The median number of trials after which a good schedule was found."""
    firsts = [
        next((n + 1 for n, part in enumerate(run.parts) if part >= GOOD), len(run.parts) + 1)
        for run in runs
    ]
    middle = int(statistics.median(firsts))
    return str(middle) if middle <= len(runs[0].parts) else f">{middle - 1}"


def summary(everything: dict[str, dict[str, list[Run]]], trials: int) -> None:
    """Means over all shapes, and how often an agent is ahead of evolution with the same seed."""
    marks = [mark for mark in MARKS if mark <= trials]
    print(f"\nall {len(everything)} shapes")
    for name in AGENTS:
        runs = [run for found in everything.values() for run in found[name]]
        rivals = [run for found in everything.values() for run in found["evolution"]]
        middle = marks[len(marks) // 2] - 1
        pairs = list(zip(runs, rivals, strict=True))
        ahead = sum(a.parts[middle] > b.parts[middle] for a, b in pairs)
        behind = sum(a.parts[middle] < b.parts[middle] for a, b in pairs)
        text = f"ahead of evolution {ahead}, behind {behind} of {len(pairs)} at {middle + 1} trials"
        print(f"{name:20}{cells(runs, marks)}  {text}")


def plot(everything: dict[str, dict[str, list[Run]]], path: Path) -> None:
    panels = {
        key: {name: _curve(found) for name, found in runs.items()}
        for key, runs in everything.items()
    }
    path.write_text(curves(panels, "trials (line: mean, band: least and most)", 0.8))


def _curve(runs: Sequence[Run]) -> list[tuple[float, float, float, float]]:
    columns = zip(*(run.parts for run in runs), strict=True)
    return [(n + 1.0, statistics.mean(c), min(c), max(c)) for n, c in enumerate(columns)]


def beside_tvm(key: str, threads: int, seconds: float, others: Transfer) -> None:
    """Gives our two best agents and TVM MetaSchedule the same seconds on this machine."""
    workload = workload_of(key)
    space = Space(workload, target(), threads)
    for name, agent in (("learned", Learned), ("policy", Policy)):
        with Meter(threads) as meter:
            searcher = agent(space, 0, others)
            found = tune(workload, searcher, meter, trials=10**6, seconds=seconds, finalists=4)
        speed = workload.operations / found.best.seconds / 1e9
        print(
            f"{key} adlik, {name}: {speed:.1f} Gop/s after {len(found.trials)} trials, "
            f"{found.elapsed:.0f} s",
            flush=True,
        )
    if not TVM.exists():
        print(f"{key} tvm: not installed; make .venv-tvm/ready")
        return
    sizes = [workload.rows, workload.columns, workload.depth]
    command = [str(TVM), "-m", "benchmarks.tvm_peer", *map(str, sizes)]
    command += ["--threads", str(threads), "--seconds", str(seconds), "--cpu", target().cpu]
    told = subprocess.run(command, check=False, text=True, stdout=subprocess.PIPE)
    print((told.stdout.splitlines() or [f"{key} tvm: ended with {told.returncode}"])[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shapes", nargs="*", default=SHAPES, help="rows x columns x depth")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--plot", type=Path, help="SVG file that gets the curves")
    parser.add_argument("--tvm", type=float, default=0.0, help="seconds for TVM MetaSchedule")
    options = parser.parse_args()
    configure(threads=options.threads)
    keys = [f"dense-fp32-{shape}" for shape in dict.fromkeys([*options.shapes, *SHAPES])]
    folder = configured().cache / "tables"
    tables = {
        key: load_table(
            Space(workload_of(key), target(), options.threads),
            folder / f"{key}-{target().key}-{options.threads}-distant.json",
        )
        for key in keys
    }
    everything = {}
    for key in keys[: len(options.shapes)]:
        others = [record for record in shipped() if record.target != target().key]
        for other in keys:
            if other != key:
                others += records_of(other, target().key, options.threads, tables[other])
        if options.tvm:
            beside_tvm(key, options.threads, options.tvm, others)
        else:
            everything[key] = compare(key, options.threads, options.trials, tables[key], others)
    if everything:
        summary(everything, options.trials)
    if options.plot and everything:
        plot(everything, options.plot)


if __name__ == "__main__":
    main()
