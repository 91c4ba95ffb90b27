"""`adlik up`: a whole mesh on this machine."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from adlik.commands.options import Json, said
from adlik.launcher.mesh import POLL_SECONDS, LocalMesh, MeshOptions

DEFAULT_DATA_DIR = Path.home() / ".local" / "share" / "adlik"

Processes = Annotated[int, typer.Option(min=1, max=64)]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")]


@said
def up(
    data_dir: Annotated[
        Path, typer.Option(help="Keeps models, events and logs.")
    ] = DEFAULT_DATA_DIR,
    http_port: Port = 8080,
    grpc_port: Port = 8081,
    optimizers: Processes = 1,
    compilers: Processes = 1,
    servers: Processes = 1,
    nats_url: Annotated[str, typer.Option(help="Use this NATS instead of an own one.")] = "",
    artifacts_url: Annotated[
        str, typer.Option(help="Keep artifacts there: file://, nats://, s3://, gs:// or az://.")
    ] = "",
    json_output: Json = False,
) -> None:
    """Starts NATS and all four services; Ctrl-C drains and stops them."""
    processes = Counter(gateway=1, serving=servers, compiler=compilers, optimizer=optimizers)
    options = MeshOptions(
        data_dir.absolute(), http_port, grpc_port, processes, nats_url, artifacts_url
    )
    stopping = False

    def stop(*_: object) -> None:
        nonlocal stopping
        stopping = True
        if not ready:
            raise KeyboardInterrupt

    ready = False
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        with LocalMesh(options, _say) as mesh:
            mesh.wait_ready()
            ready = True
            _announce(mesh, options, json_output=json_output)
            while not stopping:
                mesh.mend()
                time.sleep(POLL_SECONDS)
            _say("stopping; work in hand is finished first")
    except KeyboardInterrupt:
        _say("stopped before it was ready")
        raise typer.Exit(130) from None


def _announce(mesh: LocalMesh, options: MeshOptions, *, json_output: bool) -> None:
    if json_output:
        urls = {"http": mesh.http_url, "grpc": mesh.grpc_url, "nats": mesh.nats_url}
        facts = {**urls, "pid": os.getpid(), "processes": mesh.pids}
        print(json.dumps(facts), flush=True)  # noqa: T201
        return
    _say(f"ready: HTTP {mesh.http_url} (page: {mesh.http_url}/docs), gRPC {mesh.grpc_url}")
    _say(f"state, artifacts and logs: {options.data_dir}")
    _say("push a model with: adlik push MODEL.onnx --wait; stop with Ctrl-C")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201
