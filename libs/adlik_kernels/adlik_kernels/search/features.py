"""What a model sees of a schedule: its sizes relative to the caches, its waits to the peak.

Nothing here is an absolute number of a machine, so what is learnt from one shape, or on one
machine, says something about the next. The waits are those of a roofline: seconds that data need
from where they lie, relative to the seconds that the multiply-adds need at the measured peak.
"""

from __future__ import annotations

import math

from adlik_kernels.codegen.isa import GROUP
from adlik_kernels.machine.latency import PAGE
from adlik_kernels.machine.roofline import Roofline
from adlik_kernels.machine.target import Target
from adlik_kernels.schedules.schedule import Schedule
from adlik_kernels.workload import Workload

FEATURES = (
    *("log rows", "log columns", "log depth", "log operations", "threads"),
    *("tile rows", "tile vectors", "sums", "unroll", "prefetch"),
    *("log k block", "log k parts", "log row tiles", "log row blocks", "log panels"),
    *("by rows", "by columns", "columns outside", "tasks", "imbalance", "waste"),
    *("loads a step", "panel over L1", "x block over L2", "operands over L2", "row tail"),
    *("aliased rows", "registers used", "packed"),
    *("wait for w", "wait for x", "wait for sums", "tile pages over TLB", "block pages over TLB"),
)
"""Names of the numbers, in order."""


def features(
    workload: Workload, schedule: Schedule, target: Target, threads: int, limits: Roofline
) -> list[float]:
    """Returns the numbers of `FEATURES`.

    Args:
        workload: What is computed.
        schedule: How.
        target: The machine: its registers and caches.
        threads: Threads that share the work.
        limits: What one thread of the machine can do at most.
    """
    words = -(-workload.depth // GROUP[workload.dtype])
    rows, columns = max(workload.rows, 1), workload.columns
    width = schedule.vectors * target.lanes
    k_block = min(schedule.k_block or words, words)
    tiles = -(-rows // schedule.rows)
    row_tiles = min(schedule.row_tiles, tiles)
    blocks, panels = -(-tiles // row_tiles), -(-columns // width)
    tasks = {"rows": blocks, "columns": panels, "blocks": blocks * panels}[schedule.parallel]
    sums = schedule.rows * schedule.vectors
    panel, block = 4 * k_block * width, 4 * k_block * row_tiles * schedule.rows
    aliased = schedule.rows if (4 * words) % 4096 == 0 and not schedule.pack else 1
    return [
        *(math.log2(rows), math.log2(columns), math.log2(words)),
        *(math.log2(rows * columns * words), threads),
        *(schedule.rows, schedule.vectors, sums, schedule.unroll, schedule.prefetch),
        *(math.log2(k_block), math.log2(-(-words // k_block)), math.log2(row_tiles)),
        *(math.log2(blocks), math.log2(panels)),
        *(schedule.parallel == "rows", schedule.parallel == "columns"),
        *(schedule.order == "columns", min(tasks, 64), -(-tasks // threads) * threads / tasks),
        tiles * schedule.rows * panels * width / (rows * columns),
        (schedule.rows + schedule.vectors) / sums,
        math.log2(panel / target.l1_bytes),
        math.log2(block / target.l2_bytes),
        math.log2(4 * words * (rows + columns) / target.l2_bytes),
        (rows % schedule.rows) / schedule.rows,
        aliased,
        *(sums / target.registers, schedule.pack),
        *_waits(workload, schedule, target, limits, words),
    ]


def _waits(
    workload: Workload, schedule: Schedule, target: Target, limits: Roofline, words: int
) -> tuple[float, ...]:
    """Waits for the tile's operands relative to its products, and pages relative to the TLB."""
    width = schedule.vectors * target.lanes
    k_block = min(schedule.k_block or words, words)
    stacked = min(schedule.row_tiles * schedule.rows, max(workload.rows, schedule.rows))
    panel, block = 4 * k_block * width, 4 * k_block * stacked
    # Seconds of one word of k in a tile, at the peak; each word is `GROUP` products deep.
    step = 2 * GROUP[workload.dtype] * schedule.rows * width / limits.operations[workload.dtype]
    parts = -(-words // k_block)
    written = 8 * schedule.rows * width * (parts - 1) / words  # sums that go to memory and return
    along = -(-4 * k_block // PAGE)
    tile_pages = schedule.rows * (along + 1) + -(-panel // PAGE)
    block_pages = stacked * along + -(-panel // PAGE)
    return (
        4 * width / limits.reads(panel, target) / step,
        4 * schedule.rows / limits.reads(block, target) / step,
        written / limits.bandwidth["l2"] / step,
        math.log2(tile_pages / limits.translation.first),
        math.log2(block_pages / limits.translation.second),
    )
