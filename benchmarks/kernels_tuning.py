"""How soon search agents find fast schedules: equal trials, five seeds, curves with their spread.

    python benchmarks/kernels_tuning.py 196x256x1024 784x512x128 --trials 48

All agents share one table of measurements, filled as they ask, so that luck in measuring is the
same for all. The default schedule, which agents begin with, is not counted: what is compared is the
search.
"""

from __future__ import annotations

import argparse
import statistics

from adlik_kernels import configure
from adlik_kernels.configuration import target
from adlik_kernels.schedules.db import shipped, workload_of
from adlik_kernels.schedules.space import Space
from adlik_kernels.search import Annealing, Evolution, Learned, Policy, Random, tune
from adlik_kernels.search.measure import Meter

SEEDS = 5
MARKS = (4, 8, 16, 32, 48)


class Table:
    """A meter that measures every schedule once."""

    def __init__(self, meter: Meter) -> None:
        self.meter, self.known = meter, {}
        self.threads = meter.threads

    def measure(self, workload, schedule):
        if schedule not in self.known:
            self.known[schedule] = self.meter.measure(workload, schedule)
        return self.known[schedule]


def agents(space: Space, seed: int):
    others = [record for record in shipped() if record.workload != space.workload.key]
    return {
        "random": Random(space, seed),
        "evolution": Evolution(space, seed),
        "annealing": Annealing(space, seed),
        "policy, from nothing": Policy(space, seed),
        "policy, transfer": Policy(space, seed, others),
        "learned, from nothing": Learned(space, seed),
        "learned, transfer": Learned(space, seed, others),
    }


def curve(trials, default) -> list[float]:
    best, found = 0.0, []
    for trial in trials:
        if trial.schedule != default:
            best = max(best, trial.speed)
            found.append(best)
    return found


def compare(key: str, threads: int, trials: int) -> None:
    workload = workload_of(key)
    space = Space(workload, target(), threads)
    curves: dict[str, list[list[float]]] = {}
    elapsed: dict[str, list[float]] = {}
    with Meter(threads) as meter:
        table = Table(meter)
        for seed in range(SEEDS):
            for name, agent in agents(space, seed).items():
                result = tune(workload, agent, table, trials=trials + 1)
                curves.setdefault(name, []).append(curve(result.trials, space.default()))
                elapsed.setdefault(name, []).append(result.elapsed)
    top = max(max(line) for lines in curves.values() for line in lines)
    print(f"{key}, {threads} threads: {len(table.known)} schedules measured, ", end="")
    print(f"best {top:.3f} times the default")
    marks = [mark for mark in MARKS if mark <= trials]
    print(f"{'part of the best after':24}" + "".join(f"{mark:>14}" for mark in marks) + "  98 % at")
    for name, lines in curves.items():
        cells = ""
        for mark in marks:
            parts = [line[min(mark, len(line)) - 1] / top for line in lines]
            cells += f"{statistics.mean(parts):8.3f} ±{statistics.stdev(parts):.3f}"
        at = [
            next((n + 1 for n, speed in enumerate(line) if speed >= 0.98 * top), trials + 1)
            for line in lines
        ]
        print(f"{name:24}{cells}{statistics.median(at):9.0f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shapes", nargs="+", help="rows x columns x depth, such as 64x1024x1024")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--trials", type=int, default=48)
    options = parser.parse_args()
    configure(threads=options.threads)
    for shape in options.shapes:
        compare(f"dense-fp32-{shape}", options.threads, options.trials)


if __name__ == "__main__":
    main()
