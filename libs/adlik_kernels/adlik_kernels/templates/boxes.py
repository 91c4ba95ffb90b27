"""The loops of box decoding and suppression, compiled by numba: `boxes` says what they compute."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

_compiled = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract"})


@_compiled  # type: ignore[untyped-decorator] # numba is untyped
def decode(prediction: Any, confidence: Any, by_rows: bool) -> Any:  # noqa: FBT001 # compiled code
    """Returns boxes, scores and classes of the candidates above a confidence."""
    if by_rows:
        return decode_rows(prediction, confidence)
    return decode_columns(prediction, confidence)


@_compiled  # type: ignore[untyped-decorator] # numba is untyped
def decode_rows(prediction: Any, confidence: Any) -> Any:
    """Decodes [4 + classes, candidates]: class by class, so that candidates are vectorised."""
    rows, count = prediction.shape
    best = np.full(count, -np.inf, np.float32)
    which = np.zeros(count, np.int32)
    for row in range(4, rows):
        scores = prediction[row]
        for place in range(count):
            better = scores[place] > best[place]
            best[place] = scores[place] if better else best[place]
            which[place] = np.int32(row - 4) if better else which[place]
    chosen = np.flatnonzero(best > confidence)
    boxes = np.empty((len(chosen), 4), np.float32)
    for number, candidate in enumerate(chosen):
        box = prediction[:4, candidate]
        corners(box[0], box[1], box[2], box[3], boxes[number])
    return boxes, best[chosen], which[chosen]


@_compiled  # type: ignore[untyped-decorator] # numba is untyped
def decode_columns(prediction: Any, confidence: Any) -> Any:
    """Decodes [candidates, 5 + classes]: candidates without an object are passed over at once."""
    count, columns = prediction.shape
    boxes = np.empty((count, 4), np.float32)
    scores = np.empty(count, np.float32)
    classes = np.empty(count, np.int32)
    found = 0
    for place in range(count):
        line = prediction[place]
        if not line[4] > confidence:
            continue
        which = 5
        for column in range(6, columns):
            if line[column] > line[which]:
                which = column
        score = line[4] * line[which]
        if score > confidence:
            corners(line[0], line[1], line[2], line[3], boxes[found])
            scores[found], classes[found] = score, which - 5
            found += 1
    return boxes[:found], scores[:found], classes[:found]


@numba.njit(inline="always")  # type: ignore[untyped-decorator] # numba is untyped
def corners(x: Any, y: Any, width: Any, height: Any, box: Any) -> None:
    """Writes left, top, right, bottom."""
    half = np.float32(0.5)
    box[0], box[1] = x - width * half, y - height * half
    box[2], box[3] = x + width * half, y + height * half


@_compiled  # type: ignore[untyped-decorator] # numba is untyped
def suppress(boxes: Any, scores: Any, classes: Any, overlap: Any, limit: int) -> Any:
    """Returns the indices of the boxes that stay, best first."""
    order = np.argsort(-scores, kind="mergesort")
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = np.empty(min(limit, len(order)), np.int64)
    count = 0
    for place in order:
        if count == limit:
            break
        free = True
        for other in kept[:count]:
            if classes[other] == classes[place]:
                across = min(boxes[place, 2], boxes[other, 2]) - max(
                    boxes[place, 0], boxes[other, 0]
                )
                down = min(boxes[place, 3], boxes[other, 3]) - max(boxes[place, 1], boxes[other, 1])
                if across > 0 and down > 0:
                    shared = across * down
                    if shared > overlap * (area[place] + area[other] - shared):
                        free = False
                        break
        if free:
            kept[count] = place
            count += 1
    return kept[:count]
