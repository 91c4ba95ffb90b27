"""Children of the sandbox that start at once, because their parent has imported what they need."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen

PAUSE_SECONDS = 1.0
"""Time until another parent follows one that ended by itself."""
_LOG = logging.getLogger(__name__)


class WarmChild:
    """A running child; what `sandbox` needs of `asyncio.subprocess.Process`."""

    def __init__(self, pid: int, ended: asyncio.Future[int]) -> None:
        self.pid, self._ended = pid, ended

    @property
    def returncode(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._ended.result() if self._ended.done() else None

    async def wait(self) -> int:
        """Returns its exit status once it has ended."""
        return await asyncio.shield(self._ended)


class Nursery:
    """Makes warm children, from one event loop, while `run` runs; else there are none to be had.

    Args:
        modules: What children need, by name; those that are missing are left out.
    """

    def __init__(self, modules: Sequence[str]) -> None:
        self._modules = tuple(modules)
        self._process: Popen[bytes] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._orders = itertools.count()
        self._started: dict[int, asyncio.Future[int]] = {}
        self._ended: dict[int, asyncio.Future[int]] = {}

    async def run(self) -> None:
        """Has children at hand until it is cancelled; another parent follows one that ended."""
        try:
            while True:
                await asyncio.wait({await self._start()})
                await asyncio.sleep(PAUSE_SECONDS)
        finally:
            await self._close()

    async def _start(self) -> asyncio.Task[None]:
        """Starts importing; `spawn` declines until that is done."""
        command = (sys.executable, "-P", "-m", "adlik_common.sandbox_nursery", *self._modules)
        # Not by the event loop: uvloop's copy of a service that was still starting, whose threads
        # imported, has once been seen to wait for a lock for ever, and the service with it.
        self._process = process = Popen(  # noqa: ASYNC220 - milliseconds, once
            command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL
        )
        lines = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(lines), process.stdout
        )
        self._reading = asyncio.create_task(self._read(process, lines), name="nursery")
        return self._reading

    async def ready(self) -> None:
        """Returns when children can be had."""
        await self._ready.wait()

    async def spawn(self, request: Path, log: Path, workdir: Path) -> WarmChild | None:
        """Returns a child that answers a request, None where there is none to be had now."""
        process = self._process
        if process is None or process.stdin is None or not self._ready.is_set():
            return None
        order, loop = next(self._orders), asyncio.get_running_loop()
        started, ended = loop.create_future(), loop.create_future()
        self._started[order], self._ended[order] = started, ended
        text = {"order": order, "request": str(request), "log": str(log), "workdir": str(workdir)}
        try:
            process.stdin.write(json.dumps(text).encode() + b"\n")
            process.stdin.flush()
            return WarmChild(await asyncio.shield(started), ended)
        except asyncio.CancelledError:
            # The caller goes, the child comes all the same: it is ended as soon as it is known.
            started.add_done_callback(_kill)
            raise
        except ConnectionError:
            return None

    async def _close(self) -> None:
        """Ends the nursery; its children end with it."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        if self._reading is not None:
            await self._reading

    async def _read(self, process: Popen[bytes], lines: asyncio.StreamReader) -> None:
        """Follows what the nursery tells, until it ends."""
        async for line in lines:
            told = json.loads(line)
            if "ready" in told:
                self._ready.set()
            elif "pid" in told:
                _settle(self._started.pop(told["order"]), told["pid"])
            else:
                _settle(self._ended.pop(told["order"]), told["status"])
        self._ready.clear()
        process.kill()
        await asyncio.to_thread(process.wait)
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # an order that came too late
                process.stdin.close()
        for future in self._started.values():
            if not future.done():
                future.set_exception(ConnectionError("the nursery has ended"))
        for future in self._ended.values():  # children die with it
            _settle(future, -signal.SIGKILL)
        self._started.clear()
        self._ended.clear()
        if self._process is process:
            _LOG.warning("the parent of warm children has ended; another one is started")
            self._process = None


def _settle(future: asyncio.Future[int], value: int) -> None:
    if not future.done():
        future.set_result(value)


def _kill(started: asyncio.Future[int]) -> None:
    if started.exception() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.result(), signal.SIGKILL)
