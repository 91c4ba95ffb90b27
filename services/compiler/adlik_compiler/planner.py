"""Finds the cheapest way from a source format to a target format over the registered steps."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import count

from adlik_common.errors import UnsupportedFormat


def _available() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Step:
    """A conversion from one format to another: an edge of the planner's graph.

    Attributes:
        source: Format that it reads.
        target: Format that it writes; an engine's own name where the engine takes the source
            format as it is and the step checks that it does.
        function: "package.module:name" of what converts, run in a child process and called with
            `source` (a file), `folder` (where to write) and `precision`; returns the file's path.
        media_type: Of the file that it writes.
        distribution: Package whose version decides the bytes that come out.
        cost: Relative; roughly the seconds that a mid-sized model takes.
        by_precision: Whether the bytes depend on the precision.
        unavailable: Returns why it can't be taken on this machine, "" where it can.
    """

    source: str
    target: str
    function: str
    media_type: str
    distribution: str
    cost: float = 1.0
    by_precision: bool = False
    unavailable: Callable[[], str] = _available


def plan_path(steps: Iterable[Step], source: str, target: str) -> tuple[Step, ...]:
    """Returns the cheapest steps from a source format to a target format (Dijkstra, 1959).

    Args:
        steps: The edges; those that are not available here are left out.
        source: Format of the model.
        target: Format that is wanted.

    Returns:
        Steps in order; empty where the source is the target. Of equally cheap paths the one with
        fewer steps, then the alphabetically first, so that every process picks the same.

    Raises:
        UnsupportedFormat: No path leads there; the error names what can be reached.
    """
    edges: dict[str, list[Step]] = {}
    for step in steps:
        if not step.unavailable():
            edges.setdefault(step.source, []).append(step)
    # Cost, number of steps, formats, and a number that settles ties before steps are compared.
    waiting: list[tuple[float, int, tuple[str, ...], int, tuple[Step, ...]]]
    waiting = [(0.0, 0, (source,), 0, ())]
    numbers = count(1)
    done: set[str] = set()
    while waiting:
        cost, length, formats, _, path = heapq.heappop(waiting)
        here = formats[-1]
        if here == target:
            return path
        if here in done:
            continue
        done.add(here)
        for step in edges.get(here, ()):
            if step.target not in done:
                longer = (length + 1, (*formats, step.target), next(numbers), (*path, step))
                heapq.heappush(waiting, (cost + step.cost, *longer))
    raise _unreachable(source, target, done - {source})


def _unreachable(source: str, target: str, reached: set[str]) -> UnsupportedFormat:
    can = f"From '{source}' it can reach {sorted(reached)}." if reached else "No step reads it."
    return UnsupportedFormat(
        f"No path of conversions leads from '{source}' to '{target}'.",
        cure=f"{can} Choose one of those or install the package with the missing step.",
        source=source,
        target=target,
    )
