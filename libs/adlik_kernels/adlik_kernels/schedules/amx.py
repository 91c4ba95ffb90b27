"""Schedules on AMX: blocks of the result that fit into eight tiles, and a default among them.

The default rests on the cycles that Intel's "Optimization Reference Manual" gives for tiles, in its
chapter on AMX, and not on measurements of these kernels.
"""

from __future__ import annotations

import math
from dataclasses import replace

from adlik_kernels.codegen.isa import GROUP
from adlik_kernels.codegen.tiles import STEP, TILE_ROWS, TILES, TileLayout
from adlik_kernels.schedules.conv import even_tiles
from adlik_kernels.schedules.schedule import Schedule
from adlik_kernels.workload import Conv2d, Workload

SHAPES = ((32, 2), (16, 4), (16, 2), (32, 1), (48, 1), (16, 1))
"""Blocks of rows and vectors, the ones with the fewest loads a product first."""

LATENCY = 52
"""Cycles from a multiplication of tiles to the next on the same sums."""


def amx_shapes(workload: Workload) -> tuple[tuple[int, int], ...]:
    """Returns the blocks worth trying for a workload: no more rows than it has."""
    most = workload.rows or SHAPES[0][0]
    found = ((min(rows, most), vectors) for rows, vectors in SHAPES)
    return tuple(dict.fromkeys(found))


def amx_fault(workload: Workload, schedule: Schedule) -> str:
    """Returns why a schedule is not for AMX; "" if it is."""
    if _tiles(workload, schedule.rows, schedule.vectors) > TILES:
        return f"the block needs more than {TILES} tiles"
    if schedule.unroll > 1 or schedule.prefetch:
        return "a step of tiles is long enough: it is neither unrolled nor fetched ahead"
    if schedule.k_block and isinstance(workload, Conv2d):
        return "a row's last tile overlaps another, so it cannot continue from sums in memory"
    return "a block of k ends within a tile" if schedule.k_block % STEP else ""


def amx_default(workload: Workload, threads: int) -> Schedule:
    """Returns a schedule that is good for AMX by rules of thumb.

    A product takes a cycle for each row of x but its sum is there only after `LATENCY`: several
    tiles of sums hide that. A tile is loaded in half a cycle a row.

    Args:
        workload: What is computed; rows 0 for any number of them.
        threads: Threads that will share the work.
    """
    vectors = -(-workload.columns // TILE_ROWS)
    if isinstance(workload, Conv2d):
        flat = workload.flattened()
        shape = min(SHAPES, key=lambda shape: _cost(workload, _pixels(flat, shape[0]), shape[1]))
        panels = workload.groups * -(-vectors // min(shape[1], vectors))
        by_rows = flat.out_height >= 4 * threads or panels < 2 * threads
        parallel, row_tiles = "blocks" if by_rows else "columns", 1
    else:
        rows = workload.rows or SHAPES[0][0]
        shape = min(SHAPES, key=lambda shape: _cost(workload, min(shape[0], rows), shape[1]))
        parallel, row_tiles = "blocks" if rows >= 256 else "columns", 8
        parallel = "rows" if threads == 1 else parallel
    schedule = Schedule(*shape, row_tiles=row_tiles, parallel=parallel)
    return amx_repaired(workload, schedule)


def amx_repaired(workload: Workload, schedule: Schedule) -> Schedule:
    """Returns the nearest schedule that AMX can compute."""
    rows = min(schedule.rows, workload.rows or schedule.rows)
    vectors = min(schedule.vectors, -(-workload.columns // TILE_ROWS))
    while _tiles(workload, rows, vectors) > TILES:
        rows, vectors = (rows, vectors - 1) if vectors > 1 else (rows - TILE_ROWS, 1)
    k_block = 0 if isinstance(workload, Conv2d) else schedule.k_block
    return replace(schedule, rows=rows, vectors=vectors, k_block=k_block, unroll=1, prefetch=0)


def _cost(workload: Workload, rows: int, vectors: int) -> float:
    """Cycles of a step of k for each number of the result that is asked for."""
    vectors = min(vectors, -(-workload.columns // TILE_ROWS))
    if _tiles(workload, rows, vectors) > TILES:
        return math.inf
    layout = TileLayout(rows, vectors)
    products = max(LATENCY, layout.parts * vectors * layout.height)
    loads = (layout.parts * layout.height + vectors * TILE_ROWS) / 2
    width = TILE_ROWS * vectors
    waste = -(-workload.columns // width) * width / workload.columns
    return (products + loads / 2) * waste / (rows * width)


def _pixels(workload: Conv2d, most: int) -> int:
    """Pixels of the largest tile of a row."""
    return even_tiles(workload.out_width, most)[0]


def _tiles(workload: Workload, rows: int, vectors: int) -> int:
    """Tile registers that a block needs."""
    words = -(-workload.run // GROUP[workload.dtype])
    return TileLayout(rows, vectors, tail=words % STEP).tiles
