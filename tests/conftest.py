"""What all tests share: a real NATS server on a free port, and settings that point at it."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from adlik_common.settings import ServiceSettings

_NOT_RUN = pytest.StashKey[dict[str, int]]()


def pytest_collection_modifyitems(config, items):
    """Sets aside what this machine cannot run; it is counted, and is no passed test."""
    marked = [(item, item.get_closest_marker("needs_level")) for item in items]
    if not any(mark for _, mark in marked):
        return
    from adlik_kernels.machine.target import LEVELS, host

    above = LEVELS[LEVELS.index(host().level) + 1 :]
    aside = {id(item): mark.args[0] for item, mark in marked if mark and mark.args[0] in above}
    config.stash[_NOT_RUN] = {level: list(aside.values()).count(level) for level in above}
    config.hook.pytest_deselected(items=[item for item in items if id(item) in aside])
    items[:] = [item for item in items if id(item) not in aside]


def pytest_terminal_summary(terminalreporter, config):
    """Says how much was not run here, and why."""
    counts = config.stash.get(_NOT_RUN, {})
    if not any(counts.values()):
        return
    from adlik_kernels.machine.target import host

    parts = ", ".join(f"{count} need {level}" for level, count in counts.items() if count)
    terminalreporter.write_line(
        f"not run here: {sum(counts.values())} tests ({parts}; the level of this run is "
        f"{host().level})"
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class NatsServer:
    """A nats-server process with JetStream that can be killed and started again."""

    def __init__(self, store: Path) -> None:
        self.port, self.store = free_port(), store
        self.url = f"nats://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        binary = Path(sys.executable).with_name("nats-server")
        self.process = subprocess.Popen(
            [binary, "-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.store)],
            stderr=subprocess.DEVNULL,
        )
        give_up = time.monotonic() + 10
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 0.2).close()
                return
            assert time.monotonic() < give_up, "nats-server did not start"
            time.sleep(0.02)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def nats_server(tmp_path):
    server = NatsServer(tmp_path / "nats")
    yield server
    server.kill()
    shutil.rmtree(tmp_path / "nats", ignore_errors=True)


@pytest.fixture
def settings(nats_server, tmp_path):
    return ServiceSettings(
        nats_url=nats_server.url,
        artifacts_url=f"file://{tmp_path}/artifacts",
        cache_dir=tmp_path / "cache",
        heartbeat_seconds=0.3,
    )
