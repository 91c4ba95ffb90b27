"""Walks a path of conversion steps, each in a child process with limits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from adlik_common import spans
from adlik_common.sandbox import Limits, run_isolated
from adlik_common.sandbox_warm import Nursery
from adlik_common.telemetry import tracer

from adlik_compiler.planner import Step


@dataclass(frozen=True, slots=True)
class Route:
    """How a model becomes what an engine loads.

    Attributes:
        source: Format of the model.
        steps: Conversions in order.
        precision: Precision that is aimed at.
    """

    source: str
    steps: tuple[Step, ...]
    precision: str

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats walked, source and target included."""
        return (self.source, *(step.target for step in self.steps))

    def key(self, digests: Sequence[str]) -> str:
        """Returns what names the result: the same input gives the same bytes under this key.

        Args:
            digests: Of the model file and of its external files with their names.
        """
        parts = [*digests, self.source, _version("adlik-compiler")]
        for step in self.steps:
            parts += [step.function, step.distribution, _version(step.distribution)]
        if any(step.by_precision for step in self.steps):
            parts.append(self.precision)
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


async def convert(
    route: Route, source: Path, workdir: Path, limits: Limits, nursery: Nursery | None = None
) -> Path:
    """Walks a route.

    Args:
        route: The way to go.
        source: The model file, with its external files beside it.
        workdir: Where each step gets a folder of its own.
        limits: What each step may take.
        nursery: Gives children that start at once.

    Returns:
        The file that the last step wrote.

    Raises:
        AdlikError: A step could not convert the model or took too much.
    """
    file = source
    for number, step in enumerate(route.steps):
        folder = workdir / f"{number}-{step.target}"
        folder.mkdir()
        arguments = {"source": str(file), "folder": str(folder), "precision": route.precision}
        attributes = {spans.PATH: f"{step.source} -> {step.target}"}
        with tracer().start_as_current_span(spans.COMPILE_STEP, attributes=attributes):
            written = await run_isolated(
                step.function, arguments, workdir=folder, limits=limits, nursery=nursery
            )
        file = Path(written)
    return file


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
