"""Starts the optimizer: `python -m adlik_optimizer`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from adlik_common import service
from adlik_common.service import Context

from adlik_optimizer.recipes import RECIPES
from adlik_optimizer.settings import OptimizerSettings
from adlik_optimizer.worker import Optimizer


@contextlib.asynccontextmanager
async def start(context: Context) -> AsyncIterator[None]:
    """Announces the recipes and starts to consume."""
    for recipe in RECIPES:
        context.replica.capabilities[recipe] = ""
    optimizer = Optimizer(context)
    context.background(optimizer.nursery.run(), "nursery")
    context.background(optimizer.run(), "consumer optimizer")
    yield


if __name__ == "__main__":
    service.run("optimizer", OptimizerSettings(), start)
