"""Workloads and records that tests of schedules and of tuning share."""

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
