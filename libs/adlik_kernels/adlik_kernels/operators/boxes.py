"""From a detector's raw output to boxes: decoding, and suppression of overlapping ones."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adlik_kernels.errors import InvalidOperand
from adlik_kernels.operators.operands import check

LAYOUTS = ("yolov8", "yolov5")


@dataclass(frozen=True, slots=True)
class Detections:
    """What a detector found, best first.

    Attributes:
        boxes: float32 [detections, 4]: left, top, right, bottom, in pixels of the model's input.
        scores: float32 [detections].
        classes: int32 [detections].
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.scores)


def detect(
    prediction: NDArray[np.float32],
    *,
    layout: str = "yolov8",
    confidence: float = 0.25,
    overlap: float = 0.45,
    limit: int = 300,
) -> Detections:
    """Decodes one picture's predictions and keeps the best of boxes that overlap.

    A box is dropped if it overlaps a better one of its own class by more than `overlap`
    (intersection over union). Scores that are NaN are never above the confidence.

    Args:
        prediction: float32, contiguous. "yolov8": [4 + classes, candidates], rows centre x, centre
            y, width, height, then scores. "yolov5": [candidates, 5 + classes], the same, with the
            probability of an object before the classes'.
        layout: One of `LAYOUTS`.
        confidence: Scores must be above it.
        overlap: Intersection over union that two kept boxes of a class may have.
        limit: Boxes at most.

    Raises:
        InvalidOperand: The prediction or a limit does not fit.
    """
    prediction = check("prediction", prediction, np.float32, (None, None))
    if layout not in LAYOUTS:
        raise InvalidOperand(f"There is no layout {layout!r}.", cure=f"Use one of {LAYOUTS}.")
    length, head = prediction.shape[0 if layout == "yolov8" else 1], LAYOUTS.index(layout) + 4
    if length <= head:
        raise InvalidOperand(
            f"A {layout} prediction of shape {prediction.shape} has no classes.",
            cure="Is it the other layout, or transposed?",
        )
    if not 0 <= overlap <= 1 or limit < 1:
        raise InvalidOperand("The overlap lies between 0 and 1, and the limit is at least 1.")
    decode, suppress = _code()
    boxes, scores, classes = decode(prediction, np.float32(confidence), layout == "yolov8")
    kept = suppress(boxes, scores, classes, np.float32(overlap), limit)
    return Detections(boxes[kept], scores[kept], classes[kept])


def suppress(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    classes: NDArray[np.int32],
    *,
    overlap: float = 0.45,
    limit: int = 300,
) -> NDArray[np.int64]:
    """Returns the indices of the boxes that stay, best first; earlier ones first among equals.

    Args:
        boxes: float32 [boxes, 4]: left, top, right, bottom.
        scores: float32 [boxes].
        classes: int32 [boxes]; only boxes of one class suppress each other.
        overlap: Intersection over union that two kept boxes of a class may have.
        limit: Boxes at most.

    Raises:
        InvalidOperand: An array does not fit.
    """
    boxes = check("boxes", boxes, np.float32, (None, 4))
    scores = check("scores", scores, np.float32, (len(boxes),))
    classes = check("classes", classes, np.int32, (len(boxes),))
    kept: NDArray[np.int64] = _code()[1](boxes, scores, classes, np.float32(overlap), limit)
    return kept


@functools.cache
def _code() -> tuple[Any, Any]:
    """The compiled loops; numba is imported on first use, for it takes a while."""
    from adlik_kernels.templates import boxes as boxcode

    return boxcode.decode, boxcode.suppress
