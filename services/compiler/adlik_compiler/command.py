"""`adlik compile`: compiles a model file for one target, with no mesh."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

from adlik_common.bundle import MEDIA_TYPE
from adlik_common.errors import InvalidPlan
from adlik_common.sandbox import Limits
from adlik_runtimes import registry

from adlik_compiler.conversion import Route, convert
from adlik_compiler.planner import plan_path
from adlik_compiler.steps import registered_steps
from adlik_compiler.targets import Target, all_targets, goal_of, why_not

_SUFFIXES = {MEDIA_TYPE: ".zip", "application/x-onnx": ".onnx"}


def compile_model(
    model: Path,
    target: str = "openvino-fp32",
    output: Path | None = None,
    seconds: float = 600.0,
) -> None:
    """Compiles a model file for an engine and prints where the result is.

    Args:
        model: The model file; files that it refers to are expected beside it.
        target: "engine-precision", for example openvino-bf16.
        output: File to write; by default <model>.<target>.zip (or .onnx) beside the model.
        seconds: Longest time that a conversion may take.

    Raises:
        InvalidPlan: There is no such target, or this machine can't do it.
        UnsupportedFormat: No path leads to it.
        AdlikError: The model could not be converted.
    """
    route = _route(model.suffix.removeprefix("."), target)
    _say(f"source type: {route.source}")
    _say(f"target type: {route.formats[-1]}")
    _say(f"path: {' -> '.join(route.formats)}")
    suffix = _SUFFIXES.get(route.steps[-1].media_type, ".plan") if route.steps else model.suffix
    written = output or model.with_name(f"{model.stem}.{target}{suffix}")
    with tempfile.TemporaryDirectory(prefix="adlik-compile-") as folder:
        limits = Limits(seconds=seconds)
        file = asyncio.run(convert(route, model.resolve(), Path(folder).resolve(), limits))
        shutil.copyfile(file, written)
    _say(str({"status": "success", "path": str(written)}))


def _route(source: str, name: str) -> Route:
    engines, steps = registry.engines(), registered_steps()
    known = {str(target): target for target in all_targets(engines)}
    target: Target | None = known.get(name)
    if target is None:
        raise InvalidPlan(f"There is no target '{name}'.", cure=f"Choose among {sorted(known)}.")
    path = plan_path(steps, source, goal_of(engines[target.engine], steps))
    if reason := why_not(target, engines, steps, source):
        raise InvalidPlan(f"The target '{name}' is not available: {reason}.")
    return Route(source, path, target.precision)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
