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
# Outputs of models whose plan has a pipeline (docs/plans.md).
CLASSES = {"scores", "labels"}
BOXES = {"boxes", "scores", "classes"}
WHOLE = (1.0, 1.0)

Class = tuple[int, str, float]


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
    """Runs a model and prints the classes with their probabilities, the boxes, or the outputs."""
    names = pictures.load_labels(labels) if labels else []
    with Client(url) as client:
        metadata = client.metadata(name)
        inputs, scale = _inputs(file, metadata["inputs"], mean, std)
        outputs = client.infer(name, inputs, version=version)
    if any(pictures.takes_pixels(tensor) for tensor in metadata["inputs"]):
        if outputs.keys() == BOXES:
            outputs["boxes"] = outputs["boxes"] * np.tile(scale, 2)
        _print_answer(outputs, names, top, json_output=json_output)
        return
    scores = _scores(outputs)
    if scores is None or (file.suffix in (".npz", ".json") and not names):
        _print_outputs(outputs, json_output=json_output)
        return
    rows = [_classes(row, names, top) for row in pictures.probabilities(scores)]
    _print_classes(rows, json_output=json_output)


def _print_answer(
    outputs: dict[str, np.ndarray], names: list[str], top: int, *, json_output: bool
) -> None:
    """Prints what a pipeline answered with."""
    if outputs.keys() == CLASSES:
        _print_classes([_best(outputs, names, top)], json_output=json_output)
    elif outputs.keys() == BOXES:
        _print_boxes(_found(outputs, names), json_output=json_output)
    else:
        _print_outputs(outputs, json_output=json_output)


def _inputs(
    file: Path, wanted: list[dict[str, Any]], mean: str, std: str
) -> tuple[dict[str, np.ndarray], tuple[float, float]]:
    """Returns what is sent, and the file's columns and rows for one of a picture that is sent."""
    if file.suffix == ".npz":
        return _npz(file), WHOLE
    if file.suffix == ".json":
        return _json(file, wanted), WHOLE
    picture = pictures.load_picture(file)
    if len(wanted) == 1 and pictures.takes_pixels(wanted[0]):
        if mean or std:
            raise AdlikError(
                "INVALID_REQUEST",
                "The model takes the picture as it is: its plan says the mean and std.",
                "Leave --mean and --std out.",
            )
        sent, scale = pictures.pixels(picture)
        return {wanted[0]["name"]: sent}, scale
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
    return {wanted[0]["name"]: pictures.preprocess(picture, shape, **options)}, WHOLE


def _npz(file: Path) -> dict[str, np.ndarray]:
    try:
        # Opened here: numpy leaves a file open that turns out to be no archive.
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files if name != "labels"}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise AdlikError("INVALID_TENSOR", f"'{file}' can't be read: {error}.") from error


def _json(file: Path, wanted: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    types = {tensor["name"]: tensor["datatype"] for tensor in wanted}
    try:
        values = json.loads(file.read_text())
        return {
            name: oip.to_array(value, types[name]) if name in types else np.array(value)
            for name, value in values.items()
        }
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise AdlikError(
            "INVALID_TENSOR",
            f"'{file}' can't be read: {error}.",
            'Write a list of values for each input, as {"input": [[1, 2]]}.',
        ) from error


def _scores(outputs: dict[str, np.ndarray]) -> np.ndarray | None:
    """Returns the one output that looks like class scores, None where there is none."""
    arrays = list(outputs.values())
    if len(arrays) == 1 and arrays[0].ndim == 2 and arrays[0].dtype.kind == "f":
        return arrays[0] if arrays[0].shape[1] > 1 else None
    return None


def _classes(row: np.ndarray, names: list[str], top: int) -> list[Class]:
    best = np.argsort(row)[::-1][:top]
    return [(int(i), _named(int(i), names), float(row[i])) for i in best]


def _best(outputs: dict[str, np.ndarray], names: list[str], top: int) -> list[Class]:
    """Returns the classes that a pipeline answered with."""
    pairs = zip(outputs["labels"].tolist(), outputs["scores"].tolist(), strict=True)
    return [(label, _named(label, names), score) for label, score in list(pairs)[:top]]


def _found(outputs: dict[str, np.ndarray], names: list[str]) -> list[dict[str, Any]]:
    """Returns the boxes that a pipeline answered with, in pixels of the picture."""
    arrays = (outputs[name].tolist() for name in ("classes", "scores", "boxes"))
    return [
        {"class": kind, "label": _named(kind, names), "score": score, "box": box}
        for kind, score, box in zip(*arrays, strict=True)
    ]


def _named(index: int, names: list[str]) -> str:
    return names[index] if index < len(names) else ""


def _print_classes(rows: list[list[Class]], *, json_output: bool) -> None:
    if json_output:
        print_json([[{"class": c, "label": n, "probability": p} for c, n, p in r] for r in rows])
        return
    for row in rows:
        made = render.table("probability", "class", "label", right=["probability", "class"])
        for index, label, probability in row:
            made.add_row(f"{probability:.4f}", str(index), label)
        render.console().print(made)


def _print_boxes(boxes: list[dict[str, Any]], *, json_output: bool) -> None:
    if json_output:
        print_json(boxes)
        return
    numbers = ["score", "class", "left", "top", "right", "bottom"]
    made = render.table(*numbers, "label", right=numbers)
    for found in boxes:
        sides = (f"{side:.0f}" for side in found["box"])
        made.add_row(f"{found['score']:.4f}", str(found["class"]), *sides, found["label"])
    render.console().print(made)
    if not boxes:
        render.console().print("nothing found")


def _plain(array: np.ndarray) -> Any:
    """Returns an array as JSON values; raises `AdlikError` for strings that JSON can't hold."""
    if array.dtype != np.object_:
        return array.tolist()
    try:
        texts = [item.decode() if isinstance(item, bytes) else item for item in array.flat]
    except UnicodeDecodeError as error:
        raise AdlikError(
            "INVALID_TENSOR",
            "The answer holds bytes that are not UTF-8 text, which JSON can't hold.",
            "Leave --json out, or use adlik.Client.",
        ) from error
    plain = np.empty(array.size, np.object_)
    plain[:] = texts
    return plain.reshape(array.shape).tolist()


def _print_outputs(outputs: dict[str, np.ndarray], *, json_output: bool) -> None:
    if json_output:
        # As the protocol's own JSON: with NaN and the infinities, which `print_json` leaves out.
        print(json.dumps({name: _plain(array) for name, array in outputs.items()}))  # noqa: T201
        return
    for name, array in outputs.items():
        render.console().print(f"{name}: {array.dtype} {list(array.shape)}")
        render.console().print(str(array))
