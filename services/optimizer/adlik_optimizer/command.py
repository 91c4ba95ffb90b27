"""The offline command `adlik optimize`: runs a recipe on a file, with no mesh."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from adlik_common.sandbox import run_isolated

from adlik_optimizer.recipes import CLEAN, INT8


def optimize(model: Path, out: Path, recipe: str = CLEAN, samples: Path | None = None) -> None:
    """Optimizes an ONNX file.

    Args:
        model: The model.
        out: File to write.
        recipe: "clean" or "int8".
        samples: NPZ archive with one array per input; needed for int8.
    """
    asyncio.run(_optimize(model.absolute(), out.absolute(), recipe, samples))


async def _optimize(model: Path, out: Path, recipe: str, samples: Path | None) -> None:
    data = str(samples.absolute()) if samples else None
    with tempfile.TemporaryDirectory() as directory:
        workdir = Path(directory)
        first = out if recipe == CLEAN else workdir / "clean.onnx"
        arguments = {"model": str(model), "out": str(first), "samples": data}
        report = await run_isolated("adlik_optimizer.recipes:clean", arguments, workdir=workdir)
        _print_passes(report)
        if recipe == INT8:
            arguments = {"model": str(first), "out": str(out), "samples": data}
            _print_passes(
                await run_isolated("adlik_optimizer.recipes:int8", arguments, workdir=workdir)
            )
    before, after = model.stat().st_size, out.stat().st_size
    print(f"{model.name} {before} bytes -> {out.name} {after} bytes")  # noqa: T201


def _print_passes(report: dict[str, Any]) -> None:
    for done in report["passes"]:
        print(f"{done['name']:18} {done['seconds']:6.2f} s  {done['summary']}")  # noqa: T201
