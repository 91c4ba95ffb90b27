"""The life of a service process: connect, set up, announce, work, drain, stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

import uvloop
from adlik_proto.adlik.control.v1 import control_pb2
from nats.errors import Error as NatsError
from starlette.applications import Starlette

from adlik_common import bus as bus_module
from adlik_common import telemetry
from adlik_common.artifacts import ArtifactStore, open_store
from adlik_common.bus import Bus
from adlik_common.errors import AdlikError
from adlik_common.health import health_routes, serve_http
from adlik_common.settings import ServiceSettings
from adlik_common.state import State, open_state

log = logging.getLogger(__name__)

CANCEL_AGAIN_SECONDS = 5.0


@dataclass(slots=True)
class Context:
    """What a service works with.

    Attributes:
        name: "optimizer", "compiler", "serving" or "gateway".
        id: This process, unique in the mesh.
        settings: The service's own settings.
        bus: Events.
        state: Shared state.
        artifacts: The artifact store.
        replica: This process's entry in the replica table; change it, then `announce`.
    """

    name: str
    id: str
    settings: Any
    bus: Bus
    state: State
    artifacts: ArtifactStore
    replica: control_pb2.Replica
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    failure: BaseException | None = None
    _tasks: dict[asyncio.Task[None], str] = field(default_factory=dict)

    def background(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Runs work beside the rest; if it fails the service stops with its error."""
        task = asyncio.create_task(work, name=name)
        self._tasks[task] = name
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=error)
            self.failure = error
            self.stopping.set()

    async def announce(self) -> None:
        """Writes this process's entry in the replica table now."""
        await self.state.replicas.put(f"{self.name}.{self.id}", self.replica)

    async def heartbeat(self) -> None:
        """Keeps the entry alive, for ever."""
        while True:
            with contextlib.suppress(AdlikError, NatsError):
                await self.announce()
            await asyncio.sleep(self.settings.heartbeat_seconds)

    async def finish(self) -> None:
        """Lets background work end within the drain time, then cancels it."""
        workers = [t for t, name in self._tasks.items() if name.startswith("consumer")]
        if workers:
            await asyncio.wait(workers, timeout=self.settings.drain_seconds)
        tasks = set(self._tasks)
        while tasks:
            for task in tasks:
                task.cancel()
            # Python 3.11's `wait_for`, under every answer of NATS, may swallow a cancellation
            # (https://github.com/python/cpython/issues/86296), so it is said again.
            _, tasks = await asyncio.wait(tasks, timeout=CANCEL_AGAIN_SECONDS)


Start = Callable[[Context], AbstractAsyncContextManager[None]]


def run(name: str, settings: ServiceSettings, start: Start) -> None:
    """Runs a service until SIGTERM or SIGINT, then drains it; the process's exit code says how.

    Args:
        name: The service.
        settings: Its settings.
        start: Sets the service up before its `yield` and takes it down after it.
    """
    logging.basicConfig(
        level=settings.log_level,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(name, settings, start))
    except AdlikError as error:
        log.error("%s: %s", error.code, error)  # noqa: TRY400 - said in words already
        sys.exit(1)


async def _run(name: str, settings: ServiceSettings, start: Start) -> None:
    instance = secrets.token_hex(4)
    bus = await bus_module.connect(settings, f"adlik/{name}/{instance}")
    processor = telemetry.configure(name, instance, settings, bus)
    state = await open_state(bus)
    replica = control_pb2.Replica(
        id=instance, service=name, host=socket.gethostname(), pid=os.getpid()
    )
    replica.started_at.GetCurrentTime()
    context = Context(
        name, instance, settings, bus, state, await open_store(settings, bus), replica
    )
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, context.stopping.set)

    def unready() -> str:
        # Not NATS: without it replicas still answer, and a restart would mend nothing.
        return "stopping" if context.stopping.is_set() else ""

    app = Starlette(routes=health_routes(unready))
    async with contextlib.AsyncExitStack() as stack:
        context.background(processor.run(), "traces")
        stack.push_async_callback(_close, context, processor)
        await stack.enter_async_context(start(context))
        port = await stack.enter_async_context(
            serve_http(app, settings.health_host, settings.health_port)
        )
        context.background(context.heartbeat(), "heartbeat")
        log.info("%s %s is ready (health on port %d)", name, instance, port)
        await context.stopping.wait()
        log.info("%s %s drains", name, instance)
        replica.draining = True
        with contextlib.suppress(AdlikError, NatsError):
            await context.announce()
        bus.draining.set()
    if context.failure is not None:
        raise context.failure


async def _close(context: Context, processor: telemetry.JetStreamProcessor) -> None:
    await context.finish()
    with contextlib.suppress(AdlikError, NatsError, TimeoutError):
        await asyncio.wait_for(context.state.replicas.delete(f"{context.name}.{context.id}"), 2)
    await processor.flush()
    telemetry.shut_down()
    await context.bus.close()
