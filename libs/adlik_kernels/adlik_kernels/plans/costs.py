"""What each way of a convolution costs on this machine, and where that is kept.

Costs are measured in turns, so that whatever else the machine does slows all of them alike, and
kept as JSON lines:

    way        "direct:conv-fp32-56x56x64-64x1x1-1x1x0x0-bb", or "reorder:56x56x64" for turning
               a picture from channels last to blocks, or back
    target     LLVM's name of the processor, and the instruction level
    threads    threads that shared the call
    seconds    shortest time of a call
"""

from __future__ import annotations

import functools
import json
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adlik_kernels.configuration import configured
from adlik_kernels.machine.pool import shared
from adlik_kernels.machine.target import Target
from adlik_kernels.operators.calls import kernel_of
from adlik_kernels.operators.conv import along_k, conv2d_kernel
from adlik_kernels.operators.operands import address, aligned_empty
from adlik_kernels.operators.packing import pack_groups, pad_columns
from adlik_kernels.operators.winograd import pack_winograd, scratch_bytes, winograd_kernel
from adlik_kernels.plans.graph import Graph
from adlik_kernels.plans.ways import (
    DIRECT,
    WINOGRAD,
    bare_workload,
    cost_key,
    reorder_key,
    ways_of,
)
from adlik_kernels.schedules.registry import choose
from adlik_kernels.schedules.winograd import winograd_default
from adlik_kernels.templates.grids import Grid
from adlik_kernels.templates.layouts import Blocked
from adlik_kernels.workload import BLOCK, Conv2d

ROUNDS, BURST = 5, 0.003
"""Turns of a measurement, and seconds of one."""


@dataclass(frozen=True, slots=True)
class WayCost:
    """What a way costs; see the module."""

    way: str
    target: str
    threads: int
    seconds: float


def measure_ways(graph: Graph, target: Target, threads: int, seconds: float = 60.0) -> int:
    """Measures every way of a model's float convolutions whose cost is not known here.

    Args:
        graph: The model.
        target: The machine.
        threads: Threads that share a call.
        seconds: Time after which no further convolution is begun.

    Returns:
        How many costs were found.
    """
    known, end, found = known_costs(target, threads), time.monotonic() + seconds, 0
    for calls in _contenders(graph, target, threads):
        if time.monotonic() > end:
            break
        if calls.keys() <= known.keys():
            continue
        for key, spent in _measured(calls).items():
            _append(WayCost(key, target.key, threads, spent))
            found += 1
    return found


def known_costs(target: Target, threads: int) -> dict[str, float]:
    """Returns the seconds of every way that was measured on this machine, by name."""
    path = costs_path()
    stamp = path.stat() if path.exists() else None
    return _known(path, stamp and (stamp.st_mtime_ns, stamp.st_size), target.key, threads)


def merge_costs(path: Path) -> int:
    """Adds costs that were measured elsewhere to those of this machine.

    Args:
        path: A file of costs; lines that are none are left out.

    Returns:
        How many of them were new.
    """
    known = set(_read(costs_path()))
    fresh = [cost for cost in _read(path) if cost not in known]
    for cost in fresh:
        _append(cost)
    return len(fresh)


def costs_of(graphs: Iterable[Graph], target: Target, threads: int) -> list[str]:
    """Returns the lines of all known costs that a model's convolutions may need.

    Args:
        graphs: The parts of the model.
        target: The machine.
        threads: Threads that share a call.
    """
    known = known_costs(target, threads)
    wanted = {
        key for graph in graphs for calls in _contenders(graph, target, threads) for key in calls
    }
    costs = (WayCost(key, target.key, threads, known[key]) for key in sorted(wanted & known.keys()))
    return [json.dumps(asdict(cost)) for cost in costs]


def costs_path() -> Path:
    """Returns the file of the costs that were measured here."""
    return configured().cache / "ways.jsonl"


@functools.lru_cache(maxsize=16)
def _known(
    path: Path, _stamp: tuple[int, int] | None, target: str, threads: int
) -> dict[str, float]:
    mine = (target, threads)
    return {cost.way: cost.seconds for cost in _read(path) if (cost.target, cost.threads) == mine}


def _read(path: Path) -> list[WayCost]:
    found = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            cost = WayCost(**json.loads(line))
        except (ValueError, TypeError):
            continue  # a line that was cut off while it was written
        if isinstance(cost.seconds, float) and 0 < cost.seconds < float("inf"):
            found.append(cost)
    return found


def _append(cost: WayCost) -> None:
    path = costs_path()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.open("a") as file:
        file.write(json.dumps(asdict(cost)) + "\n")


Calls = dict[str, Callable[[], None]]


def _contenders(graph: Graph, target: Target, threads: int) -> Iterator[Calls]:
    """Calls of all ways of each convolution, then of each change of layout."""
    seen: set[str] = set()
    shapes: dict[tuple[int, ...], None] = {}
    for operator in graph.operators:
        if operator.kind != "conv" or operator.w_scale is not None:
            continue
        calls: Calls = {}
        for way in ways_of(operator):
            workload = bare_workload(graph, operator, way)
            key = cost_key(workload, way.algorithm)
            calls[key] = _Lazy(workload, way.algorithm, target, threads)
        if not seen.issuperset(calls):
            seen.update(calls)
            yield calls
        for name in (operator.inputs[0], operator.output):
            shape = tuple(int(size) for size in graph.values[name].shape)
            if shape[2] % BLOCK == 0:
                shapes[shape] = None
    for shape in shapes:
        yield {reorder_key(shape): _reorder_call(shape, target, threads)}


def _measured(calls: Calls) -> dict[str, float]:
    """The shortest time of each call, in turns."""
    for call in calls.values():
        call()
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(ROUNDS):
        for key, call in calls.items():
            end = time.perf_counter() + BURST
            while True:
                start = time.perf_counter()
                call()
                now = time.perf_counter()
                best[key] = min(best[key], now - start)
                if now > end:
                    break
    return best


class _Lazy:
    """A call of a way on random numbers, made when it is first called."""

    def __init__(self, workload: Conv2d, algorithm: str, target: Target, threads: int) -> None:
        self._facts = (workload, algorithm, target, threads)
        self._call: Callable[[], None] | None = None

    def __call__(self) -> None:
        if self._call is None:
            self._call = _conv_call(*self._facts)
        self._call()


def _conv_call(
    workload: Conv2d, algorithm: str, target: Target, threads: int
) -> Callable[[], None]:
    rng = np.random.default_rng(0)
    x = aligned_empty((workload.held_height, workload.held_width, workload.channels), np.float32)
    x[...] = rng.standard_normal(x.shape, np.float32)
    shape = (workload.filters, workload.channels // workload.groups, *workload.kernel)
    w = rng.standard_normal(shape, np.float32)
    out = aligned_empty((*workload.out_size, workload.filters), np.float32)
    bias, pool = pad_columns(0.0, workload.filters), shared(threads)
    scratch: NDArray[Any] = np.zeros(8, np.uint8)
    if algorithm == DIRECT:
        schedule = choose(workload, target, threads).schedule
        width = schedule.vectors * target.lanes
        packed = pack_groups(along_k(w, workload.in_layout), width, "fp32", workload.groups)
        code = conv2d_kernel(workload, schedule, target).address
    else:
        results = int(algorithm.removeprefix(WINOGRAD))
        cut = winograd_default(workload, results, target, threads)
        packed = pack_winograd(w, cut, target)
        code = winograd_kernel(workload, cut, target).address
        scratch = aligned_empty(scratch_bytes(workload, cut, target) * pool.chunks, np.uint8)
    kept = (x, packed, out, bias, scratch)
    places = (address(x), address(packed), address(out), address(bias), 0, address(scratch))
    words = struct.pack("8q", *places, 0, 1)

    def call(_kept: Iterable[Any] = kept) -> None:
        pool.run(code, words, pool.chunks)

    return call


def _reorder_call(shape: tuple[int, ...], target: Target, threads: int) -> Callable[[], None]:
    height, width, channels = shape
    x, out = (aligned_empty(shape, np.float32) for _ in "xy")
    x[...] = 1.0
    workload = Blocked(Grid(height, width, channels), 0, to_blocked=True)
    code, pool = kernel_of(workload, target).address, shared(threads)
    words = struct.pack("4q", address(x), address(out), 0, 1)

    def call(_kept: Iterable[Any] = (x, out)) -> None:
        pool.run(code, words, pool.chunks)

    return call
