"""Tunes the operators of a bundle for Adlik's own kernels, in a child process.

What is found counts only if the whole model is faster with it: single kernels that win alone may
lose beside each other.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

from adlik_common import bundle
from adlik_common.errors import EngineFailed
from adlik_kernels.commands import model_operations, tune_workloads
from adlik_kernels.configuration import configure, target
from adlik_kernels.schedules.db import Database, Record
from adlik_kernels.schedules.registry import best_records, database_path
from adlik_kernels.workload import Workload
from adlik_proof.draws import find_drawer
from adlik_proof.reference import Reference
from adlik_runtimes.engine import Array, LoadedModel
from adlik_runtimes.kernels import ENGINE, MODEL_FILE, RECORDS_FILE

from adlik_compiler.measure import measure_in_turns

TRIALS = 64
"""Schedules at most for one operator."""

SEARCH_SECONDS = 5.0
"""Time after which no more sizes are looked for that the model takes."""

MEASURE_SECONDS = 2.0
"""About how long the whole model is measured, before and after."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How a bundle is tuned.

    Attributes:
        seconds: About how long schedules are looked for.
        threads: Threads that share a call, as for serving.
        min_gain: How many times faster the whole model must be for a new bundle.
        max_bundle_bytes: Largest size of the unpacked bundle.
    """

    seconds: float
    threads: int
    min_gain: float
    max_bundle_bytes: int


@dataclass(frozen=True, slots=True)
class Tuned:
    """What tuning a bundle has shown.

    Attributes:
        records: Operators for which there is a faster schedule than the default.
        speedup: How many times faster the whole model is with them; 1 where there are none.
        seconds: How long it took.
        bundle: File of the new bundle; "" where the old one stays.
        reason: Why it stays.
    """

    records: int
    speedup: float
    seconds: float
    bundle: str = ""
    reason: str = ""


def tune_bundle(archive: str, kept: str, effort: dict[str, Any]) -> dict[str, Any]:
    """Tunes a bundle; what `run_isolated` calls, so arguments and result are JSON-able.

    Args:
        archive: The bundle.
        kept: Folder of the measurements: a run that was cut off goes on with them.
        effort: Fields of an `Effort`.

    Returns:
        The fields of a `Tuned`; a new bundle lies in the work directory.

    Raises:
        AdlikError: The bundle can't be unpacked or loaded.
    """
    work, started = Effort(**effort), monotonic()
    # This process may be killed at any time: what it leaves must lie where its caller cleans up.
    tempfile.tempdir = str(Path.cwd())
    old, new = Path.cwd() / "bundle", Path.cwd() / "tuned"
    old.mkdir()
    bundle.unpack(Path(archive), old, max_bytes=work.max_bundle_bytes)
    costs = model_operations(old / MODEL_FILE)
    configure(records=Path(kept) / RECORDS_FILE, threads=work.threads)
    if costs:
        tune_workloads(costs, seconds=work.seconds, trials=TRIALS)
    found = winners(costs, work.threads)
    if not found:
        return asdict(Tuned(0, 1.0, monotonic() - started, reason="no operator got faster"))
    shutil.copytree(old, new, copy_function=os.link)
    (new / RECORDS_FILE).unlink(missing_ok=True)
    Database(new / RECORDS_FILE).merge([*Database(old / RECORDS_FILE), *found])
    speedup = _whole_speedup(old, new, work.threads)
    tuned = Tuned(len(found), speedup, monotonic() - started)
    if speedup < work.min_gain:
        reason = f"the whole model is {speedup:.3f} times as fast, {work.min_gain:g} are needed"
        return {**asdict(tuned), "reason": reason}
    result = Path.cwd() / "tuned.zip"
    bundle.pack(new, [str(file.relative_to(new)) for file in _files(new)], result)
    return {**asdict(tuned), "bundle": str(result)}


def winners(workloads: Iterable[Workload], threads: int) -> list[Record]:
    """Returns the records that the registry would take and that beat the default schedule."""
    own, machine = set(Database(database_path())), target()
    found = []
    for work in workloads:
        best = best_records(machine, min(threads, 2), work.dtype).get(work.key)
        if best is not None and best.speed > 1 and best in own:
            found.append(best)
    return found


def _whole_speedup(old: Path, new: Path, threads: int) -> float:
    """Loads both bundles as serving does, on a machine without records, and runs them in turns."""
    before, after = _loaded(old, threads), _loaded(new, threads)
    run = _typical(old / MODEL_FILE)
    slow, fast = measure_in_turns(
        [partial(before.run, run), partial(after.run, run)], MEASURE_SECONDS
    )
    return slow.p50_ms / fast.p50_ms


def _typical(model: Path) -> dict[str, Array]:
    """Returns inputs to measure on; raises `EngineFailed` where the model takes none made up."""
    reference = Reference(model)
    drawer = find_drawer(reference, {}, SEARCH_SECONDS)
    if drawer is None:
        raise EngineFailed("No inputs could be made up that the model runs on.")
    return drawer.typical()


def _loaded(folder: Path, threads: int) -> LoadedModel:
    configure(records=folder.with_name(f"{folder.name}-{RECORDS_FILE}"))
    return ENGINE.load(folder, threads=threads)


def _files(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]
