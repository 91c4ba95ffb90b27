"""Finds objects in a detector's raw output and matches those of two models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

CONFIDENCE, OVERLAP, SAME_BOX = 0.25, 0.45, 0.5
MIN_BOXES, MAX_OBJECTS = 32, 300
_BOX = 4


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a detector keeps boxes and scores.

    Attributes:
        boxes: Output with the boxes: centre, size, in any unit.
        scores: Output with the scores of the classes; the same where one holds both.
        channels_first: The output is [N, 4 + classes, boxes], and not [N, boxes, ...].
        objectness: A score of its own, whether there is an object, comes before the classes'.
    """

    boxes: str
    scores: str
    channels_first: bool = False
    objectness: bool = False


@dataclass(frozen=True, slots=True)
class Objects:
    """What was found in one picture: boxes [n, 4] as corners, and classes [n]."""

    boxes: Array
    classes: Array


def layout_of(outputs: Mapping[str, Array]) -> Layout | None:
    """Returns how outputs hold detections, None where they do not look like any."""
    floats = {n: a for n, a in outputs.items() if a.dtype.kind == "f" and a.ndim == 3 and a.size}
    for name, array in floats.items():
        first = array.shape[1] < array.shape[2]
        table = np.swapaxes(array, 1, 2) if first else array
        if (
            table.shape[1] >= MIN_BOXES
            and table.shape[2] > _BOX
            and _are_scores(table[..., _BOX:])
            and np.abs(table[..., :_BOX]).max() > 1.5
        ):
            return Layout(name, name, first, not first and table.shape[2] > _BOX + 1)
    for name, array in floats.items():
        if array.shape[2] != _BOX or array.shape[1] < MIN_BOXES:
            continue
        for other, scores in floats.items():
            if other != name and scores.shape[:2] == array.shape[:2] and _are_scores(scores):
                return Layout(name, other)
    return None


def objects(outputs: Mapping[str, Array], layout: Layout) -> list[Objects]:
    """Returns what is found in each picture of a batch."""
    boxes, scores = outputs[layout.boxes], outputs[layout.scores]
    if layout.boxes == layout.scores:
        table = np.swapaxes(boxes, 1, 2) if layout.channels_first else boxes
        boxes, scores = table[..., :_BOX], table[..., _BOX:]
        if layout.objectness:
            scores = scores[..., 1:] * scores[..., :1]
    return [
        _of_one(b.astype(np.float64), s.astype(np.float64))
        for b, s in zip(boxes, scores, strict=True)
    ]


def matched(left: Objects, right: Objects) -> int:
    """Returns how many objects are the same: of one class, in nearly one place."""
    used = np.zeros(len(right.boxes), np.bool_)
    count = 0
    for box, kind in zip(left.boxes, left.classes, strict=True):
        free = ~used & (right.classes == kind)
        if not free.any():
            continue
        overlap = np.where(free, _overlap(box, right.boxes), 0.0)
        best = int(overlap.argmax())
        if overlap[best] >= SAME_BOX:
            used[best] = True
            count += 1
    return count


def _are_scores(array: Array) -> bool:
    return bool(array.size and array.min() >= -1e-3 and array.max() <= 1.001)


def _of_one(boxes: Array, scores: Array) -> Objects:
    best, classes = scores.max(axis=1), scores.argmax(axis=1)
    order = np.argsort(-best, kind="stable")
    order = order[best[order] > CONFIDENCE][:MAX_OBJECTS]
    half = boxes[:, 2:] / 2
    corners = np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)
    kept: list[int] = []
    for at in order:
        same = [k for k in kept if classes[k] == classes[at]]
        if not same or _overlap(corners[at], corners[same]).max() <= OVERLAP:
            kept.append(int(at))
    return Objects(corners[kept], classes[kept])


def _overlap(box: Array, others: Array) -> Array:
    """Returns intersection over union of a box [4] with others [n, 4], corners."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    own, theirs = np.prod(box[2:] - box[:2]), np.prod(others[:, 2:] - others[:, :2], axis=1)
    return np.asarray(shared / np.maximum(own + theirs - shared, 1e-12))
