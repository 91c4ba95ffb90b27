"""A photograph in, its classes out: MobileNetV2 pushed with a pipeline.

Clients send pixels; serving resizes, normalises and ranks. While `adlik up` runs:

    python -m examples.pipeline photo.jpg
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from adlik import AdlikError, Client, pictures

from examples import mobilenet

NAME = "mobilenet-pictures"
PLAN = {
    "pipeline": {
        "image": {
            "mean": pictures.IMAGENET_MEAN,
            "std": pictures.IMAGENET_STD,
            "crop": 1 / pictures.RESIZE_RATIO,
        },
        "classes": {"top": 3},
    }
}
PATIENCE_SECONDS = 120.0


def main(files: list[str]) -> None:
    """Pushes the model and prints the classes of each photograph."""
    with Client() as client, tempfile.TemporaryDirectory() as directory:
        model = Path(directory) / "mobilenet.onnx"
        mobilenet.export(model)
        client.push(NAME, model, plan=PLAN)
        wait_ready(client)
        for file in files:
            print(file)
            for label, score in classify(client, NAME, Path(file)):
                print(f"  {score:.3f} {label}")


def classify(client: Client, name: str, file: Path) -> list[tuple[str, float]]:
    """Returns the best classes of a photograph and their probabilities."""
    found = client.infer(name, {"input": np.asarray(pictures.load_picture(file))})
    labels = pictures.load_labels("imagenet")
    return [
        (labels[index], float(score))
        for index, score in zip(found["labels"], found["scores"], strict=True)
    ]


def wait_ready(client: Client) -> None:
    """Waits until the model answers."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            client.metadata(NAME)
        except AdlikError as error:
            if error.code not in ("NOT_FOUND", "UNAVAILABLE") or time.monotonic() > give_up:
                raise
            time.sleep(0.1)
        else:
            return


if __name__ == "__main__":
    main(sys.argv[1:])
