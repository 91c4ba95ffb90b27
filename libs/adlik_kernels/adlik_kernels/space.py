"""How a product may be computed: schedules, their space, and what the machine rules out."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from adlik_kernels.errors import InvalidSchedule
from adlik_kernels.isa import GROUP
from adlik_kernels.target import Target
from adlik_kernels.workload import Dense

SHAPES = (
    *((14, 2), (13, 2), (12, 2), (10, 2), (8, 2), (7, 2), (6, 2), (4, 2), (2, 2), (1, 2)),
    *((28, 1), (24, 1), (14, 1), (12, 1), (8, 1), (4, 1), (1, 1)),
    *((9, 3), (8, 3), (7, 3), (6, 3), (4, 3), (3, 3), (2, 3), (1, 3)),
    *((7, 4), (6, 4), (5, 4), (4, 4), (3, 4), (2, 4), (1, 4)),
    *((5, 5), (4, 6), (3, 6), (2, 6), (1, 6), (3, 8), (2, 8), (1, 8)),
)
"""Register blocks worth trying: rows of x, vectors of w."""

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
        prefetch: Steps by which packed w is fetched ahead; 0 for never.
    """

    rows: int = 14
    vectors: int = 2
    unroll: int = 1
    k_block: int = 0
    row_tiles: int = 8
    parallel: str = "rows"
    order: str = "columns"
    prefetch: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Returns the schedule as plain values, for records."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Schedule:
        """Reads a schedule from a record.

        Raises:
            InvalidSchedule: A field is missing, unknown or of the wrong type.
        """
        kinds = {field.name: str if field.type == "str" else int for field in fields(cls)}
        if set(values) != set(kinds):
            raise InvalidSchedule(
                f"A schedule has the fields {sorted(kinds)}, not {sorted(values)}."
            )
        wrong = [name for name, kind in kinds.items() if type(values[name]) is not kind]
        if wrong:
            raise InvalidSchedule(f"The fields {wrong} of a schedule have the wrong type.")
        return cls(**values)


CHOICES: dict[str, tuple[Any, ...]] = {
    "unroll": (1, 2, 4),
    "k_block": (0, 128, 256, 384, 512, 1024),
    "row_tiles": (1, 2, 4, 8, 16, 64),
    "parallel": ("rows", "columns", "blocks"),
    "order": ("columns", "rows"),
    "prefetch": (0, 8),
}
"""Values of the fields that are chosen one by one; `SHAPES` holds the pairs of rows and vectors."""


@dataclass(frozen=True, slots=True)
class Space:
    """The schedules of one workload on one machine.

    Attributes:
        workload: What is computed; its rows must be known.
        target: The machine.
        threads: Threads that will share the work.
    """

    workload: Dense
    target: Target
    threads: int = 1

    def fault(self, schedule: Schedule) -> str:
        """Returns why a schedule is not in the space; "" if it is."""
        checks = (
            (schedule.rows < 1 or schedule.vectors < 1, "a tile needs rows and vectors"),
            (self._registers(schedule) >= self.target.registers, "the tile spills registers"),
            (
                schedule.unroll > 1 and schedule.rows * schedule.vectors > 20,
                "an unrolled tile this large spills registers",
            ),
            (any(getattr(schedule, f) not in c for f, c in CHOICES.items()), "a value is unknown"),
            (
                bool(schedule.k_block) and self.workload.dtype == "int8",
                "sums of int8 stay in registers",
            ),
            (schedule.k_block >= self.words, "the block of k is no smaller than k"),
            (
                bool(schedule.k_block) and self.words > 16 * schedule.k_block,
                "the blocks of k are too many",
            ),
        )
        return next((reason for wrong, reason in checks if wrong), "")

    @property
    def words(self) -> int:
        """32-bit words along k."""
        return -(-self.workload.depth // GROUP[self.workload.dtype])

    def fits(self, schedule: Schedule) -> bool:
        """Returns whether a schedule is worth trying: it is allowed and no twin of another."""
        rows = self.workload.rows
        if self.fault(schedule) or (rows and schedule.rows > rows):
            return False
        if rows >= 8 and schedule.rows < 4:
            return False
        if rows and schedule.row_tiles > 1 and schedule.rows * schedule.row_tiles >= 2 * rows:
            return False
        panels = -(-self.workload.columns // (schedule.vectors * self.target.lanes))
        narrower = (schedule.vectors - 1) * self.target.lanes
        if panels == 1 and narrower >= self.workload.columns:
            return False  # a whole vector of the panel would compute columns that nobody asked for
        return self.threads > 1 or schedule.parallel == "rows"

    def __iter__(self) -> Iterator[Schedule]:
        names = list(CHOICES)
        for rows, vectors in SHAPES:
            for values in itertools.product(*CHOICES.values()):
                schedule = Schedule(rows, vectors, **dict(zip(names, values, strict=True)))
                if self.fits(schedule):
                    yield schedule

    def sample(self, rng: random.Random) -> Schedule:
        """Returns a random schedule of the space."""
        while True:
            rows, vectors = rng.choice(SHAPES)
            chosen = {name: rng.choice(values) for name, values in CHOICES.items()}
            schedule = Schedule(rows, vectors, **chosen)
            if self.threads == 1:
                schedule = replace(schedule, parallel="rows")
            if self.fits(schedule):
                return schedule

    def neighbour(self, schedule: Schedule, rng: random.Random) -> Schedule:
        """Returns a schedule of the space that differs in one choice."""
        while True:
            name = rng.choice(["shape", *CHOICES])
            if name == "shape":
                rows, vectors = rng.choice(SHAPES)
                near = replace(schedule, rows=rows, vectors=vectors)
            else:
                near = replace(schedule, **{name: rng.choice(CHOICES[name])})
            if near != schedule and self.fits(near):
                return near

    def default(self) -> Schedule:
        """Returns a schedule that is good without any measurement, by rules of thumb.

        Large tiles hide the latency of the multiply-add; few rows want many columns, since then w
        streams from memory once; no more rows than the first cache has ways, for rows of x a power
        of two apart fall on the same set; threads share columns, for there are always enough of
        them.
        """
        rows, wide = self.workload.rows, self.target.registers == 32
        if 0 < rows < 4:
            schedule = Schedule(rows, 8 // rows if wide else 4 // rows, parallel="columns")
        else:
            shapes: tuple[tuple[int, int], ...] = ((6, 2), (4, 3))
            if wide:
                shapes = ((8, 3), (12, 2), (6, 4), (8, 2))
            if 4 * self.words % PAGE == 0:
                shapes = tuple(shape for shape in shapes if shape[0] <= WAYS)
            schedule = Schedule(*min(shapes, key=self._waste))
            schedule = replace(schedule, parallel="blocks" if rows >= 256 else "columns")
        if self.threads == 1:
            schedule = replace(schedule, parallel="rows")
        return self.repaired(schedule)

    def _waste(self, shape: tuple[int, int]) -> float:
        """Products that a register block computes for each one that is asked for."""
        width = shape[1] * self.target.lanes
        rows = self.workload.rows or shape[0]
        columns = self.workload.columns
        # The last panel computes whole vectors, not all of them; narrow ones hide latency badly.
        used = -(-columns // self.target.lanes) * self.target.lanes
        tail = (columns % width) / columns if columns % width else 0.0
        whole = -(-rows // shape[0]) * shape[0]
        return used / columns * (1 + 0.3 * tail) * (1 + 0.3 * (whole - rows) / rows)

    def repaired(self, schedule: Schedule) -> Schedule:
        """Returns the nearest allowed schedule to one that was made for another workload."""
        rows = self.workload.rows
        if rows:
            schedule = replace(schedule, rows=min(schedule.rows, rows))
        lanes, columns = self.target.lanes, self.workload.columns
        schedule = replace(schedule, vectors=min(schedule.vectors, -(-columns // lanes)))
        if self.words > 16 * schedule.k_block or schedule.k_block >= self.words:
            schedule = replace(schedule, k_block=0)
        if self.workload.dtype == "int8":
            schedule = replace(schedule, k_block=0)
        if schedule.rows * schedule.vectors > 20:
            schedule = replace(schedule, unroll=1)
        while self._registers(schedule) >= self.target.registers and schedule.rows > 1:
            schedule = replace(schedule, rows=schedule.rows - 1)
        return schedule

    def _registers(self, schedule: Schedule) -> int:
        """Registers of the sums, the weights and one spread word, as LLVM will need them."""
        halves = 2 if self._splits else 1
        # With 32 registers a float word is spread by the multiply-add itself; with 16 it needs a
        # register.
        spread = halves if self.target.registers == 16 or halves == 2 else 0
        return schedule.rows * schedule.vectors + halves * schedule.vectors + spread

    @property
    def _splits(self) -> bool:
        native = {"fp32": True, "bf16": "avx512bf16", "int8": "avx512vnni"}[self.workload.dtype]
        return native is not True and native not in self.target.features
