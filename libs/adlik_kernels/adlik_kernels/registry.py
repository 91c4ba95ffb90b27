"""Which schedule a workload gets unmeasured: its record's, its nearest neighbour's, the default."""

from __future__ import annotations

from dataclasses import dataclass

from adlik_kernels.space import Schedule, Space
from adlik_kernels.target import Target
from adlik_kernels.workload import Dense


@dataclass(frozen=True, slots=True)
class Choice:
    """A schedule and where it comes from.

    Attributes:
        schedule: The schedule.
        origin: "record", "nearest" or "default".
    """

    schedule: Schedule
    origin: str


def choose(workload: Dense, target: Target, threads: int) -> Choice:
    """Returns the schedule for a workload.

    Args:
        workload: What is computed; rows 0 for any number of them.
        target: The machine.
        threads: Threads that will share the work.
    """
    return Choice(Space(workload, target, threads).default(), "default")
