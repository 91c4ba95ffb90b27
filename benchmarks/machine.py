"""The machine that a benchmark runs on, and whether others use it."""

from __future__ import annotations

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

LOOK_SECONDS = 0.3
QUIET_SHARE = 0.15


def describe(*packages: str) -> str:
    """Returns a line: processor, cores, Python, versions of packages."""
    names = {
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    }
    versions = "".join(f", {name} {version(name)}" for name in packages)
    cores = len(os.sched_getaffinity(0))
    return (
        f"{', '.join(sorted(names))}, {cores} cores, Python {platform.python_version()}{versions}"
    )


def wait_quiet(patience: float) -> float:
    """Waits until little else runs, at most `patience` seconds.

    Returns:
        Share of the cores that was in use at the last look, 0..1.
    """
    give_up = time.monotonic() + patience
    while (busy := _busy_share()) > QUIET_SHARE and time.monotonic() < give_up:
        pass
    return busy


def _busy_share() -> float:
    before = _ticks()
    time.sleep(LOOK_SECONDS)
    idle, total = (after - then for after, then in zip(_ticks(), before, strict=True))
    return 1.0 - idle / max(1, total)


def _ticks() -> tuple[int, int]:
    """Returns the ticks in which the cores were idle, and all, since the machine started."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)
