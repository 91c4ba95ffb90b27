"""The schedules of one workload on one machine: which are allowed, which are worth trying."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from adlik_kernels.codegen.isa import GROUP
from adlik_kernels.codegen.tiles import uses_tiles
from adlik_kernels.machine.target import Target
from adlik_kernels.schedules.amx import amx_default, amx_fault, amx_repaired, amx_shapes
from adlik_kernels.schedules.conv import conv_default, even_tiles
from adlik_kernels.schedules.schedule import (
    AHEAD,
    CHOICES,
    NEXT,
    PACKED_BYTES,
    PAGE,
    SHAPES,
    WAYS,
    Schedule,
)
from adlik_kernels.workload import BLOCK, Conv2d, Workload

MANY_ROWS = 32
"""Rows of x that are worth copying where they meet in the caches."""

ATTEMPTS = 100
"""Edits after which a schedule counts as having no neighbours: it came from outside the space."""


@dataclass(frozen=True, slots=True)
class Space:
    """The schedules of one workload on one machine.

    Attributes:
        workload: What is computed; its rows must be known.
        target: The machine.
        threads: Threads that will share the work.
    """

    workload: Workload
    target: Target
    threads: int = 1

    def fault(self, schedule: Schedule) -> str:
        """Returns why a schedule is not in the space; "" if it is."""
        checks = (
            (schedule.rows < 1 or schedule.vectors < 1, "a tile needs rows and vectors"),
            self._spills(schedule),
            (any(getattr(schedule, f) not in c for f, c in CHOICES.items()), "a value is unknown"),
            (
                bool(schedule.k_block) and not self._spills_sums,
                "sums of int8 products stay in registers",
            ),
            (schedule.pack and not self._packs(schedule), "only what panels share is copied"),
            (
                schedule.prefetch == NEXT and not isinstance(self.workload, Conv2d),
                "only convolutions fetch the next block of weights",
            ),
            (
                schedule.vectors % self._block_vectors != 0 and self._panels(schedule) > 1,
                "panels of a blocked result begin with a block",
            ),
            (schedule.k_block >= self.words, "the block of k is no smaller than k"),
            (
                bool(schedule.k_block) and self.words > 16 * schedule.k_block,
                "the blocks of k are too many",
            ),
        )
        return next((reason for wrong, reason in checks if wrong), "")

    def _packs(self, schedule: Schedule) -> bool:
        """Whether a block of rows of x is small enough to be copied, and read more than once."""
        block = schedule.rows * schedule.row_tiles * packed_row(self.words)
        is_product = not isinstance(self.workload, Conv2d) and not self.tiled
        return is_product and schedule.order == "rows" and block <= PACKED_BYTES

    def _spills(self, schedule: Schedule) -> tuple[bool, str]:
        """Whether registers are too few for a schedule, and what to say then."""
        if self.tiled:
            fault = amx_fault(self.workload, schedule)
            return bool(fault), fault
        if self._registers(schedule) >= self.target.registers:
            return True, "the tile spills registers"
        unrolled = schedule.unroll > 1 and schedule.rows * schedule.vectors > 20
        return unrolled, "an unrolled tile this large spills registers"

    @property
    def tiled(self) -> bool:
        """Whether sums lie in the tiles of AMX, not in vector registers."""
        return uses_tiles(self.workload.dtype, self.target)

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Blocks of the result worth trying: rows of x, vectors of w."""
        return amx_shapes(self.workload) if self.tiled else SHAPES

    @property
    def words(self) -> int:
        """32-bit words along k."""
        return -(-self.workload.depth // GROUP[self.workload.dtype])

    def fits(self, schedule: Schedule) -> bool:
        """Returns whether a schedule is worth trying: it is allowed and no twin of another."""
        rows = self.workload.rows
        least = 4 if rows >= 8 else 1
        if self.fault(schedule) or schedule.rows < least or (rows and schedule.rows > rows):
            return False
        if rows and schedule.row_tiles > 1 and self._covers(schedule) >= 2:
            return False
        if isinstance(self.workload, Conv2d):
            if self._has_twin(schedule):
                return False
        elif not self._suits_caches(schedule):
            return False
        panels = self._panels(schedule)
        narrower = (schedule.vectors - 1) * self.target.lanes
        # A whole vector of the panel would compute columns that nobody asked for, and nobody would
        # read a copy again.
        if panels == 1 and (narrower >= self.workload.columns or schedule.pack):
            return False
        return self.shares(schedule) and (self.threads > 1 or schedule.parallel == "rows")

    def shares(self, schedule: Schedule) -> bool:
        """Returns whether every thread finds work, if the workload has enough of it at all."""
        if self.threads == 1 or not self.workload.rows:
            return True
        if isinstance(self.workload, Conv2d):
            rows, tall = self.workload.flattened().out_height, 1
        else:
            rows, tall = self.workload.rows, schedule.rows
        panels, tiles = self._panels(schedule), -(-rows // tall)
        blocks = -(-tiles // schedule.row_tiles)
        pieces = {"columns": panels, "rows": blocks, "blocks": panels * blocks}
        return pieces[schedule.parallel] >= min(self.threads, panels * tiles)

    def __iter__(self) -> Iterator[Schedule]:
        shapes, choices = _useful(self)
        for (rows, vectors), *values in itertools.product(shapes, *choices.values()):
            schedule = Schedule(rows, vectors, **dict(zip(choices, values, strict=True)))
            if self.fits(schedule):
                yield schedule

    def sample(self, rng: random.Random) -> Schedule:
        """Returns a random schedule of the space."""
        shapes, choices = _useful(self)
        while True:
            rows, vectors = rng.choice(shapes)
            chosen = {name: rng.choice(values) for name, values in choices.items()}
            schedule = Schedule(rows, vectors, **chosen)
            if self.fits(schedule):
                return schedule

    def neighbour(self, schedule: Schedule, rng: random.Random) -> Schedule:
        """Returns a schedule that differs in one choice, or a random one if none does."""
        shapes, choices = _useful(self)
        for _ in range(ATTEMPTS):
            name = rng.choice(["shape", *choices])
            if name == "shape":
                rows, vectors = rng.choice(shapes)
                near = replace(schedule, rows=rows, vectors=vectors)
            else:
                near = replace(schedule, **{name: rng.choice(choices[name])})
            if near != schedule and self.fits(near):
                return near
        return self.sample(rng)

    def edits(self, schedule: Schedule) -> list[Schedule]:
        """Returns the schedules that differ in the register block or in one other choice."""
        shapes, choices = _useful(self)
        near = [replace(schedule, rows=rows, vectors=vectors) for rows, vectors in shapes]
        for name, values in choices.items():
            near += [replace(schedule, **{name: value}) for value in values]
        return [edit for edit in near if edit != schedule and self.fits(edit)]

    def default(self) -> Schedule:
        """Returns a schedule that is good without any measurement, by rules of thumb.

        Large tiles hide the latency of the multiply-add; few rows want many columns, since then w
        streams from memory once, fetched ahead as other layers have left it far away; where rows of
        x fall on the same set of the first cache, many are copied, and of few no more are used than
        it has ways; threads share columns, for there are always enough of them.
        """
        if self.tiled:
            return amx_default(self.workload, self.threads)
        if isinstance(self.workload, Conv2d):
            return self.repaired(conv_default(self.workload, self.target, self.threads))
        rows, wide = self.workload.rows, self.target.registers == 32
        if 0 < rows < 4:
            schedule = Schedule(rows, 8 // rows if wide else 4 // rows, parallel="columns")
        else:
            shapes: tuple[tuple[int, int], ...] = ((6, 2), (4, 3))
            if wide:
                shapes = ((8, 3), (12, 2), (6, 4), (8, 2))
            meet = 4 * self.words % PAGE == 0
            if meet and rows < MANY_ROWS:
                shapes = tuple(shape for shape in shapes if shape[0] <= WAYS)
            schedule = Schedule(*min(shapes, key=self._waste))
            schedule = replace(schedule, parallel="blocks" if rows >= 256 else "columns")
            if meet and rows >= MANY_ROWS:
                schedule = replace(
                    schedule, row_tiles=4, parallel="blocks", order="rows", pack=True
                )
        if self.threads == 1:
            schedule = replace(schedule, parallel="rows")
        return self.repaired(replace(schedule, prefetch=AHEAD))

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
        vectors = -(-schedule.vectors // self._block_vectors) * self._block_vectors
        schedule = replace(schedule, vectors=min(vectors, -(-columns // lanes)))
        if self.words > 16 * schedule.k_block or schedule.k_block >= self.words:
            schedule = replace(schedule, k_block=0)
        if not self._spills_sums:
            schedule = replace(schedule, k_block=0)
        if schedule.pack and not self._packs(schedule):
            schedule = replace(schedule, pack=False)
        if self.tiled:
            return amx_repaired(self.workload, schedule)
        if schedule.rows * schedule.vectors > 20:
            schedule = replace(schedule, unroll=1)
        while self._registers(schedule) >= self.target.registers and schedule.rows > 1:
            schedule = replace(schedule, rows=schedule.rows - 1)
        return schedule

    def _panels(self, schedule: Schedule) -> int:
        return -(-self.workload.columns // (schedule.vectors * self.target.lanes))

    @property
    def _block_vectors(self) -> int:
        """Vectors of one block of a blocked result; 1 if it is not blocked."""
        blocked = isinstance(self.workload, Conv2d) and self.workload.out_layout == "blocked"
        return max(1, BLOCK // self.target.lanes) if blocked else 1

    def _has_twin(self, schedule: Schedule) -> bool:
        """Whether a smaller register block cuts rows of pixels into the same tiles."""
        tiles = even_tiles(self.workload.rows, schedule.rows)
        smaller = (r for r, v in self.shapes if v == schedule.vectors and 4 <= r < schedule.rows)
        return any(even_tiles(self.workload.rows, rows) == tiles for rows in smaller)

    def _suits_caches(self, schedule: Schedule) -> bool:
        """Whether the blocks of a product are such as caches can gain by.

        A block of x, and a panel of w where k is cut, that overflow the second cache are read from
        farther away for every panel: no schedule of 1380 measured ones that did so came near the
        best. k need not be cut where its panel half fills the first cache.
        """
        width = 4 * schedule.vectors * self.target.lanes
        words = min(schedule.k_block or self.words, self.words)
        if schedule.k_block and not (
            2 * self.words * width > self.target.l1_bytes and words * width <= self.target.l2_bytes
        ):
            return False
        stacked = min(schedule.rows * schedule.row_tiles, self.workload.rows or schedule.rows)
        return schedule.row_tiles == 1 or 4 * words * stacked <= self.target.l2_bytes

    def _covers(self, schedule: Schedule) -> float:
        """How many times one block of rows covers them all."""
        if isinstance(self.workload, Conv2d):
            return schedule.row_tiles / self.workload.flattened().out_height
        return schedule.rows * schedule.row_tiles / self.workload.rows

    @property
    def _spills_sums(self) -> bool:
        """Whether sums may go back to memory between blocks of k."""
        return self.workload.dtype != "int8"

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


def packed_row(words: int) -> int:
    """Returns the bytes from one copied row of x to the next: an odd number of lines of cache."""
    return 64 * (-(-4 * words // 64) | 1)


@functools.lru_cache(maxsize=64)
def _useful(space: Space) -> tuple[list[tuple[int, int]], dict[str, list[Any]]]:
    """Shapes and values that can occur in a space at all: drawing from all would mostly fail."""
    parallel = "rows" if space.threads == 1 else "blocks"
    plain = Schedule(row_tiles=1, parallel=parallel, order="rows")
    shapes = [s for s in space.shapes if space.fits(replace(plain, rows=s[0], vectors=s[1]))]
    smallest = replace(plain, rows=min(shapes)[0], vectors=min(shapes)[1])
    choices = {
        name: [value for value in values if space.fits(replace(smallest, **{name: value}))]
        for name, values in CHOICES.items()
    }
    return shapes, choices
