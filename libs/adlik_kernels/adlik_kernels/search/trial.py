"""The child that measures: it may crash or hang, and only a trial is lost.

It reads one request a line from its input and writes one reply a line; see `measure` for the
parent. A candidate is checked against numpy, then timed in turns with the workload's default
schedule, so that whatever else the machine does slows both alike: what counts is the ratio. Each
call reads another copy of the weights, as far from the processor as a model's other layers leave
them: what is best with weights at hand is not what is best in a model.
"""

from __future__ import annotations

import itertools
import json
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adlik_kernels import configuration
from adlik_kernels.codegen.isa import GROUP
from adlik_kernels.errors import KernelError
from adlik_kernels.machine.pool import shared
from adlik_kernels.operators.conv import along_k, conv2d_kernel, padded_copy
from adlik_kernels.operators.dense import dense_kernel
from adlik_kernels.operators.operands import address, aligned_empty
from adlik_kernels.operators.packing import from_bf16, pack_groups, pad_columns, to_bf16
from adlik_kernels.references import blocked_reference, conv2d_reference
from adlik_kernels.schedules.db import workload_of
from adlik_kernels.schedules.schedule import Schedule
from adlik_kernels.schedules.space import Space
from adlik_kernels.workload import Conv2d, Dense, Workload

CALM, ROUNDS = 4, 30
"""A candidate this many times slower than the baseline after a few turns is measured no longer."""

SPREAD = 8
"""Copies of the weights fill the second cache this many times."""

HOPELESS = 2.0
"""A candidate this many times slower than the baseline is measured no longer."""


@dataclass(frozen=True, slots=True)
class Bench:
    """Operands of one workload, and what a right result looks like.

    Attributes:
        workload: What is computed.
        x: Activations as the kernel reads them.
        w: Weights before packing, [depth, columns].
        out: Where kernels write.
        want: The result in float64.
        count: Rows of a product, or pictures.
        constants: Bias, scales and quantization, which do nothing.
    """

    workload: Workload
    x: NDArray[Any]
    w: NDArray[Any]
    out: NDArray[Any]
    want: NDArray[np.float64]
    count: int
    constants: tuple[NDArray[Any], ...]

    def call(self, schedule: Schedule, threads: int, spread: int = 0) -> Callable[[], None]:
        """Returns a call of a schedule's kernel on these operands.

        Args:
            schedule: The schedule.
            threads: Threads that share the call.
            spread: Bytes that copies of the weights fill, which calls read in turns.
        """
        target, pool = configuration.target(), shared(threads)
        groups = self.workload.groups if isinstance(self.workload, Conv2d) else 1
        width = schedule.vectors * target.lanes
        packed = pack_groups(self.w, width, self.workload.dtype, groups)
        if isinstance(self.workload, Conv2d):
            code = conv2d_kernel(self.workload, schedule, target).address
        else:
            code = dense_kernel(self.workload, schedule, target).address
        bias, scale, quantization = (address(array) for array in self.constants)
        copies = aligned_empty((max(1, spread // packed.nbytes), *packed.shape), packed.dtype)
        copies[...] = packed
        rest = (address(self.out), bias, 0, scale, quantization, self.count)
        turns = itertools.cycle(
            [struct.pack("8q", address(self.x), address(copy), *rest) for copy in copies]
        )

        def run(_keep: object = copies) -> None:
            pool.run(code, next(turns), pool.chunks)

        return run

    def is_right(self) -> bool:
        """Returns whether the last result is near the reference."""
        scale = max(float(np.abs(self.want).max()), 1e-6)
        return bool(np.abs(self.out - self.want).max() <= 1e-4 * scale)


def bench(workload: Workload) -> Bench:
    """Makes random operands for a workload."""
    columns = workload.filters if isinstance(workload, Conv2d) else workload.columns
    constants = (
        pad_columns(0.0, columns),
        pad_columns(1.0, columns),
        np.zeros(2, np.float32),
    )
    if isinstance(workload, Conv2d):
        return Bench(workload, *_pictures(workload), 1, constants)
    return Bench(workload, *_matrices(workload), workload.rows, constants)


_Operands = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[np.float64]]
"""x, w, out and the result that is wanted."""


def _matrices(plain: Dense) -> _Operands:
    rng = np.random.default_rng(0)
    x_shape, w_shape = (plain.rows, plain.depth), (plain.depth, plain.columns)
    if plain.dtype == "int8":
        x: NDArray[Any] = rng.integers(0, 256, x_shape).astype(np.uint8)
        w: NDArray[Any] = rng.integers(-127, 128, w_shape).astype(np.int8)
        want = x.astype(np.float64) @ w
    else:
        x, w = (rng.standard_normal(shape, np.float32) for shape in (x_shape, w_shape))
        if plain.dtype == "bf16":
            x, w = to_bf16(x), to_bf16(w)
            want = from_bf16(x).astype(np.float64) @ from_bf16(w)
        else:
            want = x.astype(np.float64) @ w
    spare = -plain.depth % GROUP[plain.dtype]
    held = aligned_empty((plain.rows, plain.depth + spare), x.dtype)
    held[:, : plain.depth], held[:, plain.depth :] = x, 0
    return held, w, aligned_empty((plain.rows, plain.columns), np.float32), want


def _pictures(plain: Conv2d) -> _Operands:
    rng = np.random.default_rng(0)
    x_shape = (1, plain.height, plain.width, plain.channels)
    w_shape = (plain.filters, plain.channels // plain.groups, *plain.kernel)
    if plain.dtype == "int8":
        x: NDArray[Any] = rng.integers(0, 256, x_shape).astype(np.uint8)
        w: NDArray[Any] = rng.integers(-127, 128, w_shape).astype(np.int8)
    else:
        x, w = (rng.standard_normal(shape, np.float32) for shape in (x_shape, w_shape))
    sides = (plain.stride, plain.padding, plain.groups)
    want = conv2d_reference(x, w, *sides, dilation=plain.dilation)
    if plain.in_layout == "blocked":
        x = blocked_reference(x)
    if plain.out_layout == "blocked":
        want = blocked_reference(want)
    out = aligned_empty(want.shape, np.float32)
    return padded_copy(x, plain.padding), along_k(w, plain.in_layout), out, want


def turns(candidate: Callable[[], None], baseline: Callable[[], None], burst: float) -> list[float]:
    """Times two calls in turns; the shortest time of each is the one that nothing disturbed.

    Args:
        candidate: What is measured.
        baseline: What it is compared with.
        burst: Seconds of one turn.

    Returns:
        Seconds of the candidate and of the baseline.
    """
    best, calm, rounds = [float("inf"), float("inf")], 0, 0
    while calm < CALM and rounds < ROUNDS:
        found = [min(best[0], best_of(candidate, burst)), min(best[1], best_of(baseline, burst))]
        settled = all(new > 0.99 * old for new, old in zip(found, best, strict=True))
        calm, best, rounds = (calm + 1 if settled else 0), found, rounds + 1
        if rounds >= CALM and best[0] > HOPELESS * best[1]:
            break
    return best


def best_of(call: Callable[[], None], burst: float) -> float:
    """Returns the shortest time of a call within a burst, in seconds."""
    best, end = float("inf"), time.perf_counter() + burst
    while True:
        start = time.perf_counter()
        call()
        now = time.perf_counter()
        best = min(best, now - start)
        if now >= end:
            return best


class _Child:
    """Keeps the operands of the last workload, for a tuner asks about one at a time."""

    def __init__(self) -> None:
        self.bench: Bench | None = None

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        workload, threads = workload_of(request["workload"]), request["threads"]
        if self.bench is None or self.bench.workload != workload:
            self.bench = bench(workload)
        schedule = Schedule.from_dict(request["schedule"])
        spread = SPREAD * configuration.target().l2_bytes
        candidate = self.bench.call(schedule, threads, spread)
        self.bench.out.fill(np.nan)
        candidate()
        if not self.bench.is_right():
            return {"error": "the result is wrong"}
        default = Space(self.bench.workload, configuration.target(), threads).default()
        baseline = self.bench.call(default, threads, spread)
        seconds, baseline_seconds = turns(candidate, baseline, request["burst"])
        return {"seconds": seconds, "baseline_seconds": baseline_seconds}


def main() -> None:
    """Answers requests until the input ends."""
    settings = json.loads(sys.stdin.readline())
    cores = settings["cores"]
    configuration.configure(
        cache=settings["cache"], level=settings["level"], threads=settings["threads"]
    )
    if len(cores) == settings["threads"]:
        shared(settings["threads"]).pin(cores)
    child = _Child()
    for line in sys.stdin:
        try:
            reply = child.answer(json.loads(line))
        except KernelError as error:
            reply = {"error": str(error)}
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
