"""`make demo`: an ImageNet model is pushed to a local mesh and gets faster by itself."""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Self

import numpy as np
from adlik import AdlikError, Client, pictures, render
from adlik.launcher.mesh import LocalMesh, MeshOptions
from adlik.records import Model

from examples import mobilenet, photos

NAME = "mobilenet"
PATIENCE_SECONDS = 150.0


def main() -> int:
    """Runs the demo; returns 0 when all that it shows is as it should be."""
    console = render.console()
    with tempfile.TemporaryDirectory(prefix="adlik-demo-") as directory:
        folder = Path(directory)
        console.rule("1. a trained model and real photographs")
        model = folder / f"{NAME}.onnx"
        mobilenet.export(model)
        files = photos.write_photos(folder / "photos")
        samples = photos.write_samples(folder / "calibration.npz")
        size = render.size(model.stat().st_size)
        console.print(f"MobileNetV2, ImageNet, exported by torch: {size}; {len(files)} photographs")
        console.print(f"{samples} samples to calibrate and verify with")
        console.rule("2. adlik up: NATS, gateway, optimizer, compiler, serving")
        options = MeshOptions(folder / "mesh", http_port=0, grpc_port=0)
        started = time.monotonic()
        with LocalMesh(options, console.print) as mesh:
            mesh.wait_ready()
            console.print(f"ready in {time.monotonic() - started:.1f} s at {mesh.http_url}")
            with Client(mesh.http_url) as client:
                return _story(client, model, folder / "calibration.npz", files)


def _story(client: Client, model: Path, samples: Path, files: dict[str, Path]) -> int:
    console = render.console()
    console.rule("3. adlik push: the first answer")
    inputs = {
        name: pictures.preprocess(pictures.load_picture(file), photos.SIZE)
        for name, file in files.items()
    }
    started = time.monotonic()
    pushed = client.push(NAME, model, samples=samples)
    first = _first_answer(client, inputs["chelsea"])
    seconds = time.monotonic() - started
    label = _labels()[int(first.argmax())]
    console.print(f"answered {seconds:.1f} s after the push began: chelsea.jpg is '{label}'")

    console.rule("4. a client asks without pause while better variants take over")
    with _Asking(client.url, inputs["chelsea"]) as asking:
        found = _wait_settled(client)
    console.print(f"{asking.answers} answers, {asking.errors} errors")

    console.rule("5. what it sees now")
    wrong = _classify(client, inputs)

    console.rule("6. the variants; speed-up over the pushed model run by ONNX Runtime")
    record = found.version(pushed.pushed.version)
    if record is None or found.release is None:
        raise AdlikError("NOTHING_RELEASED", "The model was not released.")
    console.print(render.variants_table(record))
    console.print(render.not_run_table(client.replicas()))
    console.print(f"served: {found.release.compiled.variant}, {found.release.reason}")
    console.print(f"from push to first answer: {seconds:.1f} s")

    console.rule("7. where the time of the push went")
    console.print(render.waterfall(client.trace(model=NAME)))
    if wrong or asking.errors or asking.answers == 0:
        console.print(f"[red]not as it should be: {wrong} wrong, {asking.errors} errors[/red]")
        return 1
    return 0


def _first_answer(client: Client, picture: np.ndarray) -> np.ndarray:
    """Asks until the model answers."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return client.infer(NAME, {"input": picture})["logits"]
        except AdlikError as error:
            if error.code not in ("NOT_FOUND", "UNAVAILABLE") or time.monotonic() > give_up:
                raise
            time.sleep(0.02)


def _wait_settled(client: Client) -> Model:
    console = render.console()
    served = ""
    for change in client.watch(NAME, timeout=PATIENCE_SECONDS):
        release, record = change.model.release, change.model.version()
        if release is not None and release.compiled.variant != served:
            served = release.compiled.variant
            console.print(f"released: {served} ({release.speedup:.2f}x)")
        if record is not None and record.settled and change.model.ready_replicas:
            return change.model
    raise AssertionError("watching ends by return or error")


def _classify(client: Client, inputs: dict[str, np.ndarray]) -> int:
    """Prints the three best classes of each photograph; returns how many are not as expected."""
    made = render.table("photo", "probability", "class", right=["probability"])
    wrong = 0
    for name, picture in inputs.items():
        scores = pictures.probabilities(client.infer(NAME, {"input": picture})["logits"])[0]
        best = [(float(scores[i]), _labels()[i]) for i in np.argsort(scores)[::-1][:3]]
        for row, (probability, label) in enumerate(best):
            made.add_row(name if row == 0 else "", f"{probability:.3f}", label)
        expected = photos.EXPECTED.get(name, "")
        wrong += not any(expected in label.lower() for _, label in best)
    render.console().print(made)
    return wrong


class _Asking:
    """A client that asks in a loop, in a thread of its own, and counts."""

    def __init__(self, url: str, picture: np.ndarray) -> None:
        self._url, self._picture = url, picture
        self._counts: Counter[bool] = Counter()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    @property
    def answers(self) -> int:
        return self._counts[True]

    @property
    def errors(self) -> int:
        return self._counts[False]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _ask(self) -> None:
        with Client(self._url) as client:
            while not self._stop.wait(0.05):  # leave the two cores to the work that is shown
                try:
                    client.infer(NAME, {"input": self._picture})
                    self._counts[True] += 1
                except AdlikError as error:
                    print(error)
                    self._counts[False] += 1


def _labels() -> list[str]:
    return pictures.load_labels("imagenet")


if __name__ == "__main__":
    sys.exit(main())
