"""The commands of the kernel library: `python -m adlik_kernels tune | bench | list | show | …`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence

from adlik_kernels import configuration
from adlik_kernels.errors import KernelError
from adlik_kernels.reports import Progress, choice_lines, record_lines, roofline_lines
from adlik_kernels.schedules.db import Database, Record, shipped, workload_of
from adlik_kernels.schedules.known import GROUPS, workloads_of
from adlik_kernels.schedules.registry import database_path
from adlik_kernels.schedules.space import Space
from adlik_kernels.search import (
    Agent,
    Annealing,
    Evolution,
    Grid,
    Learned,
    Policy,
    Random,
    tune,
)
from adlik_kernels.search.bench import compare_all
from adlik_kernels.search.measure import Meter

GRID = 64
"""Schedules among which the grid spreads its trials evenly."""

AGENTS: dict[str, Callable[[Space, int, Sequence[Record]], Agent]] = {
    "random": lambda space, seed, _: Random(space, seed),
    "grid": lambda space, _, __: Grid(space, GRID),
    "evolution": lambda space, seed, _: Evolution(space, seed),
    "annealing": lambda space, seed, _: Annealing(space, seed),
    "scratch": lambda space, seed, _: Learned(space, seed),
    "learned": Learned,
    "policy": Policy,
}
"""Agents by name; "learned" and "policy" start from the records of other shapes."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        configuration.configure(threads=options.threads)
        options.run(options)
    except KernelError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="adlik_kernels", description=__doc__)
    parser.add_argument("--threads", type=int, default=0, help="threads of a call; 0: one a core")
    commands = parser.add_subparsers(required=True)
    subjects = f"one of {', '.join(GROUPS)}, or a key such as dense-fp32-64x1024x1024"
    tuning = commands.add_parser("tune", help="look for faster schedules and record them")
    tuning.add_argument("subjects", nargs="*", metavar="GROUP|WORKLOAD", help=subjects)
    tuning.add_argument("--all-known", action="store_true", help="the groups dense and conv")
    tuning.add_argument("--agent", choices=AGENTS, default="learned")
    tuning.add_argument("--seconds", type=float, default=60.0, help="for each workload")
    tuning.add_argument("--trials", type=int, default=64, help="for each workload")
    tuning.add_argument("--patience", type=int, default=24, help="trials without any gain")
    tuning.add_argument("--seed", type=int, default=0)
    tuning.add_argument("--again", action="store_true", help="measure what is recorded, too")
    tuning.set_defaults(run=_tune)
    timing = commands.add_parser("bench", help="chosen schedules beside the default and numpy")
    timing.add_argument("subjects", nargs="*", metavar="GROUP|WORKLOAD", help=subjects)
    timing.add_argument("--seconds", type=float, default=1.0, help="for each workload")
    timing.set_defaults(run=_bench)
    listing = commands.add_parser("list", help="the recorded workloads and their best schedules")
    listing.add_argument("--everywhere", action="store_true", help="other machines' records, too")
    listing.set_defaults(run=lambda given: _print(record_lines(everywhere=given.everywhere)))
    showing = commands.add_parser("show", help="which schedule a workload gets, and why")
    showing.add_argument("workload")
    showing.add_argument("--llvm", action="store_true", help="the LLVM assembly that is generated")
    showing.add_argument("--asm", action="store_true", help="the machine's assembly made of it")
    showing.set_defaults(run=_show)
    limits = commands.add_parser("roofline", help="what this machine can do at most")
    limits.set_defaults(run=lambda _: _print(roofline_lines()))
    return parser


def _print(lines: Iterator[str]) -> None:
    for line in lines:
        sys.stdout.write(line + "\n")


def _tune(options: argparse.Namespace) -> None:
    subjects = ["dense", "conv"] if options.all_known else options.subjects
    if not subjects:
        raise KernelError("There is nothing to tune.", cure="Name a group or a workload.")
    database, threads = Database(database_path()), configuration.threads()
    with Meter(threads) as meter:
        for workload in workloads_of(subjects):
            space = Space(workload, configuration.target(), threads)
            agent = AGENTS[options.agent](space, options.seed, [*shipped(), *database])
            progress = Progress(workload.key, options.trials)
            result = tune(
                workload,
                agent,
                meter,
                trials=options.trials,
                seconds=options.seconds,
                patience=options.patience,
                finalists=4,
                database=database,
                again=options.again,
                progress=progress,
            )
            progress.end(result.line(workload))


def _bench(options: argparse.Namespace) -> None:
    keys = [workload.key for workload in workloads_of(options.subjects or ["dense"])]
    compare_all(keys, configuration.threads(), options.seconds)


def _show(options: argparse.Namespace) -> None:
    workload = workload_of(options.workload)
    _print(choice_lines(workload, llvm=options.llvm, asm=options.asm))


if __name__ == "__main__":
    sys.exit(main())
