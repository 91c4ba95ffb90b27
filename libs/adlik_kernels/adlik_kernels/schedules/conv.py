"""A convolution's schedule by rules of thumb, and how a row of pixels is cut into tiles."""

from __future__ import annotations

from dataclasses import replace

from adlik_kernels.codegen.isa import GROUP
from adlik_kernels.machine.target import Target
from adlik_kernels.schedules.schedule import CHOICES, NEXT, PAGE, WAYS, Schedule
from adlik_kernels.workload import LONG_ROW, Conv2d

SHAPES = ((8, 3), (14, 2), (12, 2), (7, 3), (6, 4), (7, 2), (8, 2), (4, 4), (14, 1), (8, 1))
NARROW_SHAPES = ((6, 2), (5, 2), (4, 2))
"""Register blocks for 32 and for 16 registers."""

POINT_SHAPE = (10, 2)
"""The best register block for windows of one pixel, unrolled: weights are read for many rows."""

UNROLLED = 14
"""Sums of an unrolled tile that stay in registers for sure."""

K_BLOCK = 512
"""Words of k that a panel of weights is cut into where whole panels would fill the cache."""


def conv_default(workload: Conv2d, target: Target, threads: int) -> Schedule:
    """Returns a schedule that is good without any measurement.

    The register block is the one with the shortest time a step of k, counting what the last tile of
    a row and the last panel waste.

    Args:
        workload: What is computed.
        target: The machine.
        threads: Threads that will share the work.
    """
    workload, filters = workload.flattened(), workload.columns
    shapes: tuple[tuple[int, int], ...] = SHAPES if target.registers == 32 else NARROW_SHAPES
    pixel = 4 * workload.stride[1] * workload.channels // GROUP[workload.dtype]
    meet = workload.in_layout == "last" and pixel % PAGE == 0
    if meet:
        shapes = tuple(shape for shape in shapes if shape[0] <= WAYS)
    is_wide = target.registers == 32 and filters > target.lanes
    if workload.kernel == (1, 1) and is_wide and not meet and workload.out_width >= LONG_ROW:
        return arranged(workload, Schedule(*POINT_SHAPE, unroll=4), target, threads)
    # A window of one pixel uses what it loads of x once: many rows at a time wait for memory.
    per_row = 0.4 if workload.kernel == (1, 1) else 0.05

    def cost(shape: tuple[int, int]) -> float:
        """Cycles of one step of k for all tiles of a row of pixels."""
        whole, rest = divmod(-(-filters // target.lanes), shape[1])
        panels = [shape[1]] * whole + ([rest] if rest else [])
        return sum(
            # Few sums wait for each other; weights come from the second cache.
            max(rows * vectors / 2, 4.0) + per_row * rows + 0.55 * vectors
            for rows in even_tiles(workload.out_width, shape[0])
            for vectors in panels
        )

    rows, vectors = min(shapes, key=cost)
    vectors = min(vectors, -(-filters // target.lanes))
    return arranged(workload, Schedule(rows, vectors), target, threads)


def arranged(workload: Conv2d, tile: Schedule, target: Target, threads: int) -> Schedule:
    """Returns a schedule with the loops around its register block set by the sizes of the caches.

    Weights that leave room in the second cache stay there, and x is read once. Others are streamed
    from memory, so they serve as many rows of pixels as stay in the cache meanwhile. The next block
    of them is fetched while one is used: in a model the first use finds them far away.

    Args:
        workload: What is computed.
        tile: The register block.
        target: The machine.
        threads: Threads that will share the work.
    """
    workload = workload.flattened()
    width, words = tile.vectors * target.lanes, -(-workload.depth // GROUP[workload.dtype])
    panels = workload.groups * -(-workload.columns // width)
    by_rows = workload.out_height >= 4 * threads or panels < 2 * threads
    parallel = "rows" if threads == 1 else "blocks" if by_rows else "columns"
    tile = replace(tile, row_tiles=1, parallel=parallel, order="rows")
    if workload.groups > 1 and tile.rows * tile.vectors <= UNROLLED:
        tile = replace(tile, unroll=4)  # runs of k are short
    panel = 4 * words * width
    if panels * panel <= target.l2_bytes // 2:
        return replace(tile, prefetch=NEXT)
    seen = min(1.0, workload.kernel[1] / workload.stride[1])
    lines = min(workload.kernel[0], workload.stride[0]) * seen
    row = lines * workload.held_width * workload.channels * 4 / GROUP[workload.dtype]
    most = max(1, workload.out_height * panels // (4 * threads)) if threads > 1 else 64
    fitting = [n for n in CHOICES["row_tiles"] if n * row <= target.l2_bytes / 2 and n <= most]
    row_tiles = min([n for n in fitting if n >= workload.out_height] or [max(fitting, default=1)])
    block = min(row_tiles, workload.out_height) * row
    k_block = 0
    if workload.dtype != "int8" and panel + block > target.l2_bytes * 0.6 and words > K_BLOCK:
        k_block = K_BLOCK
    return replace(tile, row_tiles=row_tiles, k_block=k_block, prefetch=NEXT)


Levels = tuple[tuple[int, int], ...]
"""Loops along k, outermost first: how many turns, and bytes from one turn to the next in x."""


def cut_k(levels: Levels, most: int) -> tuple[Levels, Levels]:
    """Returns the loops around a block of k and those within it; all blocks are alike.

    Args:
        levels: All loops along k; the innermost counts words.
        most: Words of one block, 0 for no end. Words that no block divides well stay together.
    """
    words = 1
    for place in reversed(range(len(levels) if most else 0)):
        count, apart = levels[place]
        if words * count > most:
            part = next(n for n in range(max(1, most // words), 0, -1) if count % n == 0)
            if words == 1 and 2 * part < most:
                part = count
            outer = (*levels[:place], (count // part, part * apart))
            return outer, ((part, apart), *levels[place + 1 :])
        words *= count
    return (), levels


def even_tiles(width: int, most: int) -> list[int]:
    """Returns the tiles of a row of pixels: as few as may be, and as even as may be."""
    count = -(-width // most)
    small, larger = divmod(width, count)
    return [small + 1] * larger + [small] * (count - larger)
