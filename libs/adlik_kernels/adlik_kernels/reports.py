"""What the library knows, as lines to read: records, choices, limits, a tuning run as it goes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

from adlik_kernels import configuration
from adlik_kernels.codegen.build import machine_code
from adlik_kernels.machine.roofline import roofline
from adlik_kernels.schedules.db import Database, Record, shipped, workload_of
from adlik_kernels.schedules.registry import choose, database_path
from adlik_kernels.search.tuner import Trial
from adlik_kernels.templates.conv import conv2d_module
from adlik_kernels.templates.dense import dense_module
from adlik_kernels.workload import Conv2d, Workload

BAR = 24
"""Letters of a progress bar."""


def record_lines(*, everywhere: bool = False) -> Iterator[str]:
    """Yields the best record of each workload and who made it: "shipped" or "made here".

    Args:
        everywhere: Whether to show the records of other machines, too.
    """
    best: dict[tuple[str, str, int], tuple[Record, str]] = {}
    sources = (("shipped", shipped()), ("made here", Database(database_path())))
    for origin, record in ((origin, record) for origin, found in sources for record in found):
        place = (record.workload, record.target, record.threads)
        if place not in best or record.speed > best[place][0].speed:
            best[place] = record, origin
    mine = configuration.target().key
    for (key, target, threads), (record, origin) in sorted(best.items()):
        if not everywhere and target != mine:
            continue
        speed = workload_of(key).operations / record.seconds / 1e9
        yield (
            f"{key:40} {target:18} {threads} threads {speed:8.1f} Gop/s "
            f"{record.speed:6.3f} x  {origin:9}  {record.schedule}"
        )


def choice_lines(workload: Workload, *, llvm: bool = False, asm: bool = False) -> Iterator[str]:
    """Yields which schedule a workload gets here and why, and the code that is made of it.

    Args:
        workload: What is computed.
        llvm: Whether to show the LLVM assembly that the template writes.
        asm: Whether to show the machine's assembly that LLVM makes of it.
    """
    target, threads = configuration.target(), configuration.threads()
    choice = choose(workload, target, threads)
    reason = f"{choice.origin} {choice.source}".rstrip()
    yield f"{workload.key} on {target.key}, {threads} threads: {reason}"
    yield str(choice.schedule)
    if not (llvm or asm):
        return
    if isinstance(workload, Conv2d):
        text = str(conv2d_module(workload, choice.schedule, target))
    else:
        text = str(dense_module(workload, choice.schedule, target))
    if llvm:
        yield text
    if asm:
        yield machine_code(text, target)


def roofline_lines() -> Iterator[str]:
    """Yields what the machine can do at most: products, bandwidths, latencies, caches, the TLB."""
    target, threads = configuration.target(), configuration.threads()
    limits = roofline(threads)
    held = {"l1": target.l1_bytes, "l2": target.l2_bytes, "l3": target.l3_bytes}
    yield f"{limits.machine} ({limits.target}), {threads} of {target.cores} cores"
    for dtype, operations in limits.operations.items():
        yield f"{dtype:8} {operations / 1e9:8.0f} Gop/s"
    for place, speed in limits.bandwidth.items():
        size = f"{held[place] >> 10:8} KiB" if place in held else " " * 12
        waits = f"{limits.latency[place] * 1e9:8.1f} ns"
        yield f"{place:8} {speed / 1e9:8.1f} GB/s {waits} {size}"
    tlb = limits.translation
    yield f"{'tlb 1':8} {tlb.first:8} pages, a miss {tlb.first_miss * 1e9:.1f} ns"
    yield f"{'tlb 2':8} {tlb.second:8} pages, a miss {tlb.second_miss * 1e9:.1f} ns"


@dataclass(slots=True)
class Progress:
    """Shows a tuning run: a bar on a terminal, elsewhere a mark for each trial.

    Marks are "+" for a schedule that is faster than the default, "." for one that is not, and "x"
    for one that failed.

    Attributes:
        label: What is tuned.
        trials: Trials at most.
    """

    label: str
    trials: int
    _tried: int = 0
    _best: float = field(default=0.0)

    def __call__(self, trial: Trial) -> None:
        """Shows one more trial."""
        self._tried, self._best = self._tried + 1, max(self._best, trial.speed)
        if not sys.stdout.isatty():
            _write("x" if trial.fault else "+" if trial.speed > 1 else ".")
            return
        full = min(BAR * self._tried // max(self.trials, 1), BAR)
        bar = "#" * full + "-" * (BAR - full)
        _write(f"\r{self.label:40} [{bar}] {self._tried}/{self.trials}  {self._best:.3f} x")

    def end(self, line: str) -> None:
        """Closes the run with a line of its own."""
        _write(f"\n{line}\n" if self._tried else f"{line}\n")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
