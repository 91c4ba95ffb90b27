"""One way to compute a product, and the values that its fields may take."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from adlik_kernels.errors import InvalidSchedule

SHAPES = (
    *((14, 2), (13, 2), (12, 2), (10, 2), (8, 2), (7, 2), (6, 2), (4, 2), (2, 2), (1, 2)),
    *((28, 1), (24, 1), (14, 1), (12, 1), (8, 1), (4, 1), (1, 1)),
    *((9, 3), (8, 3), (7, 3), (6, 3), (4, 3), (3, 3), (2, 3), (1, 3)),
    *((7, 4), (6, 4), (5, 4), (4, 4), (3, 4), (2, 4), (1, 4)),
    *((5, 5), (4, 6), (3, 6), (2, 6), (1, 6), (3, 8), (2, 8), (1, 8)),
)
"""Register blocks worth trying: rows of x, vectors of w."""

AHEAD = 8
"""Steps of k by which weights that come from far away are fetched in time."""

NEXT = -1
"""What is fetched ahead is the next block of weights."""

PACKED_BYTES = 1 << 18
"""Most of x that a call copies, to its stack."""

PAGE, WAYS = 4096, 8
"""Rows this many bytes apart share a set of the first cache, which holds so many of them."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """One way to compute a dense product.

    Attributes:
        rows: Rows of the result that a micro-kernel keeps in registers.
        vectors: Vectors of columns that it keeps in registers.
        unroll: Steps of k written out in its loop.
        k_block: Words along k after which sums go back to memory; 0 for never.
        row_tiles: Tiles of rows in one block of rows.
        parallel: What is shared out among threads: "rows", "columns" or "blocks" (both).
        order: The outer loop: over "columns" (w stays in cache) or over "rows" (x stays).
        prefetch: Steps by which packed w is fetched ahead; 0 for never; `NEXT` for the block of w
            that comes next, spread over all tiles that use this one (convolutions).
        pack: Whether a block of rows of x is copied before it is used, so that rows a power of two
            apart no longer meet in a few sets of the caches (products).
    """

    rows: int = 14
    vectors: int = 2
    unroll: int = 1
    k_block: int = 0
    row_tiles: int = 8
    parallel: str = "rows"
    order: str = "columns"
    prefetch: int = 0
    pack: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Returns the schedule as plain values, for records."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Schedule:
        """Reads a schedule from a record; older ones say nothing of `pack`.

        Raises:
            InvalidSchedule: A field is missing, unknown or of the wrong type.
        """
        values = {"pack": False, **values}
        if set(values) != set(_KINDS):
            raise InvalidSchedule(
                f"A schedule has the fields {sorted(_KINDS)}, not {sorted(values)}."
            )
        wrong = [name for name, kind in _KINDS.items() if type(values[name]) is not kind]
        if wrong:
            raise InvalidSchedule(f"The fields {wrong} of a schedule have the wrong type.")
        return cls(**values)


_KINDS = {name: type(value) for name, value in Schedule().to_dict().items()}

CHOICES: dict[str, tuple[Any, ...]] = {
    "unroll": (1, 2, 4),
    "k_block": (0, 128, 256, 384, 512, 1024),
    "row_tiles": (1, 2, 4, 8, 16, 64),
    "parallel": ("rows", "columns", "blocks"),
    "order": ("columns", "rows"),
    "prefetch": (0, AHEAD, NEXT),
    "pack": (False, True),
}
"""Values of the fields that are chosen one by one; `SHAPES` holds the pairs of rows and vectors."""
