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
