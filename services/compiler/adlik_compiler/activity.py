"""Whether a worker has something to do, and work that yields to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from adlik_common.bus import Delivery, Handler

T = TypeVar("T")


class Activity:
    """Knows whether handlers run, and since when none does."""

    def __init__(self) -> None:
        self._running = 0
        self._working = asyncio.Event()
        self._last = time.monotonic()

    def watched(self, handler: Handler) -> Handler:
        """Returns a handler whose runs count as work."""

        async def handle(event: Any, delivery: Delivery) -> Sequence[str] | None:
            self._running += 1
            self._working.set()
            try:
                return await handler(event, delivery)
            finally:
                self._running -= 1
                self._last = time.monotonic()
                if not self._running:
                    self._working.clear()

        return handle

    async def rest(self, seconds: float) -> None:
        """Returns once there has been no work for so many seconds."""
        while (left := self._missing(seconds)) > 0:
            await asyncio.sleep(left)

    async def work(self) -> None:
        """Returns as soon as there is work."""
        await self._working.wait()

    async def unless_working(self, idle: Coroutine[Any, Any, T]) -> T | None:
        """Returns what idle work gives, None where it was cancelled because there is work."""
        task = asyncio.ensure_future(idle)
        work = asyncio.ensure_future(self.work())
        try:
            await asyncio.wait({task, work}, return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            task.cancel()
            work.cancel()
            await asyncio.gather(task, work, return_exceptions=True)

    def _missing(self, seconds: float) -> float:
        if self._running:
            return seconds
        return self._last + seconds - time.monotonic()
