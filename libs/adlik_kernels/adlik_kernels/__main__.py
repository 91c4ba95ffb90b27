"""The commands of the kernel library: `python -m adlik_kernels tune | list | show | roofline`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from adlik_kernels import configuration
from adlik_kernels.errors import KernelError
from adlik_kernels.machine.roofline import roofline
from adlik_kernels.schedules.db import Database, Record, shipped, workload_of
from adlik_kernels.schedules.registry import choose, database_path
from adlik_kernels.schedules.space import Space
from adlik_kernels.search import Agent, Annealing, Evolution, Learned, Policy, Random, Trial, tune
from adlik_kernels.search.measure import Meter

AGENTS: dict[str, Callable[[Space, int, Sequence[Record]], Agent]] = {
    "random": lambda space, seed, _: Random(space, seed),
    "evolution": lambda space, seed, _: Evolution(space, seed),
    "annealing": lambda space, seed, _: Annealing(space, seed),
    "scratch": lambda space, seed, _: Learned(space, seed),
    "learned": Learned,
    "policy": Policy,
}
"""Agents by name; "learned" and "policy" start from the records of other shapes."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    parser = argparse.ArgumentParser(prog="adlik_kernels", description=__doc__)
    parser.add_argument("--threads", type=int, default=0, help="threads of a call; 0: one a core")
    commands = parser.add_subparsers(required=True)
    tuning = commands.add_parser("tune", help="look for faster schedules and record them")
    tuning.add_argument("workload", nargs="+", help="such as dense-fp32-64x1024x1024")
    tuning.add_argument("--agent", choices=AGENTS, default="learned")
    tuning.add_argument("--seconds", type=float, default=60.0, help="for each workload")
    tuning.add_argument("--trials", type=int, default=64, help="for each workload")
    tuning.add_argument("--patience", type=int, default=24, help="trials without any gain")
    tuning.add_argument("--seed", type=int, default=0)
    tuning.set_defaults(run=_tune)
    listing = commands.add_parser("list", help="the recorded workloads and their best schedules")
    listing.set_defaults(run=_list)
    showing = commands.add_parser("show", help="which schedule a workload gets, and why")
    showing.add_argument("workload")
    showing.set_defaults(run=_show)
    limits = commands.add_parser("roofline", help="what this machine can do at most")
    limits.set_defaults(run=_roofline)
    options = parser.parse_args(arguments)
    try:
        configuration.configure(threads=options.threads)
        options.run(options)
    except KernelError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _tune(options: argparse.Namespace) -> None:
    database, threads = Database(database_path()), configuration.threads()
    for key in options.workload:
        workload = workload_of(key)
        records = [*shipped(), *database]
        space = Space(workload, configuration.target(), threads)
        agent = AGENTS[options.agent](space, options.seed, records)
        with Meter(threads) as meter:
            result = tune(
                workload,
                agent,
                meter,
                trials=options.trials,
                seconds=options.seconds,
                patience=options.patience,
                finalists=4,
                database=database,
                progress=_progress,
            )
        best = result.best
        _say(
            f"\n{key}: {len(result.trials)} trials in {result.elapsed:.1f} s, "
            f"{best.speed:.3f} times the default, {best.schedule}"
        )


def _progress(trial: Trial) -> None:
    mark = "x" if trial.fault else "+" if trial.speed > 1 else "."
    sys.stdout.write(mark)
    sys.stdout.flush()


def _list(_: argparse.Namespace) -> None:
    best: dict[tuple[str, str, int], Record] = {}
    for record in (*shipped(), *Database(database_path())):
        place = (record.workload, record.target, record.threads)
        if place not in best or record.speed > best[place].speed:
            best[place] = record
    for (key, target, threads), record in sorted(best.items()):
        speed = workload_of(key).operations / record.seconds / 1e9
        _say(f"{key:30} {target:18} {threads} threads {speed:8.1f} Gop/s  {record.schedule}")


def _show(options: argparse.Namespace) -> None:
    workload = workload_of(options.workload)
    target, threads = configuration.target(), configuration.threads()
    choice = choose(workload, target, threads)
    _say(f"{options.workload} on {target.key}, {threads} threads: {choice.origin} {choice.source}")
    _say(f"{choice.schedule}")


def _roofline(_: argparse.Namespace) -> None:
    limits = roofline(configuration.threads())
    _say(f"{limits.machine} ({limits.target}), {limits.threads} threads")
    for dtype, operations in limits.operations.items():
        _say(f"{dtype:8} {operations / 1e9:8.0f} Gop/s")
    for place, size in limits.bandwidth.items():
        _say(f"{place:8} {size / 1e9:8.1f} GB/s")


if __name__ == "__main__":
    sys.exit(main())
