"""Threads that read and write bodies which would hold up the event loop.

Heartbeats and everybody else's requests go through the one loop, so what takes long is done beside
it. There are two lanes, each of one thread, so that a body of seconds is not before those of
milliseconds. More threads would read no faster: they share the interpreter's lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from adlik_common.errors import Overloaded

INLINE_WORK = 64 * 1024
"""Bytes to read, or a multiple of elements to write, that take about a millisecond."""
SHORT_WORK = 2 << 20
ELEMENT_WORK = 16
"""Bytes that take as long to read as an element takes to write."""


MAX_WAITING_WORK = 1 << 30


class Lane(Protocol):
    """Does work now or later; in either case on one thread for each piece of work."""

    def check_room(self, amount: int) -> None:
        """Raises `Overloaded` where so much work waits that no request should add to it."""

    def __call__(self, amount: int, work: Callable[[], Callable[[], None]]) -> None:
        """Has some work done.

        Args:
            amount: How much it is, in bytes to read.
            work: Does it, anywhere, and returns what is to be done then on the event loop.
        """


class Lanes:
    """Does short work at once and the rest on threads; used from one event loop."""

    def __init__(self) -> None:
        self._short = ThreadPoolExecutor(1, thread_name_prefix="codec")
        self._long = ThreadPoolExecutor(1, thread_name_prefix="codec-long")
        self._waiting = 0

    def check_room(self, amount: int) -> None:
        """See `Lane`."""
        if self._waiting and self._waiting + amount > MAX_WAITING_WORK:
            raise Overloaded(
                f"Requests of {self._waiting} bytes wait already to be read.",
                cure="Try again a little later, send less at once or add serving replicas.",
            )

    def __call__(self, amount: int, work: Callable[[], Callable[[], None]]) -> None:
        """See `Lane`."""
        if amount <= INLINE_WORK:
            work()()
            return
        loop = asyncio.get_running_loop()
        lane = self._short if amount <= SHORT_WORK else self._long
        self._waiting += amount

        def finish(then: Callable[[], None]) -> None:
            self._waiting -= amount
            then()

        lane.submit(lambda: loop.call_soon_threadsafe(finish, work()))
