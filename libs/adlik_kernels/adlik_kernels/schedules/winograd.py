"""How a convolution by Winograd's method is cut up, and when it pays, by measured rules."""

from __future__ import annotations

from dataclasses import dataclass

from adlik_kernels.errors import InvalidOperand
from adlik_kernels.machine.target import Target
from adlik_kernels.schedules.conv import even_tiles
from adlik_kernels.templates.filtering import RESULTS, WINDOW, points
from adlik_kernels.workload import Conv2d

LINE = 64
"""Bytes of a cache line."""

SPILLS = 3
"""Times that a block without room in the second cache goes to the third one and back."""

WINOGRAD_SHAPE = ("fp32", (WINDOW, WINDOW), (1, 1))
"""Element type, window and steps of the convolutions that the method computes."""

MULTIPLY_ADDS = 2
"""Vectors that are multiplied and added in a cycle."""

FETCHED_BYTES = {0: 2, 2: 5, 4: 5}
"""Bytes that come from the third cache in a cycle, to one thread: the direct template fetches
nothing ahead."""

TRANSFORM_CYCLES = {2: 50, 4: 150}
"""Cycles for one vector of channels or filters of a tile."""


@dataclass(frozen=True, slots=True)
class WinogradSchedule:
    """One way to compute a 3x3 convolution by Winograd's method.

    Attributes:
        results: Rows and columns of the result that one tile makes: 2 or 4.
        tiles: Tiles of a block, whose products follow one another for each point.
        groups: Parts that the filters are cut into, so that threads find enough to share.
        rows: Tiles that a micro-kernel keeps in registers.
        vectors: Vectors of filters that it keeps in registers.
        prefetch: Channels by which packed filters are fetched ahead; 0 for never.
    """

    results: int
    tiles: int
    groups: int
    rows: int
    vectors: int
    prefetch: int = 0


@dataclass(frozen=True, slots=True)
class Scratch:
    """Where a chunk keeps its block of tiles between the transforms.

    Rows begin an odd number of cache lines apart, so that the points of one tile do not meet in
    one set of the first cache.

    Attributes:
        x_row: Bytes from one tile's channels to the next tile's, at one point.
        x_point: Bytes from one point to the next.
        out_row: Bytes from one tile's products to the next tile's, at one point.
        out_point: Bytes from one point to the next.
        products: Bytes before the products.
        total: Bytes in all.
    """

    x_row: int
    x_point: int
    out_row: int
    out_point: int
    products: int
    total: int


def winograd_default(
    workload: Conv2d, results: int, target: Target, threads: int
) -> WinogradSchedule:
    """Returns a schedule that is good without any measurement.

    Args:
        workload: What is computed.
        results: Rows and columns of the result that one tile makes: 2 or 4.
        target: The machine.
        threads: Threads that will share the work.
    """
    check_winograd(workload, results)
    filters, (across, down) = workload.filters, tiles_of(workload, results)
    tiles, _ = _block(workload, results, target)
    vectors = min(2, -(-filters // target.lanes))
    panels = -(-filters // (vectors * target.lanes))
    blocks = -(-across * down // tiles)
    wanted = 1 if threads == 1 or blocks >= 4 * threads else -(-2 * threads // blocks)
    groups = max(n for n in range(1, min(wanted, panels) + 1) if panels % n == 0)
    return WinogradSchedule(results, tiles, groups, block_rows(target), vectors, prefetch=8)


def winograd_pays(workload: Conv2d, target: Target, threads: int) -> int:  # noqa: ARG001
    """Returns which F(m) is faster than a direct convolution: 2, 4, or 0 for none.

    What is counted are cycles: of multiply-adds, of packed filters on their way from the third
    cache, and of the transforms.

    Args:
        workload: Any convolution.
        target: The machine.
        threads: Threads that will share the work; on two the same way was the fastest as on one.
    """
    shape = (workload.dtype, workload.kernel, workload.stride)
    if shape != WINOGRAD_SHAPE:
        return 0
    pairs = workload.channels * -(-workload.filters // target.lanes) / MULTIPLY_ADDS

    def cycles(results: int) -> float:
        if not results:
            packed = packed_bytes(workload, results)
            fetched = packed * _missing(packed, target)
            work = pairs * workload.out_height * workload.out_width * WINDOW**2
        else:
            _, fetched = _block(workload, results, target)
            across, down = tiles_of(workload, results)
            vectors = -(-workload.channels // target.lanes) + -(-workload.filters // target.lanes)
            transforms = TRANSFORM_CYCLES[results] * vectors
            work = across * down * (pairs * points(results) ** 2 + transforms)
        return work + fetched / FETCHED_BYTES[results]

    return min((0, *RESULTS), key=cycles)


def _block(workload: Conv2d, results: int, target: Target) -> tuple[int, float]:
    """Returns the tiles of a block, and the bytes that then come from beyond the second cache.

    The packed filters come once for each block unless they stay; products that have no room in the
    second cache come and go besides.
    """
    across, down = tiles_of(workload, results)
    packed = packed_bytes(workload, results)
    per_tile = 4 * points(results) ** 2 * (workload.channels + workload.filters)

    def fetched(tiles: int) -> float:
        spilled = SPILLS * across * down * per_tile if tiles * per_tile > target.l2_bytes else 0
        blocks = -(-across * down // tiles)
        return packed * blocks * _missing(packed + tiles * per_tile, target) + spilled

    rows = block_rows(target)
    choices = [max(even_tiles(across * down, rows * n)) for n in range(1, 5)]
    tiles = min(choices, key=lambda tiles: (fetched(tiles), tiles))
    return tiles, fetched(tiles)


def _missing(used: int, target: Target) -> float:
    """The part of some bytes, used again and again, that the second cache does not hold."""
    return min(1.0, max(0.0, used / target.l2_bytes - 1))


def block_rows(target: Target) -> int:
    """Returns the rows of a register block that is two vectors wide."""
    return 14 if target.registers == 32 else 6


def packed_bytes(workload: Conv2d, results: int) -> int:
    """Returns the bytes of the filters at their points; those of the filters alone for 0."""
    taps = points(results) ** 2 if results else WINDOW**2
    return 4 * taps * workload.channels * workload.filters


def tiles_of(workload: Conv2d, results: int) -> tuple[int, int]:
    """Returns how many tiles a row and a column of the result need; the last may stick out."""
    return -(-workload.out_width // results), -(-workload.out_height // results)


def scratch_of(workload: Conv2d, schedule: WinogradSchedule, target: Target) -> Scratch:
    """Returns the layout of one chunk's scratch; a call needs `total` bytes for every chunk."""
    width = schedule.vectors * target.lanes
    panels = -(-workload.filters // width) // schedule.groups
    x_row, out_row = _odd_lines(4 * workload.channels), _odd_lines(4 * panels * width)
    x_point, out_point = (_odd_lines(schedule.tiles * row) for row in (x_row, out_row))
    number = points(schedule.results) ** 2
    products = number * x_point
    return Scratch(x_row, x_point, out_row, out_point, products, products + number * out_point)


def _odd_lines(count: int) -> int:
    """Bytes rounded up to an odd number of cache lines."""
    return LINE * (-(-count // LINE) | 1)


def check_winograd(workload: Conv2d, results: int) -> None:
    """Checks that a convolution can be computed by Winograd's method.

    Raises:
        InvalidOperand: It is no fp32 convolution of 3x3 windows with steps of 1.
    """
    shape = (workload.dtype, workload.kernel, workload.stride)
    if shape != WINOGRAD_SHAPE or results not in RESULTS:
        raise InvalidOperand(
            f"There is no F({results}) for a {workload.dtype} convolution of"
            f" {workload.kernel} with steps of {workload.stride}.",
            cure="Winograd's method is for fp32, 3x3 windows and steps of 1; use F(2) or F(4).",
        )
