"""The ways to ask for a model: in process, through Adlik, through MLServer."""

from __future__ import annotations

import os
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adlik import Client, oip
from adlik.commands.push import wait_settled
from adlik.launcher.mesh import LocalMesh

from benchmarks import peers
from benchmarks.subjects import Subject, write_bodies

PUSH_SECONDS = 150.0
PINNED = {"recipes": ["clean"], "targets": ["onnxruntime-fp32"]}
METHOD = "/inference.GRPCInferenceService/ModelInfer"
IN_PROCESS, HTTP, GRPC = "engine", "http", "grpc"
PEER_HTTP, PEER_GRPC = "MLServer, HTTP JSON", "MLServer, gRPC"


@dataclass(frozen=True, slots=True)
class Way:
    """A row of the table.

    Attributes:
        label: What is asked, and how.
        kind: IN_PROCESS, HTTP or GRPC.
        spec: What `benchmarks.closed_loop` opens; empty: not run here.
        base: Label of the in-process row with the same engine.
        peer: Label of MLServer's row with the same protocol.
        note: Why it is not run.
        exact: Its answers must be those of fp32; those of Adlik's choice need only be near.
    """

    label: str
    kind: str
    spec: dict[str, Any] = field(default_factory=dict)
    base: str = ""
    peer: str = ""
    note: str = ""
    exact: bool = True


def over_http(port: int, served: str, body: Path, json_length: int = 0) -> dict[str, Any]:
    headers = {"Content-Type": "application/json"}
    if json_length:
        headers = {
            "Content-Type": "application/octet-stream",
            oip.JSON_LENGTH_HEADER: str(json_length),
        }
    return {
        "kind": HTTP,
        "host": "127.0.0.1",
        "port": port,
        "path": f"/v2/models/{served}/infer",
        "headers": headers,
        "body": str(body),
    }


def over_grpc(port: int, body: Path) -> dict[str, Any]:
    return {"kind": GRPC, "target": f"127.0.0.1:{port}", "method": METHOD, "body": str(body)}


def in_process(engine: str, precision: str, path: Path, inputs: Path) -> dict[str, Any]:
    return {
        "kind": IN_PROCESS,
        "engine": engine,
        "precision": precision,
        "path": str(path),
        "threads": threads(),
        "inputs": str(inputs),
    }


def threads() -> int:
    """Returns the threads that an engine gets everywhere: all cores, as in `adlik up`."""
    return len(os.sched_getaffinity(0))


def ways_of_served(
    client: Client, subject: Subject, mesh: LocalMesh, peer: peers.Peer | str, folder: Path
) -> list[Way]:
    """Pushes a model, served as fp32 by ONNX Runtime, and returns the ways to ask for it.

    Args:
        client: Where it is pushed.
        subject: The model.
        mesh: The mesh that serves it.
        peer: MLServer with the same model, or why it does not run.
        folder: For files.
    """
    name = subject.name
    push(client, subject, name, PINNED, folder)
    asked = write_bodies(subject, name, folder / name)
    base = "in process, onnxruntime-fp32"
    local = in_process("onnxruntime", "fp32", subject.path, asked.inputs)
    binary = over_http(mesh.http_port, name, asked.binary, asked.json_length)
    text, grpc = (
        over_http(mesh.http_port, name, asked.text),
        over_grpc(mesh.grpc_port, asked.message),
    )
    ways = [
        Way(base, IN_PROCESS, local),
        Way("Adlik, HTTP binary", HTTP, binary, base, PEER_HTTP),
        Way("Adlik, HTTP JSON", HTTP, text, base, PEER_HTTP),
        Way("Adlik, gRPC", GRPC, grpc, base, PEER_GRPC),
    ]
    if isinstance(peer, str):
        return [*ways, Way(PEER_HTTP, HTTP, note=peer), Way(PEER_GRPC, GRPC, note=peer)]
    text, grpc = (
        over_http(peer.http_port, name, asked.text),
        over_grpc(peer.grpc_port, asked.message),
    )
    return [*ways, Way(PEER_HTTP, HTTP, text, base), Way(PEER_GRPC, GRPC, grpc, base)]


def ways_of_choice(client: Client, subject: Subject, mesh: LocalMesh, folder: Path) -> list[Way]:
    """Pushes with every recipe and target and returns the ways to ask for what is released.

    None where that is fp32 by ONNX Runtime again.
    """
    served = f"{subject.name}-choice"
    variant, path = push(client, subject, served, {}, folder)
    engine, _, precision = variant.partition(".")[2].partition("-")
    if (engine, precision) == ("onnxruntime", "fp32"):
        return []
    asked = write_bodies(subject, served, folder / served)
    base = f"in process, {variant}"
    local = in_process(engine, precision, path, asked.inputs)
    http = over_http(mesh.http_port, served, asked.binary, asked.json_length)
    grpc = over_grpc(mesh.grpc_port, asked.message)
    return [
        Way(base, IN_PROCESS, local, exact=False),
        Way("Adlik's choice, HTTP binary", HTTP, http, base, PEER_HTTP, exact=False),
        Way("Adlik's choice, gRPC", GRPC, grpc, base, PEER_GRPC, exact=False),
    ]


def push(
    client: Client, subject: Subject, name: str, plan: dict[str, Any], folder: Path
) -> tuple[str, Path]:
    """Pushes, waits for the best variant, and returns its name and its files for an engine."""
    started = time.monotonic()
    pushed = client.push(name, subject.path, samples=subject.samples, plan=plan)
    model = wait_settled(client, pushed, PUSH_SECONDS, quiet=True)
    if model.release is None:
        raise SystemExit(f"No variant of {name} was released.")
    compiled = model.release.compiled
    path = folder / f"{name}.model"
    client.download(name, pushed.pushed.version, compiled.variant, path)
    if zipfile.is_zipfile(path):
        unpacked = folder / f"{name}.files"
        with zipfile.ZipFile(path) as archive:
            archive.extractall(unpacked)
        path = unpacked
    print(f"{name}: {compiled.variant} after {time.monotonic() - started:.0f} s", flush=True)
    return compiled.variant, path
