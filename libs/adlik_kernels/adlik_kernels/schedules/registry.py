"""Which schedule a workload gets unmeasured: its record's, its neighbour's, a default."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path

from adlik_kernels.configuration import configured
from adlik_kernels.machine.target import Target
from adlik_kernels.schedules.db import Database, Record, shipped, workload_of
from adlik_kernels.schedules.schedule import Schedule
from adlik_kernels.schedules.space import Space
from adlik_kernels.workload import Conv2d, Workload

NEAR = 2.0
"""Neighbours are used up to this distance: doublings of rows, columns and depth together."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A schedule and where it comes from.

    Attributes:
        schedule: The schedule.
        origin: "record", "nearest" or "default".
        source: Key of the workload whose record it is; "" for a default.
    """

    schedule: Schedule
    origin: str
    source: str = ""


def database_path() -> Path:
    """Returns the file of the records that were made on this machine."""
    settings = configured()
    return settings.records or settings.cache / "records.jsonl"


def merge_records(path: Path) -> int:
    """Adds records of another machine or run to those made here.

    Args:
        path: A file of records.

    Returns:
        How many of them were new.

    Raises:
        InvalidRecord: The file does not follow the format.
    """
    return Database(database_path()).merge(Database(path))


def choose(workload: Workload, target: Target, threads: int) -> Choice:
    """Returns the schedule for a workload.

    Records of this very processor count before those of others with the same instruction level;
    those of schedules that were slower than the default do not count.

    Args:
        workload: What is computed; rows 0 for any number of them.
        target: The machine.
        threads: Threads that will share the work.
    """
    space = Space(workload, target, threads)
    best = best_records(target, 1 if threads == 1 else 2, workload.dtype)
    by_shape = {key: record for key, record in best.items() if record.speed >= 1}
    own = by_shape.get(workload.key)
    if own is not None and not space.fault(own.schedule) and space.shares(own.schedule):
        return Choice(own.schedule, "record", own.workload)
    if workload.rows:
        near = min(by_shape.values(), key=lambda r: distance(workload, r.workload), default=None)
        if near is not None and distance(workload, near.workload) <= NEAR:
            schedule = space.repaired(near.schedule)
            if not space.fault(schedule) and space.shares(schedule):
                return Choice(schedule, "nearest", near.workload)
    return Choice(space.default(), "default")


def distance(workload: Workload, key: str) -> float:
    """Returns how many doublings lie between a workload and a record's; no end for another kind."""
    other = workload_of(key)
    if type(workload) is not type(other):
        return math.inf
    if _window(workload) != _window(other):
        return math.inf
    pairs = (
        (workload.rows, other.rows),
        (workload.columns, other.columns),
        (workload.depth, other.depth),
    )
    return sum(abs(math.log2(max(a, 1) / max(b, 1))) for a, b in pairs)


def _window(workload: Workload) -> tuple[object, ...]:
    """What two convolutions must share to be neighbours."""
    if isinstance(workload, Conv2d):
        layouts = (workload.in_layout, workload.out_layout)
        return workload.kernel, workload.stride, workload.dilation, workload.groups, layouts
    return ()


def best_records(target: Target, threads: int, dtype: str) -> dict[str, Record]:
    """Returns the fastest record of every shape, by the workload's key.

    Args:
        target: The machine; other processors' records are used where it has none of its own.
        threads: 1 for records of a single thread, 2 for those of several.
        dtype: Element type.
    """
    path = database_path()
    stamp = path.stat() if path.exists() else None
    return _best(path, stamp and (stamp.st_mtime_ns, stamp.st_size), target.key, threads, dtype)


@functools.lru_cache(maxsize=64)
def _best(
    path: Path, _stamp: tuple[int, int] | None, target: str, threads: int, dtype: str
) -> dict[str, Record]:
    level = target.rpartition("-")[2]
    slowest: dict[tuple[str, str, Schedule], Record] = {}
    for record in (*shipped(), *Database(path)):
        if record.target.rpartition("-")[2] != level or min(record.threads, 2) != threads:
            continue
        # Of repeated measurements the slowest counts: a lucky one must not win for ever.
        place = (record.workload, record.target, record.schedule)
        if place not in slowest or record.speed < slowest[place].speed:
            slowest[place] = record
    found: dict[str, Record] = {}
    for record in slowest.values():
        if workload_of(record.workload).dtype != dtype:
            continue
        best = found.get(record.workload)
        if best is None or _rank(record, target) > _rank(best, target):
            found[record.workload] = record
    return found


def _rank(record: Record, target: str) -> tuple[bool, float]:
    return record.target == target, record.speed
