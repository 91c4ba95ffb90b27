"""Agents that search a table of measured schedules, and how soon they find the fast ones."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from adlik_kernels.schedules.db import Record
from adlik_kernels.schedules.schedule import Schedule
from adlik_kernels.schedules.space import Space
from adlik_kernels.search import (
    Agent,
    Annealing,
    Evolution,
    Grid,
    Learned,
    Policy,
    Random,
)

from benchmarks.kernel_cases.schedule_tables import Entry, ListedSpace

KEPT = 64
"""Records that transfer gets of each other shape, drawn at random."""

Transfer = Sequence[Record]

AGENTS: dict[str, Callable[[Space, int, int, Transfer], Agent]] = {
    "random": lambda space, seed, *_: Random(space, seed),
    "grid": lambda space, _seed, trials, _: Grid(space, trials),
    "evolution": lambda space, seed, *_: Evolution(space, seed),
    "annealing": lambda space, seed, *_: Annealing(space, seed),
    "policy": lambda space, seed, *_: Policy(space, seed),
    "policy, transfer": lambda space, seed, _, others: Policy(space, seed, others),
    "learned": lambda space, seed, *_: Learned(space, seed),
    "learned, transfer": lambda space, seed, _, others: Learned(space, seed, others),
}
"""Agents by name, from a space, a seed, the trials there will be, and records of other shapes."""


@dataclass(frozen=True, slots=True)
class Run:
    """One search: part of the table's best, and seconds spent, after each trial."""

    parts: list[float]
    clock: list[float]

    def part_at(self, seconds: float) -> float:
        """The part of the best that was found by then."""
        found = [p for p, spent in zip(self.parts, self.clock, strict=True) if spent <= seconds]
        return max(found, default=0.0)


def replay(
    name: str,
    space: ListedSpace,
    table: dict[Schedule, Entry],
    seed: int,
    trials: int,
    others: Transfer,
) -> Run:
    """Lets an agent search a table; its own thinking counts, and what each trial cost.

    The default schedule is not counted: it is known without any search.
    """
    default, top = space.default(), max(entry.speed for entry in table.values())
    start, paid = time.perf_counter(), 0.0
    agent = AGENTS[name](space, seed, trials, others)
    parts, clock, best, tried = [], [], 0.0, set()
    while len(parts) < trials:
        schedule = agent.ask()
        if schedule is None:
            break
        found = table[schedule]
        agent.tell(schedule, found.speed)
        if schedule in tried or schedule == default:
            continue
        tried.add(schedule)
        paid += found.cost
        best = max(best, found.speed / top)
        parts.append(best)
        clock.append(paid + time.perf_counter() - start)
    missing = trials - len(parts)  # where nothing was left to try
    return Run(parts + [best] * missing, clock + clock[-1:] * missing)


def records_of(key: str, target: str, threads: int, table: dict[Schedule, Entry]) -> list[Record]:
    """Returns as many of a table's measurements as a tuning run leaves, for transfer elsewhere."""
    kept = random.Random(0).sample(sorted(table, key=str), min(KEPT, len(table)))
    return [
        Record(key, target, threads, schedule, table[schedule].seconds, table[schedule].speed)
        for schedule in kept
        if table[schedule].seconds
    ]
