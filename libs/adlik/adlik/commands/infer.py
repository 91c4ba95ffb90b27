"""`adlik infer`: runs a model on a picture, an .npz archive or JSON."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from adlik import oip, pictures, render
from adlik.client import Client
from adlik.commands.options import Json, Name, Url, print_json, said
from adlik.errors import AdlikError

TOP = 5


@said
def infer(
    name: Name,
    file: Annotated[Path, typer.Argument(help="Picture, .npz (an array per input) or .json.")],
    labels: Annotated[
        str, typer.Option(help="'imagenet', or a file with a class name a line.")
    ] = "",
    mean: Annotated[str, typer.Option(help="Per channel, of values 0..1.")] = "",
    std: Annotated[str, typer.Option(help="Per channel.")] = "",
    top: Annotated[int, typer.Option(help="Number of classes to print.", min=1)] = TOP,
    version: Annotated[int | None, typer.Option(help="A certain version.")] = None,
    url: Url = None,
    json_output: Json = False,
) -> None:
    """Runs a model and prints the classes with their probabilities, or the outputs."""
    names = pictures.load_labels(labels) if labels else []
    with Client(url) as client:
        metadata = client.metadata(name)
        inputs = _inputs(file, metadata["inputs"], mean, std)
        outputs = client.infer(name, inputs, version=version)
    scores = _scores(outputs)
    if scores is None or (file.suffix in (".npz", ".json") and not names):
        _print_outputs(outputs, json_output=json_output)
        return
    rows = [_classes(row, names, top) for row in pictures.probabilities(scores)]
    if json_output:
        print_json([[{"class": c, "label": n, "probability": p} for c, n, p in r] for r in rows])
        return
    for row in rows:
        made = render.table("probability", "class", "label", right=["probability", "class"])
        for index, label, probability in row:
            made.add_row(f"{probability:.4f}", str(index), label)
        render.console().print(made)


def _inputs(file: Path, wanted: list[dict[str, Any]], mean: str, std: str) -> dict[str, np.ndarray]:
    if file.suffix == ".npz":
        return _npz(file)
    if file.suffix == ".json":
        return _json(file, wanted)
    if len(wanted) != 1:
        raise AdlikError(
            "INVALID_TENSOR",
            f"The model takes {len(wanted)} inputs, and a picture is one.",
            "Give the inputs as .npz with one array per input.",
        )
    shape = [int(size) for size in wanted[0]["shape"]]
    options = {
        key: [float(part) for part in text.split(",")]
        for key, text in (("mean", mean), ("std", std))
        if text
    }
    picture = pictures.load_picture(file)
    return {wanted[0]["name"]: pictures.preprocess(picture, shape, **options)}


def _npz(file: Path) -> dict[str, np.ndarray]:
    try:
        # Opened here: numpy leaves a file open that turns out to be no archive.
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files if name != "labels"}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise AdlikError("INVALID_TENSOR", f"'{file}' can't be read: {error}.") from error


def _json(file: Path, wanted: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    types = {tensor["name"]: oip.numpy_type(tensor["datatype"]) for tensor in wanted}
    try:
        values = json.loads(file.read_text())
        return {name: np.array(value, types.get(name)) for name, value in values.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise AdlikError(
            "INVALID_TENSOR", f"'{file}' can't be read: {error}.", 'Write {"input": [[...]]}.'
        ) from error


def _scores(outputs: dict[str, np.ndarray]) -> np.ndarray | None:
    """Returns the one output that looks like class scores, None where there is none."""
    arrays = list(outputs.values())
    if len(arrays) == 1 and arrays[0].ndim == 2 and arrays[0].dtype.kind == "f":
        return arrays[0] if arrays[0].shape[1] > 1 else None
    return None


def _classes(row: np.ndarray, names: list[str], top: int) -> list[tuple[int, str, float]]:
    best = np.argsort(row)[::-1][:top]
    return [(int(i), names[i] if i < len(names) else "", float(row[i])) for i in best]


def _print_outputs(outputs: dict[str, np.ndarray], *, json_output: bool) -> None:
    if json_output:
        print_json({name: array.tolist() for name, array in outputs.items()})
        return
    for name, array in outputs.items():
        render.console().print(f"{name}: {array.dtype} {list(array.shape)}")
        render.console().print(str(array))
