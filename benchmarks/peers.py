"""Other servers to measure beside, each in a virtual environment of its own."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
MLSERVER = ROOT / ".venv-peers" / "bin" / "mlserver"
RUNTIME = Path(__file__).parent / "mlserver_runtime"
READY_SECONDS = 60.0
# What `adlik up` gives its own processes: pages of large messages are kept, threads do not spin.
ENVIRONMENT = (
    "MALLOC_MMAP_THRESHOLD_=268435456",
    "MALLOC_TRIM_THRESHOLD_=536870912",
    "MALLOC_TOP_PAD_=67108864",
    "OMP_WAIT_POLICY=PASSIVE",
)


class PeerMissing(Exception):
    """A peer does not run here; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A running server: the port of its HTTP and of its gRPC API, on 127.0.0.1."""

    http_port: int
    grpc_port: int


@contextmanager
def mlserver(models: Mapping[str, Path], folder: Path, threads: int) -> Iterator[Peer]:
    """Runs MLServer with ONNX models by name.

    Inference runs in the server's own process (`parallel_workers` 0): its faster way for models
    as small as these.

    Raises:
        PeerMissing: It is not installed or does not start.
    """
    if not MLSERVER.exists():
        raise PeerMissing("MLServer is not installed (make .venv-peers/ready)")
    http, grpc, metrics = _free_ports(3)
    settings = {
        "debug": False,
        "parallel_workers": 0,
        "host": "127.0.0.1",
        "http_port": http,
        "grpc_port": grpc,
        "metrics_port": metrics,
        "grpc_max_message_length": -1,
    }
    folder.mkdir(parents=True)
    (folder / "settings.json").write_text(json.dumps(settings))
    for name, path in models.items():
        (folder / name).mkdir()
        parameters = {"uri": str(path), "extra": {"threads": threads}}
        (folder / name / "model-settings.json").write_text(
            json.dumps(
                {
                    "name": name,
                    "implementation": "onnx_model.OnnxModel",
                    "parameters": parameters,
                }
            )
        )
    command = ["env", *ENVIRONMENT, f"PYTHONPATH={RUNTIME}", str(MLSERVER), "start", str(folder)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        _wait_ready(process, http, models, folder / "log")
        yield Peer(http, grpc)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_ready(
    process: subprocess.Popen, port: int, models: Mapping[str, Path], log: Path
) -> None:
    give_up = time.monotonic() + READY_SECONDS
    for name in models:
        url = f"http://127.0.0.1:{port}/v2/models/{name}/ready"
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > give_up:
                lines = log.read_text(errors="replace").strip().splitlines()
                raise PeerMissing(f"MLServer does not start: {lines[-1] if lines else 'no log'}")
            time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return response.status == 200
    except OSError:
        return False


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [listener.getsockname()[1] for listener in sockets]
