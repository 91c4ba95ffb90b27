"""Workloads and records that tests of schedules and of tuning share."""

from dataclasses import replace

from adlik_kernels.machine.target import host
from adlik_kernels.schedules.db import Record
from adlik_kernels.schedules.schedule import Schedule
from adlik_kernels.workload import Conv2d, Dense

WORKLOAD = Dense(64, 256, 128)
CONVOLUTION = Conv2d(9, 7, 12, 40, kernel=(3, 3), stride=(2, 1), padding=(1, 1))


def record(workload=WORKLOAD, schedule=None, speed=1.0, threads=2, target=None):
    return Record(
        workload=workload.key,
        target=target or host().key,
        threads=threads,
        schedule=schedule or Schedule(4, 2),
        seconds=0.001,
        speed=speed,
    )


def let_the_fastest_win(database):
    """Gives the fastest schedule that was measured a clear gain, and returns it.

    How fast it really was depends on what else the machine did; one slower than the default is
    never chosen.
    """
    measured = list(database)
    best = max(measured, key=lambda found: found.speed)
    kept = [found for found in measured if found.schedule != best.schedule]
    lines = [found.to_json() for found in (*kept, replace(best, speed=1 + best.speed))]
    database.path.write_text("\n".join(lines) + "\n")
    return best.schedule
