"""Where values lie in a plan's memory: those that never live at once share a place.

Values with a border share only with others of the very same shape: their borders are zeros that
nobody writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LINE = 64
"""Bytes of a cache line: every value begins at one."""


@dataclass(frozen=True, slots=True)
class Lifetime:
    """When a value is needed.

    Attributes:
        name: The value.
        first: The step that makes it.
        last: The last step that reads it.
        size: Its bytes.
        border: What values with a border must share to share a place, None without one.
    """

    name: str
    first: int
    last: int
    size: int
    border: tuple[int, ...] | None = None

    def meets(self, other: Lifetime) -> bool:
        """Returns whether both are needed at the same step."""
        return self.first <= other.last and other.first <= self.last


def arrange(lifetimes: Sequence[Lifetime]) -> tuple[dict[str, int], int]:
    """Returns where each value begins, in bytes, and how many bytes are needed in all.

    The largest value is placed first, each at the lowest place where no value of its time lies:
    "greedy by size", Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference"
    (2020).

    Args:
        lifetimes: The values.
    """
    placed: list[tuple[int, int, Lifetime]] = []
    places: dict[str, int] = {}
    for value in sorted(lifetimes, key=lambda v: (-v.size, v.first)):
        size = -(-value.size // LINE) * LINE
        taken = sorted((start, end) for start, end, other in placed if _apart(value, other))
        at = _like(value, placed)
        if at is None:
            at = 0
            for start, end in taken:
                if at + size <= start:
                    break
                at = max(at, end)
        placed.append((at, at + size, value))
        places[value.name] = at
    return places, max((end for _, end, _ in placed), default=LINE)


def _apart(value: Lifetime, other: Lifetime) -> bool:
    """Whether two values must not overlap: they meet, or one has a border."""
    return value.meets(other) or value.border is not None or other.border is not None


def _like(value: Lifetime, placed: Sequence[tuple[int, int, Lifetime]]) -> int | None:
    """The place of a value with the same border that is never needed at the same time."""
    if value.border is None:
        return None
    starts = {start for start, _, other in placed if _twins(value, other)}
    for start in sorted(starts):
        if all(not value.meets(other) for at, _, other in placed if at == start):
            return start
    return None


def _twins(value: Lifetime, other: Lifetime) -> bool:
    return (value.border, value.size) == (other.border, other.size)
