"""Runs a serving replica: `python -m adlik_serving`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from adlik_common import addresses
from adlik_common.link import LinkServer
from adlik_common.service import Context, run
from adlik_runtimes.registry import engines

from adlik_serving.deployer import Deployer
from adlik_serving.servicer import Servicer
from adlik_serving.settings import ServingSettings

log = logging.getLogger(__name__)

# After the replica has said that it drains, gateways need a moment to hear it.
_HEAR_SECONDS = 0.2
# For so long a thread that reads a large body keeps the event loop waiting each time.
_SWITCH_SECONDS = 0.001


@asynccontextmanager
async def serve(context: Context) -> AsyncIterator[None]:
    """Serves what is released, from before `yield` until every accepted request is answered."""
    settings: ServingSettings = context.settings
    deployer = Deployer(context, settings)
    server = LinkServer(
        Servicer(deployer.loaded, deployer.failed), max_body_bytes=settings.max_request_bytes
    )
    context.replica.link = _advertised(settings, await server.start(_address(settings, context.id)))
    for name, engine in engines().items():
        context.replica.engines[name] = engine.unavailable()
    context.background(deployer.watch(), "releases")
    await _first_of(deployer.settled(settings.ready_seconds), context.stopping.wait())
    log.info("listens on %s with %d engine threads", context.replica.link, settings.threads())
    yield
    await asyncio.sleep(_HEAR_SECONDS)
    await server.stop(settings.drain_seconds)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(settings.drain_seconds):
            await deployer.close()


async def _first_of(*works: Coroutine[Any, Any, object]) -> None:
    """Waits for the first of several works and leaves the others."""
    tasks = [asyncio.create_task(work) for work in works]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def _address(settings: ServingSettings, instance: str) -> str:
    """Returns the address to listen on."""
    if settings.link_host:
        return f"tcp://{addresses.joined(settings.link_host, settings.link_port)}"
    return f"unix://{settings.runtime_dir}/serving-{instance}.sock"


def _advertised(settings: ServingSettings, address: str) -> str:
    """Returns the address that gateways are to use."""
    url = urlsplit(address)
    host = settings.link_advertise
    if url.scheme != "tcp" or url.port is None:
        return address
    if not host and url.hostname in addresses.WILDCARDS:
        host = socket.gethostname()
    return f"tcp://{addresses.joined(host, url.port)}" if host else address


def main() -> None:
    """Runs the service until it is told to stop."""
    sys.setswitchinterval(_SWITCH_SECONDS)
    run("serving", ServingSettings(), serve)


if __name__ == "__main__":
    main()
