"""Adlik's serving path beside the engine in process and beside MLServer, on the same models.

A mesh of `adlik up` and an MLServer run next to each other; one client in a process of its own asks
them, and the engines, in turns of a fraction of a second, so that a disturbance of the machine hits
all of them. Adlik serves the same fp32 ONNX Runtime variant as MLServer, with the same options;
further rows show the variant that Adlik would choose by itself. docs/benchmarks.md explains the
table.

    python -m benchmarks.serving [--seconds 2] [--quick] [--json FILE]
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from adlik import Client, oip
from adlik.launcher.mesh import LocalMesh, MeshOptions
from adlik_proto.inference import open_inference_pb2 as pb

from benchmarks import machine, peers
from benchmarks.subjects import make_mlp, make_mobilenet
from benchmarks.ways import HTTP, IN_PROCESS, Way, threads, ways_of_choice, ways_of_served

CLIENTS = (1, 8)
SLICE_SECONDS = 0.25
PATIENCE_SECONDS = 6.0  # for a quiet moment before each table
QUICK_SECONDS = 0.5
OUTPUT_TOLERANCE = 1e-3
MIN_COSINE = 0.95


@dataclass(slots=True)
class Found:
    """What was measured of a way: latencies in seconds; requests a second by slice."""

    latencies: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    errors: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it is reported; None where there is nothing to compare with."""

    model: str
    clients: int
    way: str
    p50_ms: float | None = None
    p90_ms: float | None = None
    p99_ms: float | None = None
    per_second: float | None = None
    added_ms: float | None = None
    of_in_process: float | None = None
    of_mlserver: float | None = None
    errors: int = 0
    note: str = ""


# ---------------------------------------------------------------------------------- measurement


class LoadClient:
    """The load client's process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def order(self, **command: Any) -> dict[str, Any]:
        """Has a command carried out; raises `SystemExit` where it can't be."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"error": "it has ended"}')
        if "error" in answer:
            raise SystemExit(f"The load client failed at {command}: {answer['error']}")
        return answer


@contextmanager
def load_client() -> Iterator[LoadClient]:
    # gRPC would tell of every program that an engine starts to look at the machine.
    command = ["env", "GRPC_VERBOSITY=ERROR", sys.executable, "-m", "benchmarks.closed_loop"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield LoadClient(process)
    finally:
        process.kill()
        process.wait()


def check_answers(client: LoadClient, ways: Sequence[Way]) -> None:
    """Opens every way, warms it up and compares its answer with the first one's.

    Raises:
        SystemExit: One answers otherwise: its speed would mean nothing.
    """
    reference = None
    for way in ways:
        client.order(open={"name": way.label, **way.spec})
        said = client.order(ask=way.label)
        values = output_of(way.kind, base64.b64decode(said["body"]), said["json_length"])
        if reference is None:
            reference = values
        exact = np.allclose(values, reference, atol=OUTPUT_TOLERANCE)
        if not exact and (way.exact or cosine(values, reference) < MIN_COSINE):
            raise SystemExit(f"{way.label} answers otherwise than {ways[0].label}.")


def output_of(kind: str, body: bytes, json_length: int) -> np.ndarray:
    """Returns the only output of an answer, flat."""
    if kind == IN_PROCESS:
        return np.frombuffer(body, np.float32)
    if kind == HTTP:
        return next(iter(oip.decode(body, json_length or None).values())).ravel()
    message = pb.ModelInferResponse.FromString(body)
    if message.raw_output_contents:
        return np.frombuffer(message.raw_output_contents[0], np.float32)
    return np.array(message.outputs[0].contents.fp32_contents, np.float32)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def measure(
    client: LoadClient, ways: Sequence[Way], clients: int, seconds: float
) -> dict[str, Found]:
    """Gives every way its slices, in turns."""
    found = {way.label: Found() for way in ways}
    for _ in range(max(1, round(seconds / SLICE_SECONDS))):
        for way in ways:
            said = client.order(measure=way.label, clients=clients, seconds=SLICE_SECONDS)
            row = found[way.label]
            row.latencies += said["latencies"]
            row.rates.append(len(said["latencies"]) / said["seconds"])
            row.errors += said["errors"]
    return found


def report(
    subject: str, clients: int, ways: Sequence[Way], found: dict[str, Found]
) -> Iterator[Row]:
    for way in ways:
        if way.note:
            yield Row(subject, clients, way.label, note=f"not run here: {way.note}")
            continue
        mine = found[way.label]
        if not mine.latencies:
            yield Row(subject, clients, way.label, errors=mine.errors, note="no answer at all")
            continue
        p50, p90, p99 = (float(v) for v in np.percentile(mine.latencies, [50, 90, 99]) * 1e3)
        base = found.get(way.base)
        added = None
        if base is not None and clients == 1:
            added = p50 - statistics.median(base.latencies) * 1e3
        yield Row(
            subject,
            clients,
            way.label,
            p50,
            p90,
            p99,
            statistics.median(mine.rates),
            added,
            _ratio(mine, base),
            _ratio(mine, found.get(way.peer)),
            mine.errors,
        )


def _ratio(mine: Found, other: Found | None) -> float | None:
    """Returns the median of the ratios of slices that lay next to each other in time."""
    if other is None or not all(other.rates):
        return None
    return statistics.median(m / o for m, o in zip(mine.rates, other.rates, strict=True))


# ----------------------------------------------------------------------------------------- main


def table(rows: Sequence[Row]) -> str:
    """Returns rows of one model and one number of clients as a Markdown table."""
    lines = [
        "| way | p50 ms | p90 ms | p99 ms | req/s | added ms | / engine | / MLServer | errors |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        if row.p50_ms is None:
            lines.append(f"| {row.way} | {row.note} | | | | | | | {row.errors or ''} |")
            continue
        cells = [
            *(f"{value:.3f}" for value in (row.p50_ms, row.p90_ms, row.p99_ms)),
            f"{row.per_second:.0f}",
            "" if row.added_ms is None else f"{row.added_ms:+.3f}",
            "" if row.of_in_process is None else f"{row.of_in_process:.2f}",
            "" if row.of_mlserver is None else f"{row.of_mlserver:.2f}",
            str(row.errors),
        ]
        lines.append(f"| {row.way} | {' | '.join(cells)} |")
    return "\n".join(lines)


def run(seconds: float, folder: Path, *, choice: bool) -> dict[str, Any]:
    """Measures everything, prints the tables and returns them as JSON content.

    Args:
        seconds: Time per row.
        folder: For files.
        choice: Measure what Adlik releases by itself, too.
    """
    subjects = [make_mlp(folder), make_mobilenet(folder)]
    rows: list[Row] = []
    with ExitStack() as stack:
        mesh = stack.enter_context(LocalMesh(MeshOptions(folder / "mesh", 0, 0), print))
        mesh.wait_ready()
        peer: peers.Peer | str
        try:
            files = {subject.name: subject.path for subject in subjects}
            peer = stack.enter_context(peers.mlserver(files, folder / "mlserver", threads()))
        except peers.PeerMissing as error:
            peer = str(error)
        adlik = stack.enter_context(Client(mesh.http_url))
        ways = {s.name: ways_of_served(adlik, s, mesh, peer, folder) for s in subjects}
        if choice:
            for subject in subjects:
                ways[subject.name] += ways_of_choice(adlik, subject, mesh, folder)
        client = stack.enter_context(load_client())
        line = machine.describe("onnxruntime", "openvino", "grpcio", "uvloop")
        line += f", {threads()} engine threads, load average {os.getloadavg()[0]:.1f}"
        print(f"\n{line}")
        for name, found in ways.items():
            rows += measure_model(client, name, found, seconds)
    return {"machine": line, "seconds": seconds, "rows": [asdict(row) for row in rows]}


def measure_model(
    client: LoadClient, name: str, ways: Sequence[Way], seconds: float
) -> Iterator[Row]:
    """Measures one model with one client and with eight, prints and yields the rows."""
    here = [way for way in ways if not way.note]
    check_answers(client, here)
    for clients in CLIENTS:
        busy = machine.wait_quiet(min(PATIENCE_SECONDS, 3 * seconds))
        found = measure(client, here, clients, seconds)
        rows = list(report(name, clients, ways, found))
        heading = f"{name}, {clients} client{'s' * (clients > 1)}"
        print(f"\n{heading} ({busy:.0%} of the cores in use before)\n\n{table(rows)}", flush=True)
        yield from rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="per row (default 2)")
    parser.add_argument(
        "--quick", action="store_true", help="half a second a row, without Adlik's own choice"
    )
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    seconds = QUICK_SECONDS if arguments.quick else arguments.seconds
    with tempfile.TemporaryDirectory(prefix="adlik-benchmark-") as name:
        content = run(seconds, Path(name), choice=not arguments.quick)
    if arguments.json:
        arguments.json.write_text(json.dumps(content, indent=2))


if __name__ == "__main__":
    main()
