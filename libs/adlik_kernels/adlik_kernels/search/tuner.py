"""One tuning run: an agent asks, a meter measures, the agent is told, until the budget is spent."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from adlik_kernels import configuration
from adlik_kernels.errors import MeasureFailed
from adlik_kernels.schedules.db import Database, Record
from adlik_kernels.schedules.schedule import Schedule
from adlik_kernels.search.measure import Measurement
from adlik_kernels.workload import Workload


class Agent(Protocol):
    """Looks for a good schedule."""

    def ask(self) -> Schedule | None:
        """Returns a schedule that has not been tried, or None when there is none left."""

    def tell(self, schedule: Schedule, speed: float) -> None:
        """Hears how fast a schedule was, relative to the default; 0 if it failed."""


class Measures(Protocol):
    """Measures schedules: a `Meter`, or a table of earlier measurements."""

    @property
    def threads(self) -> int:
        """Threads that share a call."""

    def measure(self, workload: Workload, schedule: Schedule) -> Measurement:
        """Measures one schedule; see `Meter.measure`."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One measured schedule.

    Attributes:
        schedule: What was tried.
        speed: How many times faster than the default it was; 0 if it failed.
        seconds: Time of one call; 0 if it failed.
        fault: Why it failed; "" if it did not.
    """

    schedule: Schedule
    speed: float
    seconds: float
    fault: str = ""


@dataclass(frozen=True, slots=True)
class TuneResult:
    """What a run found.

    Attributes:
        trials: All trials, in order.
        elapsed: Seconds that the run took.
    """

    trials: Sequence[Trial]
    elapsed: float

    @property
    def best(self) -> Trial:
        """The fastest trial."""
        return max(self.trials, key=lambda trial: trial.speed)

    def line(self, workload: Workload) -> str:
        """What was found, for people to read."""
        return (
            f"{workload.key}: {self.best.speed:.3f} times the default, "
            f"{len(self.trials)} trials, {self.elapsed:.0f} s, {self.best.schedule}"
        )


def tune(
    workload: Workload,
    agent: Agent,
    meter: Measures,
    *,
    trials: int = 64,
    seconds: float = float("inf"),
    patience: int = 0,
    finalists: int = 0,
    database: Database | None = None,
    again: bool = False,
    progress: Callable[[Trial], None] | None = None,
) -> TuneResult:
    """Tunes one workload.

    A run that was cut off goes on: trials that the database holds are told to the agent first and
    are not measured again.

    Args:
        workload: What is computed; its rows must be known.
        agent: Who chooses what to try.
        meter: Who measures.
        trials: Trials at most, those of the database among them.
        seconds: Seconds at most.
        patience: Trials without any gain after which to stop; 0 to never stop early.
        finalists: Best trials that are measured again at the end; the slower time counts, for the
            best of many noisy measurements is often a lucky one.
        database: Where trials are recorded.
        again: Measures what the database holds, too, and adds to it.
        progress: Called after every new trial.
    """
    start = time.monotonic()
    done = [] if again else _earlier(workload, meter.threads, database)
    earlier = len(done)
    for trial in done:
        agent.tell(trial.schedule, trial.speed)
    known = {trial.schedule for trial in done}
    while len(done) < trials and time.monotonic() - start < seconds:
        schedule = agent.ask()
        if schedule is None or _stalled(done, patience):
            break
        if schedule in known:
            agent.tell(schedule, next(t.speed for t in done if t.schedule == schedule))
            continue
        trial = _try(workload, schedule, meter)
        known.add(schedule)
        done.append(trial)
        agent.tell(schedule, trial.speed)
        if database is not None and not trial.fault:
            database.add(_record(workload, meter.threads, trial))
        if progress is not None:
            progress(trial)
    if len(done) > earlier:
        _measure_again(done, finalists, workload, meter, database)
    return TuneResult(done, time.monotonic() - start)


def _measure_again(
    done: list[Trial],
    finalists: int,
    workload: Workload,
    meter: Measures,
    database: Database | None,
) -> None:
    """Measures the best trials once more and keeps the slower time of each."""
    for place in sorted(range(len(done)), key=lambda n: -done[n].speed)[:finalists]:
        second = _try(workload, done[place].schedule, meter)
        if second.speed < done[place].speed:
            done[place] = second
        if database is not None and not second.fault:
            database.add(_record(workload, meter.threads, second))


def _try(workload: Workload, schedule: Schedule, meter: Measures) -> Trial:
    try:
        found = meter.measure(workload, schedule)
    except MeasureFailed as error:
        return Trial(schedule, 0.0, 0.0, str(error))
    return Trial(schedule, found.speed, found.seconds)


def _stalled(done: Sequence[Trial], patience: int) -> bool:
    if not patience or len(done) <= patience:
        return False
    before = max(trial.speed for trial in done[:-patience])
    return all(trial.speed <= before for trial in done[-patience:])


def _earlier(workload: Workload, threads: int, database: Database | None) -> list[Trial]:
    if database is None:
        return []
    target = configuration.target().key
    found: dict[Schedule, Trial] = {}
    for record in database:
        if (record.workload, record.target, record.threads) != (workload.key, target, threads):
            continue
        # Finalists were measured twice: the slower time counts, as it did then.
        before = found.get(record.schedule)
        if before is None or record.speed < before.speed:
            found[record.schedule] = Trial(record.schedule, record.speed, record.seconds)
    return list(found.values())


def _record(workload: Workload, threads: int, trial: Trial) -> Record:
    return Record(
        workload=workload.key,
        target=configuration.target().key,
        threads=threads,
        schedule=trial.schedule,
        seconds=trial.seconds,
        speed=round(trial.speed, 4),
    )
