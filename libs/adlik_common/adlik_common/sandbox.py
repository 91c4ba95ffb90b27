"""Runs a function on untrusted input in a child process with limits on time, memory and disk.

A converter given a hostile or merely large model may hang, take all memory or crash. Here that ends
one child:

    size = await run_isolated("package.module:convert", {"model": "model.onnx"}, workdir=directory)

The child starts in the work directory and leaves files there; only JSON comes back. It dies with
its parent, and with the task that awaits it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adlik_proto.adlik.model.v1 import model_pb2

from adlik_common.errors import AdlikError, EngineFailed, ResourceLimit, Unavailable, from_proto
from adlik_common.sandbox_warm import Nursery, WarmChild

_LOG = logging.getLogger(__name__)
_LOOK_SECONDS = 0.05
_TAIL_BYTES = 4096

Heartbeat = Callable[[], Awaitable[object]]
Child = Process | WarmChild


@dataclass(frozen=True, slots=True)
class Limits:
    """What isolated work may take.

    Attributes:
        seconds: Wall time.
        cpu_seconds: Processor time over all threads.
        memory_bytes: Resident anonymous memory.
        file_bytes: Size of any one file it writes.
        niceness: Added to the scheduling priority; above 0 it yields to serving.
    """

    seconds: float = 600.0
    cpu_seconds: int = 3600
    memory_bytes: int = 8 * 2**30
    file_bytes: int = 16 * 2**30
    niceness: int = 5


@dataclass(frozen=True, slots=True)
class _Call:
    request: Path
    result: Path
    log: Path


async def run_isolated(
    function: str,
    arguments: Mapping[str, object],
    *,
    workdir: Path,
    limits: Limits = Limits(),
    heartbeat: Heartbeat | None = None,
    heartbeat_seconds: float = 5.0,
    nursery: Nursery | None = None,
) -> Any:
    """Calls a function in a child process and returns what it returned.

    Cancelling the caller kills the child and everything it started. Call it from the main thread:
    Linux ties the child's life to the thread that started it.

    Args:
        function: "package.module:name"; the name of our own code, never taken from input.
        arguments: Keyword arguments, JSON-able.
        workdir: An existing directory: the child's current one, where it may write files.
        limits: What it may take.
        heartbeat: Awaited now and then while the child runs; an error it raises ends the child.
        heartbeat_seconds: Time between two heartbeats.
        nursery: Gives a child that has imported much already, where one is to be had.

    Returns:
        The JSON-able value that the function returned.

    Raises:
        AdlikError: The same class that the function raised.
        EngineFailed: The function raised something else, or the process crashed.
        ResourceLimit: The work was over a limit.
        Unavailable: Something else killed the child.
    """
    with tempfile.TemporaryDirectory(prefix=".call-", dir=workdir) as directory:
        call = _prepare(directory, function, arguments, limits)
        call.log.touch()
        process: Child | None = None
        if nursery is not None:
            process = await nursery.spawn(call.request, call.log, workdir)
        if process is None:
            process = await _spawn(call, workdir)
        try:
            await _watch(process, limits, heartbeat, heartbeat_seconds)
        finally:
            await _end(process)
        return _read(call, function, process.returncode or 0)


async def _spawn(call: _Call, workdir: Path) -> Process:
    # -P: a file in the work directory must never be imported in place of a module.
    command = (sys.executable, "-P", "-m", "adlik_common.sandbox_child", str(call.request))
    with call.log.open("ab") as log:
        return await asyncio.create_subprocess_exec(
            *command, cwd=workdir, stdin=DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def _prepare(
    directory: str, function: str, arguments: Mapping[str, object], limits: Limits
) -> _Call:
    root = Path(directory).resolve()
    call = _Call(root / "request.json", root / "result.json", root / "log.txt")
    request = {
        "function": function,
        "arguments": dict(arguments),
        "limits": asdict(limits),
        "parent": os.getpid(),
        "result": str(call.result),
    }
    call.request.write_text(json.dumps(request))
    return call


async def _watch(
    process: Child,
    limits: Limits,
    heartbeat: Heartbeat | None,
    heartbeat_seconds: float,
) -> None:
    """Returns when the process ends by itself; raises once it is over its time or memory."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limits.seconds
    next_beat = loop.time() + heartbeat_seconds
    ending = asyncio.ensure_future(process.wait())
    try:
        while not (await asyncio.wait({ending}, timeout=_LOOK_SECONDS))[0]:
            _check(process, limits, deadline - loop.time())
            if heartbeat is not None and loop.time() >= next_beat:
                next_beat = loop.time() + heartbeat_seconds
                await heartbeat()
    finally:
        ending.cancel()


def _check(process: Child, limits: Limits, seconds_left: float) -> None:
    if seconds_left < 0:
        raise ResourceLimit(
            f"The work took longer than {limits.seconds:g} s and was stopped.",
            cure="Raise the time limit or use a smaller model.",
        )
    if _resident_bytes(process.pid) > limits.memory_bytes:
        raise ResourceLimit(
            f"The work took over {limits.memory_bytes / 2**20:.0f} MiB of memory and was stopped.",
            cure="Raise the memory limit or use a smaller model.",
        )


def _resident_bytes(pid: int) -> int:
    """Returns the anonymous memory of a process; 0 where it ended or the system does not say."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


async def _end(process: Child) -> None:
    """Kills the child, where it still runs, and whatever it started; returns when it is gone."""
    with contextlib.suppress(ProcessLookupError):  # all of the group ended by themselves
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _read(call: _Call, function: str, returncode: int) -> Any:
    if call.result.is_file():
        answer = json.loads(call.result.read_bytes())
        if "result" in answer:
            return answer["result"]
        error = from_proto(model_pb2.Error(**answer["error"]))
    else:
        error = _crash(returncode)
    tail = call.log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace").strip()
    if tail and isinstance(error, EngineFailed | ResourceLimit):
        error.details["log"] = tail
    _LOG.warning("isolated %s failed: %s\n%s", function, error, tail)
    raise error


def _crash(returncode: int) -> AdlikError:
    how = f"exit status {returncode}" if returncode >= 0 else signal.Signals(-returncode).name
    if how == "SIGXCPU":
        return ResourceLimit(
            "The work took more processor time than allowed and was stopped.",
            cure="Raise the time limit or use a smaller model.",
        )
    if how == "SIGKILL":
        return Unavailable(
            "Something outside Adlik killed the working process, most likely for memory.",
            cure="Give the machine more memory, or lower the memory limit.",
        )
    return EngineFailed(
        f"The engine crashed with {how}.",
        cure="The model may be malformed; the service's log has the engine's own words.",
    )
