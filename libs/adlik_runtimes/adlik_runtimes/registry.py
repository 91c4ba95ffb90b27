"""Finds the installed engines by their entry points (group "adlik.engines")."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from adlik_common.errors import NotFound

from adlik_runtimes.engine import Engine

GROUP = "adlik.engines"


@cache
def engines() -> dict[str, Engine]:
    """Returns every registered engine by name, available or not."""
    found = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    return {point.name: point.load() for point in found}


def engine(name: str) -> Engine:
    """Returns an engine; raises `NotFound` where none has the name."""
    known = engines()
    if name not in known:
        raise NotFound(
            f"There is no engine '{name}'.",
            cure=f"Choose among {sorted(known)}, or install the package that brings it.",
        )
    return known[name]
