"""From a decoded picture to its classes: prepared by the client, or by the plan's pipeline.

One mesh serves MobileNetV2 twice, both as the same ONNX Runtime variant. One client asks in turns:

    client      Pillow and numpy resize and normalise, FP32 [1, 3, 224, 224] travels, numpy ranks
    kernels     the same with adlik_kernels.ImageInput in the client
    pipeline    the uint8 picture travels, at most 1280 a side, serving does the rest

    python -m benchmarks.pictures [--seconds 5]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from adlik import Client, pictures, render
from adlik.launcher.mesh import LocalMesh, MeshOptions
from adlik_kernels import ImageInput
from PIL import Image

from benchmarks import machine
from examples import mobilenet, photos, pipeline

PLAN = {"recipes": ["clean"], "targets": ["onnxruntime-fp32"], "limits": {"min_speedup": 1e6}}
TOP = 5
SIZES = ((320, 240), (640, 480), (1280, 960), (4000, 3000))
MEAN, STD = pictures.IMAGENET_MEAN, pictures.IMAGENET_STD
PATIENCE_SECONDS = 60.0

Ask = Callable[[Image.Image], np.ndarray]


def ways(client: Client) -> dict[str, Ask]:
    """Returns by name what gives a picture's best classes."""
    prepare = ImageInput(224, 224, MEAN, STD)

    def ranked(tensor: np.ndarray) -> np.ndarray:
        scores = pictures.probabilities(client.infer("plain", {"input": tensor})["logits"])[0]
        return np.argsort(scores)[::-1][:TOP]

    def by_client(picture: Image.Image) -> np.ndarray:
        return ranked(pictures.preprocess(picture, (1, 3, 224, 224)))

    def by_kernels(picture: Image.Image) -> np.ndarray:
        pixels = np.asarray(picture)
        side = round(min(pixels.shape[:2]) / pictures.RESIZE_RATIO)
        top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
        return ranked(prepare(pixels[top : top + side, left : left + side])[None])

    def by_pipeline(picture: Image.Image) -> np.ndarray:
        return client.infer("piped", {"input": pictures.pixels(picture)[0]})["labels"]

    return {"client": by_client, "kernels": by_kernels, "pipeline": by_pipeline}


def measure(asks: dict[str, Ask], picture: Image.Image, seconds: float) -> dict[str, list[float]]:
    """Returns the latencies of every way in milliseconds, measured call by call in turns."""
    found: dict[str, list[float]] = {name: [] for name in asks}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, ask in asks.items():
            started = time.perf_counter()
            ask(picture)
            found[name].append((time.perf_counter() - started) * 1e3)
    return found


def agreement(asks: dict[str, Ask]) -> str:
    """Says on how many photographs the ways find the same best class as the client's."""
    shown = list(photos.photos().values())
    best = {name: [int(ask(picture)[0]) for picture in shown] for name, ask in asks.items()}
    same = {name: sum(map(int.__eq__, best["client"], found)) for name, found in best.items()}
    return ", ".join(f"{name} {number} of {len(shown)}" for name, number in same.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="per size of the picture")
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory(prefix="adlik-bench-") as directory:
        folder = Path(directory)
        mobilenet.export(folder / "mobilenet.onnx")
        options = MeshOptions(folder / "mesh", http_port=0, grpc_port=0)
        with LocalMesh(options, print) as mesh:
            mesh.wait_ready()
            with Client(mesh.http_url) as client:
                push(client, folder / "mobilenet.onnx")
                report(ways(client), seconds)


def push(client: Client, model: Path) -> None:
    """Pushes the model twice; the pushed variant stays in service."""
    for name, plan in (("plain", PLAN), ("piped", {**PLAN, **pipeline.PLAN})):
        client.push(name, model, plan=plan)
        for change in client.watch(name, timeout=PATIENCE_SECONDS):
            record = change.model.version()
            if record is not None and record.settled and change.model.ready_replicas:
                break


def report(asks: dict[str, Ask], seconds: float) -> None:
    print(machine.describe("onnxruntime", "pillow", "numpy"))
    print("same best class as the client's:", agreement(asks))
    busy = machine.wait_quiet(PATIENCE_SECONDS / 10)
    print(f"{busy:.0%} of the cores were in use before; milliseconds, one client, in turns")
    numbers = [f"{name} {part}" for name in asks for part in ("best", "p50", "p90")]
    made = render.table("picture", "runs", *numbers, right=["runs", *numbers])
    photo = photos.photos()["china"]
    for size in SIZES:
        found = measure(asks, photo.resize(size), seconds)
        row = [
            f"{value:.2f}"
            for times in found.values()
            for value in (min(times), statistics.median(times), np.percentile(times, 90))
        ]
        made.add_row(f"{size[0]} x {size[1]}", str(len(found["client"])), *row)
    render.console().print(made)


if __name__ == "__main__":
    main()
