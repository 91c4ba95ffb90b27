"""Where the time of a plan goes, kernel by kernel."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from adlik_kernels.machine.pool import shared
from adlik_kernels.plans.graph import BATCH, TOKENS
from adlik_kernels.plans.model import load_model
from adlik_kernels.plans.plan import Plan
from adlik_kernels.plans.steps import product

_PRODUCTS = ("conv2d", "dense", "depthwise", "winograd")
"""Beginnings of the names of kernels whose work is multiplications and additions."""


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one kernel of a plan.

    Attributes:
        kernel: What computes.
        made: Name of the value that it makes.
        shape: Shape of that value without the batch.
        seconds: Shortest time of a call.
        operations: Multiplications and additions; 0 for kernels of another kind.
    """

    kernel: str
    made: str
    shape: tuple[int | str, ...]
    seconds: float
    operations: int


def profile(plan: Plan, batch: int = 1, tokens: int = 1, seconds: float = 1.0) -> list[Cost]:
    """Returns what each kernel of a plan costs, run in order again and again.

    Args:
        plan: The plan; its inputs are zeros.
        batch: Pictures or rows.
        tokens: Length of sequences, where it is open.
        seconds: How long to measure.
    """
    sizes = {BATCH: batch, TOKENS: tokens}
    pool = shared(plan.threads)
    with plan.held(batch, tokens) as calls:
        pool.run_plan(calls)
        best = [float("inf")] * len(calls)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for number in range(len(calls)):
                start = time.perf_counter()
                pool.run_plan(calls[number : number + 1])
                best[number] = min(best[number], time.perf_counter() - start)
    costs, seen = [], set(plan.graph.inputs)
    for step, spent in zip(plan.steps(sizes), best, strict=True):
        kernel = step.kernel.symbol.removeprefix("adlik_").rpartition("_")[0].partition("-")[0]
        made = next((name for name in step.values.values() if name and name not in seen), "")
        seen.update(step.values.values())
        value = plan.graph.values.get(made)
        work = product(step.rows, sizes) * step.work if kernel.startswith(_PRODUCTS) else 0
        costs.append(Cost(kernel, made, value.shape if value else (), spent, work))
    return costs


def profile_lines(path: Path, threads: int, tokens: int, seconds: float) -> Iterator[str]:
    """Yields what runs a model's parts and why, and what every kernel of its plans costs.

    Args:
        path: The model's file.
        threads: Threads that share a call.
        tokens: Length of sequences, where it is open.
        seconds: How long to measure each plan.
    """
    model = load_model(path, threads=threads)
    yield f"{model.share:.0%} of the nodes run in plans"
    for number, (graph, report) in enumerate(zip(model.graphs, model.parts, strict=True)):
        kinds = ", ".join(f"{n} {kind}" for kind, n in sorted(report.operators.items()))
        yield f"part {number}, {report.engine}: {kinds}"
        yield from (f"  {kind}: {why}" for kind, why in sorted(report.reasons.items()))
        if graph is not None:
            plan = Plan(graph, threads=threads)
            yield from _cost_lines(profile(plan, plan.graph.batch or 1, tokens, seconds))


def _cost_lines(costs: list[Cost]) -> Iterator[str]:
    total = sum(cost.seconds for cost in costs)
    for cost in costs:
        shape = "x".join(str(size) for size in cost.shape)
        speed = f"{cost.operations / cost.seconds / 1e9:7.0f} Gop/s" if cost.operations else ""
        share = cost.seconds / total
        yield f"  {cost.kernel:24} {shape:>16} {cost.seconds * 1e6:9.1f} us {share:6.1%} {speed}"
    yield f"  {len(costs)} kernels, {total * 1e3:.3f} ms"
