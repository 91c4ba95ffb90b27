"""How fast a workload is with its chosen schedule, beside the default one and numpy.

`python -m adlik_kernels.search.bench` is the child that measures: numpy reads its number of threads
once, when it is loaded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adlik_kernels import configuration
from adlik_kernels.errors import KernelError, MeasureFailed
from adlik_kernels.machine.roofline import Roofline, roofline
from adlik_kernels.machine.target import Target
from adlik_kernels.schedules.db import workload_of
from adlik_kernels.schedules.registry import choose
from adlik_kernels.schedules.space import Space
from adlik_kernels.search.trial import Bench, bench, best_of
from adlik_kernels.workload import Conv2d, Workload

TURN = 0.01
"""Seconds of one contender's turn."""

ITEM_BYTES = {"fp32": 4, "bf16": 2, "int8": 1}


@dataclass(frozen=True, slots=True)
class Comparison:
    """Shortest times of one call.

    Attributes:
        workload: Key of what was computed.
        origin: Where the chosen schedule comes from: "record", "nearest" or "default".
        seconds: By contender: "chosen", "default", and "numpy" for fp32.
        operations: Multiplications and additions of one call.
        least: Seconds that the roofline allows at least.
    """

    workload: str
    origin: str
    seconds: dict[str, float]
    operations: int
    least: float

    def __str__(self) -> str:
        speeds = (
            f"{name} {self.operations / taken / 1e9:8.1f}" for name, taken in self.seconds.items()
        )
        share = self.least / self.seconds["chosen"]
        parts = "  ".join(speeds)
        return f"{self.workload:40}  {parts} Gop/s  {share:4.0%} of the roofline  ({self.origin})"


def compare(workload: Workload, threads: int, seconds: float) -> Comparison:
    """Times a workload's contenders in turns.

    Args:
        workload: What is computed; its rows must be known.
        threads: Threads that share a call; numpy has its own.
        seconds: Seconds of all turns together.

    Raises:
        MeasureFailed: The chosen schedule computes something wrong.
    """
    target = configuration.target()
    choice = choose(workload, target, threads)
    operands, default = bench(workload), Space(workload, target, threads).default()
    calls = {"chosen": operands.call(choice.schedule, threads)}
    calls["chosen"]()
    if not operands.is_right():
        raise MeasureFailed(f"{choice.schedule} computes a wrong {workload.key}.")
    calls["default"] = operands.call(default, threads)
    if workload.dtype == "fp32":
        calls["numpy"] = numpy_call(operands)
    best, end = dict.fromkeys(calls, float("inf")), time.perf_counter() + seconds
    while time.perf_counter() < end or max(best.values()) == float("inf"):
        for name, call in calls.items():
            best[name] = min(best[name], best_of(call, TURN))
    least = least_seconds(workload, target, roofline(threads))
    return Comparison(workload.key, choice.origin, best, workload.operations, least)


def numpy_call(operands: Bench) -> Callable[[], None]:
    """Returns numpy's product of the same size; a convolution's windows are copied beforehand."""
    plain, w = operands.workload, operands.w.astype(np.float32)
    if isinstance(plain, Conv2d):
        rng = np.random.default_rng(0)
        rows = plain.out_height * plain.out_width
        x = rng.standard_normal((rows, plain.depth), np.float32)
    else:
        x = np.ascontiguousarray(operands.x[:, : plain.depth])
    out = np.empty((len(x), w.shape[1]), np.float32)

    def run() -> None:
        np.matmul(x, w, out=out)

    return run


def least_seconds(workload: Workload, target: Target, limits: Roofline) -> float:
    """Returns the seconds that a call takes at least: for its products, or to read its operands."""
    item = ITEM_BYTES[workload.dtype]
    if isinstance(workload, Conv2d):
        rows = workload.out_height * workload.out_width
        read = workload.height * workload.width * workload.channels
    else:
        rows = max(workload.rows, 1)
        read = rows * workload.depth
    weights = workload.depth * workload.columns
    moved = item * (read + weights) + 4 * rows * workload.columns
    products = workload.operations / limits.operations[workload.dtype]
    return max(products, moved / limits.reads(moved, target))


def compare_all(keys: Sequence[str], threads: int, seconds: float) -> None:
    """Prints a comparison a line, from a child process whose numpy uses as many threads.

    Args:
        keys: Keys of the workloads.
        threads: Threads that share a call.
        seconds: Seconds for each workload.

    Raises:
        MeasureFailed: The child failed; it has said why.
    """
    settings = configuration.configured()
    request = {
        "cache": str(settings.cache),
        "level": settings.level,
        "threads": threads,
        "seconds": seconds,
        "keys": list(keys),
    }
    environment = dict(os.environ)  # noqa: TID251 # BLAS libraries know no other way to be told
    for name in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        environment[name] = str(threads)
    command = [sys.executable, "-m", "adlik_kernels.search.bench", json.dumps(request)]
    done = subprocess.run(command, check=False, env=environment)
    if done.returncode:
        raise MeasureFailed(f"The benchmark's process ended with the code {done.returncode}.")


def _main(request: dict[str, Any]) -> int:
    configuration.configure(
        cache=request["cache"], level=request["level"], threads=request["threads"]
    )
    for key in request["keys"]:
        try:
            line = str(compare(workload_of(key), request["threads"], request["seconds"]))
        except KernelError as error:
            sys.stderr.write(f"{error}\n")
            return 1
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(_main(json.loads(sys.argv[1])))
