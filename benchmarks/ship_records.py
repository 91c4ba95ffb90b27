"""Tunes every known workload here, and writes the records that are shipped with the library.

    python -m benchmarks.ship_records --seconds 20     # half an hour; goes on where it was cut
    python -m benchmarks.ship_records points-int8      # replaces the records of one group

Records gather in the cache folder. Of each workload a spread from the best to the worst is shipped,
for a cost model learns as much from slow schedules as from fast ones. What was shipped of other
workloads stays.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import adlik_kernels.schedules
from adlik_kernels import configure, configured
from adlik_kernels.__main__ import AGENTS
from adlik_kernels.configuration import target
from adlik_kernels.reports import Progress
from adlik_kernels.schedules.db import Database, Record, shipped
from adlik_kernels.schedules.known import workloads_of
from adlik_kernels.schedules.space import Space
from adlik_kernels.search import tune
from adlik_kernels.search.measure import Meter

KEPT = 6
"""Records shipped of each workload and number of threads."""


def gather(database: Database, options: argparse.Namespace, threads: int) -> None:
    configure(threads=threads)
    with Meter(threads) as meter:
        for workload in workloads_of(options.subjects):
            space = Space(workload, target(), threads)
            agent = AGENTS[options.agent](space, 0, [*shipped(), *database])
            progress = Progress(workload.key, options.trials)
            found = tune(
                workload,
                agent,
                meter,
                trials=options.trials,
                seconds=options.seconds,
                finalists=3,
                database=database,
                progress=progress,
            )
            progress.end(f"{threads} threads, {found.line(workload)}")


def spread(records: list[Record]) -> list[Record]:
    """Returns the best records of each workload, and some of the others, evenly by their rank."""
    places: dict[tuple[str, int], dict[str, Record]] = {}
    for record in records:
        found = places.setdefault((record.workload, record.threads), {})
        before = found.setdefault(str(record.schedule), record)
        if record.speed < before.speed:  # of repeated measurements the slower counts
            found[str(record.schedule)] = record
    kept = []
    for place in sorted(places):
        ranked = sorted(places[place].values(), key=lambda record: -record.speed)
        count = min(KEPT, len(ranked))
        ranks = {round(n * (len(ranked) - 1) / max(count - 1, 1)) for n in range(count)}
        kept += [ranked[rank] for rank in sorted(ranks)]
    return [
        replace(record, seconds=float(f"{record.seconds:.4g}"), speed=round(record.speed, 4))
        for record in kept
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("subjects", nargs="*", default=["dense", "conv"], help="groups or keys")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=20.0, help="for each workload")
    parser.add_argument("--trials", type=int, default=48, help="for each workload")
    parser.add_argument("--agent", choices=AGENTS, default="policy")
    options = parser.parse_args()
    database = Database(configured().cache / f"shipping-{target().key}.jsonl")
    for threads in options.threads:
        gather(database, options, threads)
    place = Path(adlik_kernels.schedules.__file__).parent / "records" / f"{target().key}.jsonl"
    wanted = {workload.key for workload in workloads_of(options.subjects)}
    found = [record for record in database if record.workload in wanted]
    anew = {(record.workload, record.threads) for record in found}
    kept = [r for r in Database(place) if (r.workload, r.threads) not in anew]
    place.write_text("".join(record.to_json() + "\n" for record in spread([*kept, *found])))
    print(f"{place}: {len(place.read_text().splitlines())} records")


if __name__ == "__main__":
    main()
