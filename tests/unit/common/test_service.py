"""The end of a service's background work."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace

from adlik_common import service
from adlik_common.service import Context


def context() -> Context:
    settings = SimpleNamespace(drain_seconds=0)
    return Context("compiler", "a", settings, None, None, None, None)


async def test_a_task_that_swallows_a_cancellation_is_cancelled_again(monkeypatch):
    monkeypatch.setattr(service, "CANCEL_AGAIN_SECONDS", 0.01)
    swallowed = []

    async def deaf():
        while len(swallowed) < 2:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            swallowed.append(True)
        await asyncio.Event().wait()

    running = context()
    running.background(deaf(), "deaf")
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await running.finish()
    assert len(swallowed) == 2
    assert running.failure is None


async def test_without_work_there_is_nothing_to_wait_for():
    await context().finish()
