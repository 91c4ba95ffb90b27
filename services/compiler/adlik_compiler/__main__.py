"""Runs a compiler: `python -m adlik_compiler`."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from adlik_common.service import Context, run
from adlik_runtimes.kernels import ENGINE

from adlik_compiler.settings import CompilerSettings
from adlik_compiler.worker import open_worker

log = logging.getLogger(__name__)


@asynccontextmanager
async def serve(context: Context) -> AsyncIterator[None]:
    """Compiles and verifies from before `yield` until the work in hand is done."""
    worker = await open_worker(context)
    worker.describe()
    can = [name for name, why_not in context.replica.capabilities.items() if not why_not]
    log.info("compiles for %s", ", ".join(can))
    context.background(worker.nursery.run(), "nursery")
    context.background(worker.compile(), "consumer compiler")
    context.background(worker.verify(), "consumer verifier")
    if context.settings.idle_seconds and not ENGINE.unavailable():
        from adlik_compiler.idle import open_tuner

        tuner = await open_tuner(context, worker.activity)
        context.background(tuner.follow_releases(), "releases")
        context.background(tuner.run(), "tuner")
    yield


def main() -> None:
    """Runs the service until it is told to stop."""
    run("compiler", CompilerSettings(), serve)


if __name__ == "__main__":
    main()
