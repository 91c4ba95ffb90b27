"""The offline commands `adlik tune` and `adlik kernels`: find, look at and time schedules."""

from __future__ import annotations

import functools
import math
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import ParamSpec

from adlik_kernels import configuration
from adlik_kernels.errors import KernelError
from adlik_kernels.plans.graph import Graph
from adlik_kernels.plans.model import measure_model
from adlik_kernels.plans.partition import split
from adlik_kernels.plans.profile import profile_lines
from adlik_kernels.plans.source import read_source
from adlik_kernels.reports import Progress, choice_lines, record_lines, roofline_lines
from adlik_kernels.schedules.db import Database, shipped, workload_of
from adlik_kernels.schedules.known import workloads_of
from adlik_kernels.schedules.registry import database_path
from adlik_kernels.schedules.space import Space
from adlik_kernels.search import Learned, tune
from adlik_kernels.search.bench import compare_all
from adlik_kernels.search.measure import Meter
from adlik_kernels.workload import Conv2d, Dense, Workload

P = ParamSpec("P")

PATIENCE, FINALISTS = 20, 3

WAYS_SHARE = 0.15
"""Part of a budget that is left for comparing algorithms and layouts."""


def said(command: Callable[P, None]) -> Callable[P, None]:
    """Makes a command end with one clear line and status 1 where a `KernelError` is raised."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except KernelError as error:
            sys.stderr.write(f"adlik: {' '.join(str(error).split())}\n")
            raise SystemExit(1) from None

    return run


@said
def tune_model(
    model: Path,
    budget: str = "10m",
    threads: int = 0,
    batch: int = 1,
    *,
    trials: int = 64,
    again: bool = False,
) -> None:
    """Tunes the convolutions and products of an ONNX model and keeps what is found.

    The longest operators come first and get the larger part of the time; algorithms and layouts of
    convolutions are compared afterwards. A plan that is loaded then uses what was found; a run
    that is cut off goes on where it was.

    Args:
        model: The model.
        budget: Time at most, such as "90s", "10m" or "1h".
        threads: Threads that share a call; 0 for one a core.
        batch: Batch of a call, for products of models that have no batch of their own.
        trials: Schedules at most for each operator, those of earlier runs among them.
        again: Measure what earlier runs measured, too.
    """
    configuration.configure(threads=threads)
    end = time.monotonic() + seconds_of(budget)
    costs = model_operations(model, batch)
    if not costs:
        raise KernelError(
            f"{model} has no operator that can be tuned.",
            cure="Only models with convolutions or matrix products of weights gain by tuning.",
        )
    compared = WAYS_SHARE * seconds_of(budget)
    tune_workloads(costs, seconds=seconds_of(budget) - compared, trials=trials, again=again)
    measure_model(model, threads, max(end - time.monotonic(), 0.0))


def tune_workloads(
    costs: Mapping[Workload, float], *, seconds: float, trials: int, again: bool = False
) -> None:
    """Tunes workloads one after the other, the most expensive first, and prints what is found.

    Args:
        costs: How much each counts: it gets so large a part of the time that is left.
        seconds: Seconds at most, for all together.
        trials: Schedules at most for each, those of earlier runs among them.
        again: Measure what earlier runs measured, too.
    """
    database, target = Database(database_path()), configuration.target()
    shared_by, ahead = configuration.threads(), sum(costs.values())
    with Meter(shared_by) as meter:
        for workload in sorted(costs, key=lambda work: -costs[work]):
            share, ahead = seconds * costs[workload] / ahead, ahead - costs[workload]
            start = time.monotonic()  # what the agent learns from records counts, too
            agent = Learned(Space(workload, target, shared_by), 0, [*shipped(), *database])
            progress = Progress(workload.key, trials)
            result = tune(
                workload,
                agent,
                meter,
                trials=trials,
                seconds=max(share, 1.0),
                patience=PATIENCE,
                finalists=FINALISTS,
                database=database,
                again=again,
                progress=progress,
            )
            seconds = max(seconds - (time.monotonic() - start), 0.0)
            progress.end(result.line(workload))


@said
def bench_kernels(subject: str, threads: int = 0, seconds: float = 1.0) -> None:
    """Times a workload, or a group of them, with its chosen schedule, the default and numpy.

    Args:
        subject: "dense", "conv", "int8", "bf16", or a key such as dense-fp32-64x1024x1024.
        threads: Threads that share a call; 0 for one a core.
        seconds: Seconds for each workload.
    """
    configuration.configure(threads=threads)
    keys = [workload.key for workload in workloads_of([subject])]
    compare_all(keys, configuration.threads(), seconds)


@said
def list_records(
    *,
    everywhere: bool = False,
) -> None:
    """Lists the best record of each workload here, and whether it was shipped or made here.

    Args:
        everywhere: Show the records of other machines, too.
    """
    _print(record_lines(everywhere=everywhere))


@said
def show_choice(
    key: str,
    threads: int = 0,
    *,
    llvm: bool = False,
    asm: bool = False,
) -> None:
    """Shows which schedule a workload gets here, why, and the code that is made of it.

    Args:
        key: The workload, such as dense-fp32-64x1024x1024.
        threads: Threads that share a call; 0 for one a core.
        llvm: Show the LLVM assembly that is generated.
        asm: Show the machine's assembly that LLVM makes of it.
    """
    configuration.configure(threads=threads)
    _print(choice_lines(workload_of(key), llvm=llvm, asm=asm))


@said
def show_roofline(threads: int = 0) -> None:
    """Shows what this machine can do at most, measured on first use.

    Args:
        threads: Threads that share the work; 0 for one a core.
    """
    configuration.configure(threads=threads)
    _print(roofline_lines())


@said
def profile_model(model: Path, threads: int = 0, tokens: int = 128, seconds: float = 2.0) -> None:
    """Shows which parts of a model run in plans, why the rest does not, and each kernel's time.

    Args:
        model: The model.
        threads: Threads that share a call; 0 for one a core.
        tokens: Length of sequences, where the model leaves it open.
        seconds: Seconds for each plan.
    """
    configuration.configure(threads=threads)
    _print(profile_lines(model, configuration.threads(), tokens, seconds))


KERNELS: dict[str, Callable[..., None]] = {
    "bench": bench_kernels,
    "profile": profile_model,
    "list": list_records,
    "show": show_choice,
    "roofline": show_roofline,
}
"""The commands of the group `adlik kernels`, by name."""


def model_operations(model: Path, batch: int = 1) -> dict[Workload, float]:
    """Returns the tunable operators of a model and the operations that each makes in one run.

    Args:
        model: The model; parts that no plan computes count for nothing.
        batch: Batch of a call, for products of models that have no batch of their own.

    Raises:
        UnsupportedGraph: The model has no output.
    """
    found: Counter[Workload] = Counter()
    for part in split(read_source(model)).parts:
        if part.graph is not None:
            found.update(operators_of(part.graph, batch))
    return {work: float(work.operations * count) for work, count in found.items()}


def operators_of(graph: Graph, batch: int) -> dict[Workload, int]:
    """Returns the tunable operators of a model and how often each occurs.

    Args:
        graph: The model.
        batch: Batch of a call, for products of models that have no batch of their own.
    """
    found: Counter[Workload] = Counter()
    for operator in graph.operators:
        dtype = "fp32" if operator.w_scale is None else "int8"
        if operator.kind == "dense" and operator.w is not None:
            depth, columns = operator.w.shape
            sizes = graph.values[operator.output].shape[:-1]
            rows = math.prod(size for size in sizes if isinstance(size, int))
            found[Dense(rows * (graph.batch or batch), columns, depth, dtype)] += 1
        elif operator.kind == "conv" and operator.w is not None:
            height, width, channels = (int(size) for size in graph.values[operator.inputs[0]].shape)
            workload = Conv2d(
                height=height,
                width=width,
                channels=channels,
                filters=operator.w.shape[0],
                kernel=operator.window,
                stride=operator.stride,
                padding=operator.padding,
                dilation=operator.dilation,
                groups=operator.groups,
                dtype=dtype,
            )
            found[workload] += 1
    return dict(found)


def seconds_of(budget: str) -> float:
    """Returns the seconds of a duration such as "90s", "10m" or "1h".

    Raises:
        KernelError: It is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget)
    if match is None:
        raise KernelError(f"{budget!r} is no duration.", cure='Give one such as "90s" or "10m".')
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(line + "\n")
