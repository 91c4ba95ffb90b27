"""Starts a real mesh, as a user does, for the tests that look at it from outside."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import onnxruntime
import psutil
from adlik.client import Client
from adlik.errors import AdlikError
from adlik.records import Model

T = TypeVar("T")

PATIENCE_SECONDS = 60.0
SERVICES = ("gateway", "serving", "compiler", "optimizer")

# Variants that are made within seconds, and their measurement as short as it may be.
QUICK_PLAN = {"recipes": ["clean"], "targets": ["onnxruntime-fp32"]}
QUICK_VARIANTS = ["clean.onnxruntime-fp32", "pushed.onnxruntime-fp32"]
# Idle compilers rest: tuning would take the tests' processor time.
_SETTINGS = {"ADLIK_VERIFY_LATENCY_SECONDS": "0.1", "ADLIK_IDLE_SECONDS": "0"}


def eventually(found: Callable[[], T], what: str, seconds: float = PATIENCE_SECONDS) -> T:
    """Returns the first true value that `found` gives; fails where none comes."""
    give_up = time.monotonic() + seconds
    while True:
        with contextlib.suppress(AdlikError):
            if value := found():
                return value
        assert time.monotonic() < give_up, f"waited {seconds:g} s in vain until {what}"
        time.sleep(0.05)


class Mesh:
    """`adlik up` in a process of its own; use as a context manager.

    Attributes:
        http: URL of the HTTP API.
        grpc: host:port of the gRPC API.
        nats: URL of NATS.
        pids: Process ids by name, as the launcher told them at the start.
        client: A client of the mesh.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        optimizers: int = 1,
        compilers: int = 1,
        servers: int = 1,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.data_dir = data_dir
        self._processes = {
            "gateway": 1,
            "serving": servers,
            "compiler": compilers,
            "optimizer": optimizers,
        }
        self._settings = {**_SETTINGS, **(settings or {})}
        self._launcher: subprocess.Popen[str] | None = None
        self.http = self.grpc = self.nats = ""
        self.pids: dict[str, int] = {}

    def __enter__(self) -> Self:
        self.data_dir.mkdir(parents=True, exist_ok=True)
        ports = ["--http-port", "0", "--grpc-port", "0"]
        numbers = [
            f"--{option}={self._processes[service]}"
            for option, service in (
                ("servers", "serving"),
                ("compilers", "compiler"),
                ("optimizers", "optimizer"),
            )
        ]
        with (self.data_dir / "launcher.log").open("ab") as log:
            self._launcher = subprocess.Popen(
                [
                    *(sys.executable, "-m", "adlik", "up", "--data-dir", self.data_dir),
                    *(*ports, *numbers, "--json"),
                ],
                env={**os.environ, **self._settings},  # noqa: TID251 - for a program we start
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        line = self._launcher.stdout.readline()
        assert line, (self.data_dir / "launcher.log").read_text()
        facts = json.loads(line)
        self.http, self.grpc, self.nats = facts["http"], facts["grpc"], facts["nats"]
        self.pids = facts["processes"]
        self.client = Client(self.http, timeout=PATIENCE_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> int:
        """Stops everything as Ctrl-C does; returns the launcher's exit status."""
        self.client.close()
        self._launcher.terminate()
        status = self._launcher.wait(PATIENCE_SECONDS)
        self._launcher.stdout.close()
        return status

    def running(self, service: str) -> list[psutil.Process]:
        """Returns a service's (or "nats") living processes, the oldest first."""
        word = "nats-server" if service == "nats" else f"adlik_{service}"
        found = []
        for process in psutil.Process(self._launcher.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                if any(word in part for part in process.cmdline()):
                    found.append(process)
        return sorted(found, key=lambda process: process.create_time())

    def kill(self, service: str) -> int:
        """Sends SIGKILL to a service's (or "nats") oldest process; returns its id."""
        process = eventually(lambda: self.running(service), f"{service} runs")[0]
        process.send_signal(signal.SIGKILL)
        return process.pid

    def wait_whole(self) -> None:
        """Waits until every process that was started is there and has announced itself."""

        def whole() -> bool:
            announced = {r.pid for r in self.client.replicas() if not r.draining}
            alive = {s: {p.pid for p in self.running(s)} for s in self._processes}
            return all(
                len(alive[service] & announced) == number
                for service, number in self._processes.items()
            )

        eventually(whole, "every service runs")

    def push(self, name: str, model: Path, samples: Path | None = None, **plan: object) -> Model:
        """Pushes a model, by default with `QUICK_PLAN`, and waits until it is settled."""
        self.client.push(name, model, samples=samples, plan=plan or QUICK_PLAN)
        return self.wait_settled(name)

    def wait_settled(self, name: str, version: int = 0) -> Model:
        """Waits until nothing more will happen to a version, and what is released answers."""

        def settled() -> Model | None:
            model = self.client.model(name)
            record = model.version(version)
            if record is None or not record.settled:
                return None
            return model if model.release is None or model.ready_replicas else None

        return eventually(settled, f"{name} is settled")

    def wait_ready(self, name: str) -> Model:
        """Waits until something answers for a model."""

        def ready() -> Model | None:
            model = self.client.model(name)
            return model if model.ready_replicas else None

        return eventually(ready, f"{name} answers")

    def cli(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Runs the `adlik` command against the mesh."""
        return subprocess.run(
            [sys.executable, "-m", "adlik", *map(str, arguments), "--url", self.http],
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_SECONDS,
            check=False,
        )


def expected(model: Path, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns what a model file gives, run by ONNX Runtime in this process."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def check_answer(mesh: Mesh, name: str, model: Path, inputs: Mapping[str, np.ndarray]) -> None:
    """Fails unless the mesh answers what the pushed file gives, within an fp32 variant's error."""
    found = mesh.client.infer(name, inputs)
    for output, values in expected(model, inputs).items():
        np.testing.assert_allclose(found[output], values, rtol=1e-3, atol=1e-4)
