"""Which targets a model is compiled for, and why this machine can't do the others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from adlik_common.errors import UnsupportedFormat
from adlik_runtimes.engine import Engine

from adlik_compiler.planner import Step, plan_path

PUSHED = "pushed"
"""Recipe of the model as the user gave it."""
_QUANTIZED = "int8"


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """An engine and the precision it computes in."""

    engine: str
    precision: str

    def __str__(self) -> str:
        return f"{self.engine}-{self.precision}"


REFERENCE = Target("onnxruntime", "fp32")
"""What the pushed model is compiled for: served first, and what every variant is judged against."""

# In the order of compilation: what is likely to be released first comes first.
TARGETS = (
    REFERENCE,
    Target("openvino", "bf16"),
    Target("openvino", "fp32"),
    Target("kernels", "fp32"),
    Target("openvino", "int8"),
    Target("kernels", "int8"),
    Target("onnxruntime", "int8"),
    Target("tensorrt", "fp16"),
)


def all_targets(engines: Mapping[str, Engine]) -> tuple[Target, ...]:
    """Returns the known targets, then those of engines that other packages bring."""
    ours = {target.engine for target in TARGETS}
    others = [
        Target(name, precision)
        for name, engine in sorted(engines.items())
        if name not in ours
        for precision in engine.precisions()
    ]
    return (*TARGETS, *others)


def goal_of(engine: Engine, steps: Iterable[Step]) -> str:
    """Returns the format that a path to an engine ends in (see `Step.target`)."""
    is_checked = any(step.target == engine.name for step in steps)
    return engine.name if is_checked else engine.format


def why_not(
    target: Target, engines: Mapping[str, Engine], steps: Sequence[Step], source: str = "onnx"
) -> str:
    """Returns why a target can't be compiled and verified on this machine, "" where it can."""
    engine = engines.get(target.engine)
    if engine is None:
        return f"the engine {target.engine} is not installed"
    if reason := engine.unavailable():
        return reason
    if target.precision not in engine.precisions():
        return f"{target.engine} does not compute in {target.precision} natively on this processor"
    try:
        plan_path(steps, source, goal_of(engine, steps))
    except UnsupportedFormat as error:
        return error.message
    return ""


def targets_for(
    recipe: str, precision: str, wanted: Sequence[str], available: Sequence[Target]
) -> tuple[Target, ...]:
    """Returns what to compile a model for.

    Args:
        recipe: "pushed" or an optimizer's recipe.
        precision: The model's own: "int8" where it is quantized.
        wanted: Names of targets in the plan; empty: all.
        available: Targets that this machine can do.
    """
    if recipe == PUSHED:  # always: it answers where nothing that is wanted passes
        return tuple(t for t in available if t == REFERENCE)
    fitting = (t for t in available if not wanted or str(t) in wanted)
    is_quantized = precision == _QUANTIZED
    return tuple(t for t in fitting if (t.precision == _QUANTIZED) == is_quantized)
