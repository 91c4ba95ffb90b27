"""The offline command `adlik tune`: finds faster schedules for a model's operators here."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from adlik_kernels import configuration
from adlik_kernels.errors import KernelError
from adlik_kernels.plans.graph import Graph
from adlik_kernels.plans.onnx_graph import read_onnx
from adlik_kernels.schedules.db import Database, shipped
from adlik_kernels.schedules.registry import database_path
from adlik_kernels.schedules.space import Space
from adlik_kernels.search import Learned, Trial, tune
from adlik_kernels.search.measure import Meter
from adlik_kernels.workload import Conv2d, Dense, Workload

TRIALS, PATIENCE, FINALISTS = 64, 20, 3


def tune_model(model: Path, budget: str = "10m", threads: int = 0, batch: int = 1) -> None:
    """Tunes the convolutions and products of an ONNX model and keeps what is found.

    The longest operators come first and get the larger part of the time. A plan that is loaded
    afterwards uses the records; a run that is cut off goes on where it was.

    Args:
        model: The model.
        budget: Time at most, such as "90s", "10m" or "1h".
        threads: Threads that share a call; 0 for one a core.
        batch: Rows of a call, for products.
    """
    configuration.configure(threads=threads)
    left = seconds_of(budget)
    workloads = operators_of(read_onnx(model), batch)
    costs = {work: work.operations * count for work, count in workloads.items()}
    tune_workloads(costs, seconds=left, trials=TRIALS)


def tune_workloads(costs: Mapping[Workload, float], *, seconds: float, trials: int) -> None:
    """Tunes workloads one after the other, the most expensive first, and prints what is found.

    Args:
        costs: How much each counts: it gets so large a part of the time that is left.
        seconds: Seconds at most, for all together; each gets one at least.
        trials: Schedules at most for each, those of earlier runs among them.
    """
    database, target = Database(database_path()), configuration.target()
    shared_by, ahead = configuration.threads(), sum(costs.values())
    with Meter(shared_by) as meter:
        for workload in sorted(costs, key=lambda work: -costs[work]):
            share, ahead = seconds * costs[workload] / ahead, ahead - costs[workload]
            agent = Learned(Space(workload, target, shared_by), 0, [*shipped(), *database])
            result = tune(
                workload,
                agent,
                meter,
                trials=trials,
                seconds=max(share, 1.0),
                patience=PATIENCE,
                finalists=FINALISTS,
                database=database,
                progress=_progress,
            )
            seconds = max(seconds - result.elapsed, 0.0)
            best = result.best
            _say(f" {workload.key}: {best.speed:.3f} times the default, {result.elapsed:.0f} s\n")


def operators_of(graph: Graph, batch: int) -> dict[Workload, int]:
    """Returns the tunable operators of a model and how often each occurs.

    Args:
        graph: The model.
        batch: Rows of a call, for products.
    """
    found: Counter[Workload] = Counter()
    for operator in graph.operators:
        dtype = "fp32" if operator.w_scale is None else "int8"
        if operator.kind == "dense" and operator.w is not None:
            depth, columns = operator.w.shape
            found[Dense(batch, columns, depth, dtype)] += 1
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


def _progress(trial: Trial) -> None:
    _say("x" if trial.fault else "+" if trial.speed > 1 else ".")


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
