"""Tables of measured schedules, on which agents replay: luck in measuring is the same for all.

A table holds every schedule of a coarse grid over a workload's space, each measured twice in turns
with the default, in two random orders, and the seconds that compiling and measuring it took. What
counts is the shortest call of both measurements: in hundreds of turns on a busy machine there is
always one in which the default was disturbed, and the ratio of that turn would win.
"""

from __future__ import annotations

import itertools
import json
import random
import time
from dataclasses import dataclass, replace

from adlik_kernels.errors import MeasureFailed
from adlik_kernels.schedules.schedule import CHOICES, Schedule
from adlik_kernels.schedules.space import Space
from adlik_kernels.search.measure import Measurement, Meter

TABLE_SHAPES = 10
COARSE = {"k_block": (0, 256, 512), "row_tiles": (1, 8, 64), "unroll": (1, 2)}
"""What the grid keeps: so many register blocks, and fewer values of some fields."""

BURST = 0.003


@dataclass(frozen=True, slots=True)
class Entry:
    """A schedule of a table: its speed against the default, seconds of a call, what it cost.

    The speed and the seconds of a schedule that failed are 0.
    """

    speed: float
    seconds: float
    cost: float


@dataclass(frozen=True, slots=True)
class ListedSpace(Space):
    """A space of the schedules that a table holds."""

    listed: frozenset[Schedule] = frozenset()

    def fits(self, schedule: Schedule) -> bool:
        """Returns whether the table holds a schedule."""
        return schedule in self.listed


def coarse_grid(space: Space) -> list[Schedule]:
    """Returns the schedules of a table, the default first."""
    fitting = sorted({(s.rows, s.vectors) for s in space}, key=lambda s: (s[0] * s[1], s))
    step = max(len(fitting) / TABLE_SHAPES, 1.0)
    # From the large end: large register blocks are where the fast schedules lie.
    shapes = {fitting[-1 - int(n * step)] for n in range(min(TABLE_SHAPES, len(fitting)))}
    default = space.default()
    shapes.add((default.rows, default.vectors))
    choices = {name: COARSE.get(name, values) for name, values in CHOICES.items()}
    drawn = [default]
    for (rows, vectors), *values in itertools.product(sorted(shapes), *choices.values()):
        schedule = Schedule(rows, vectors, **dict(zip(choices, values, strict=True)))
        if space.fits(schedule) and schedule != default:
            drawn.append(schedule)
    return drawn


def load_table(space: Space, path) -> dict[Schedule, Entry]:
    """Returns a workload's table from a file, measuring first what is missing there."""
    known: dict[Schedule, Entry] = {}
    if path.exists():
        rows = json.loads(path.read_text())
        known = {Schedule.from_dict(row[0]): Entry(*row[1:]) for row in rows}
    wanted = coarse_grid(space)
    missing = [schedule for schedule in wanted if schedule not in known]
    if missing:
        known.update(measured(space, missing))
        rows = [[s.to_dict(), e.speed, e.seconds, e.cost] for s, e in known.items()]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows))
    default = known[wanted[0]].seconds
    return {
        schedule: replace(known[schedule], speed=default / known[schedule].seconds)
        if known[schedule].seconds
        else known[schedule]
        for schedule in wanted
    }


def measured(space: Space, schedules: list[Schedule]) -> dict[Schedule, Entry]:
    """Measures schedules twice each, in two random orders."""
    found: dict[Schedule, list[tuple[Measurement | None, float]]] = {s: [] for s in schedules}
    with Meter(space.threads, burst=BURST) as meter:
        for seed in range(2):
            order = list(schedules)
            random.Random(seed).shuffle(order)
            for schedule in order:
                start = time.perf_counter()
                try:
                    result = meter.measure(space.workload, schedule)
                except MeasureFailed:
                    result = None
                found[schedule].append((result, time.perf_counter() - start))
    return {schedule: _entry(*both) for schedule, both in found.items()}


def _entry(first, second) -> Entry:
    """The shorter of both times; the cost is the first one's, which compiled."""
    if first[0] is None or second[0] is None:
        return Entry(0.0, 0.0, first[1])
    speed = min(first[0].speed, second[0].speed)
    return Entry(speed, min(first[0].seconds, second[0].seconds), first[1])
