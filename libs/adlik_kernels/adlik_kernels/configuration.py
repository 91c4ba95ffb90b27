"""What a process says once about kernels: their folder, their instructions, their threads."""

from __future__ import annotations

import os
import tempfile
import threading
from dataclasses import dataclass, replace
from pathlib import Path

from adlik_kernels.errors import KernelError
from adlik_kernels.machine.target import Target, cores, host


@dataclass(frozen=True, slots=True)
class Configuration:
    """The settings of a process.

    Attributes:
        cache: Folder of compiled kernels, of the measured roofline and of tuning records made here.
        records: File of those records; None for the one in the cache.
        level: Highest instruction level that may be used (see `target.LEVELS`); "" for all.
        threads: Threads that share one call, the caller's own among them; 0 for one a core.
    """

    cache: Path
    level: str = ""
    threads: int = 0
    records: Path | None = None


def _own_folder() -> Path:
    """The user's cache, or a folder beside other temporary ones where there is no home to write."""
    home = Path.home()
    if os.access(home, os.W_OK):
        return home / ".cache" / "adlik" / "kernels"
    return Path(tempfile.gettempdir()) / f"adlik-kernels-{os.getuid()}"


_lock = threading.Lock()
_current = Configuration(cache=_own_folder())


def configure(
    *,
    cache: Path | str | None = None,
    level: str | None = None,
    threads: int | None = None,
    records: Path | str | None = None,
) -> Configuration:
    """Changes the settings of this process; what is not given stays as it is.

    Kernels that were prepared before keep what they were prepared with.

    Args:
        cache: Folder for compiled kernels and measurements.
        level: Highest instruction level: "portable", "avx2", "avx512", "amx", or "" for all.
        threads: Threads that share one call; 0 for one a core.
        records: File of the tuning records made here; "" for the one in the cache.

    Raises:
        KernelError: The level is unknown or missing here, or the number of threads is negative.
    """
    global _current  # noqa: PLW0603 # the settings of a process are one value by nature
    with _lock:
        changed = _current
        if cache is not None:
            changed = replace(changed, cache=Path(cache))
        if records is not None:
            changed = replace(changed, records=Path(records) if records else None)
        if level is not None:
            if level:
                host().masked_to(level)
            changed = replace(changed, level=level)
        if threads is not None:
            if threads < 0:
                raise KernelError(
                    f"{threads} threads cannot share a call.",
                    cure="Give 0 for one a core, or a number above.",
                )
            changed = replace(changed, threads=threads)
        _current = changed
    return changed


def configured() -> Configuration:
    """Returns the settings of this process."""
    return _current


def target() -> Target:
    """Returns the machine as the settings allow it to be used."""
    level = _current.level
    return host().masked_to(level) if level else host()


def threads() -> int:
    """Returns how many threads share one call."""
    return _current.threads or cores()
