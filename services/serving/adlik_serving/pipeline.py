"""Between a request for a picture and the model: pictures into a batch, raw outputs into answers.

A batch is made in one pass over each picture, by the kernel library, straight into the memory that
the engine reads; all of it runs where the model runs, never while a request is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter_ns
from typing import NamedTuple

import numpy as np
from adlik_common.errors import EngineFailed, InvalidTensor
from adlik_common.pipelines import (
    BOXES,
    CLASSES,
    LABELS,
    SCORES,
    ClassesStep,
    DetectStep,
    Steps,
    resolve,
)
from adlik_kernels import ImageInput, configure, detect, softmax_top_k
from adlik_proto.adlik.model.v1 import model_pb2
from adlik_runtimes.engine import LoadedModel

from adlik_serving.batcher import Rows, Work
from adlik_serving.oip.request import Array, Signature
from adlik_serving.warmup import zeros

MAX_SIDE = 16_384
"""Rows or columns of a picture at most: what preparing one costs grows with its columns."""


def open_pipeline(
    plan: model_pb2.Pipeline, model: LoadedModel, *, threads: int, cache: Path
) -> tuple[Pipeline, int]:
    """Returns a loaded model's pipeline, compiled and warm, and its own time for a picture in ns.

    Args:
        plan: What the plan wants.
        model: What the pipeline is for.
        threads: Threads that share the preparation of one picture.
        cache: Folder of this machine's copies; compiled kernels are kept in it.

    Raises:
        InvalidPlan: The pipeline does not fit this model.
        EngineFailed: The model does not give what the pipeline is for.
    """
    configure(threads=threads, cache=cache / "kernels")
    pipeline = Pipeline(resolve(plan, model.inputs, model.outputs))
    return pipeline, pipeline.warm_up(model)


class Window(NamedTuple):
    """The part of a picture that the model sees, in the picture's pixels."""

    top: int
    left: int
    height: int
    width: int


class Pipeline:
    """The steps of one loaded model; called by the model's batcher, and warmed up before.

    Args:
        steps: What the plan wants, as it fits this model.

    Attributes:
        signature: What clients send and get.
    """

    def __init__(self, steps: Steps) -> None:
        image = steps.image
        self._image, self._step = image, steps.answer
        self._prepare = ImageInput(
            image.height,
            image.width,
            image.mean,
            image.std,
            swap=image.swap,
            letterbox=image.letterbox,
            fill=image.fill,
        )
        self._rows = Rows()
        self.signature = Signature.of(steps.inputs, steps.outputs)

    def measure(self, work: Work) -> None:
        """Fills in what a request must share with others; pictures may be of any sizes.

        Raises:
            InvalidTensor: The picture is too large.
        """
        rows, columns = self.picture_size(work)
        if not rows or not columns:
            raise InvalidTensor(
                f"The picture has {rows} rows and {columns} columns: no element at all.",
                cure="Send a picture of at least one pixel.",
                tensor=self._image.input,
            )
        if max(rows, columns) > MAX_SIDE:
            raise InvalidTensor(
                f"The picture has {rows} rows and {columns} columns.",
                cure=f"Send at most {MAX_SIDE} each: the model sees "
                f"{self._image.height} x {self._image.width}.",
                tensor=self._image.input,
            )
        others = (a.shape for name, a in work.inputs.items() if name != self._image.input)
        work.rows, work.key = 1, (self.wanted(work.outputs), *others)

    def picture_size(self, work: Work) -> tuple[int, int]:
        """Returns the rows and columns of a request's picture."""
        rows, columns, _ = work.inputs[self._image.input].shape
        return rows, columns

    def wanted(self, outputs: tuple[str, ...]) -> tuple[str, ...]:
        """Returns the model's outputs that the wanted answers are made of."""
        return outputs if self._step is None else (self._step.output,)

    def join(self, batch: Sequence[Work]) -> dict[str, Array]:
        """Returns the model's inputs: each picture is prepared in its own place of one array."""
        name, prepare = self._image.input, self._prepare
        pictures = np.empty((len(batch), 3, prepare.height, prepare.width), np.float32)
        for work, place in zip(batch, pictures, strict=True):
            prepare(self._cut(work.inputs[name]), out=place)
        joined = {}
        for other, array in batch[0].inputs.items():
            if other == name:
                joined[other] = pictures
            elif len(batch) == 1:
                joined[other] = array
            else:
                joined[other] = np.concatenate([work.inputs[other] for work in batch])
        return joined

    def part(self, batch: Sequence[Work], outputs: Mapping[str, Array]) -> None:
        """Gives each request its answer."""
        step = self._step
        if step is None:
            self._rows.part(batch, outputs)
            return
        raw = np.ascontiguousarray(outputs[step.output], np.float32)
        rank = 2 if isinstance(step, ClassesStep) else 3
        if raw.ndim != rank or len(raw) != len(batch):
            raise EngineFailed(
                f"Output '{step.output}' has shape {list(raw.shape)} for {len(batch)} pictures."
            )
        if isinstance(step, ClassesStep):
            scores, labels = softmax_top_k(raw, min(step.top, raw.shape[1]))
            for work, *best in zip(batch, scores, labels, strict=True):
                work.results = dict(zip((SCORES, LABELS), best, strict=True))
        else:
            for work, prediction in zip(batch, raw, strict=True):
                work.results = self._found(step, prediction, *self.picture_size(work))

    def warm_up(self, model: LoadedModel) -> int:
        """Answers a grey picture twice, so that nothing is compiled on a request's way.

        Returns:
            Time of all but the model's own run, in nanoseconds.

        Raises:
            EngineFailed: The model does not give what the pipeline is for.
        """
        took = 0
        for _ in range(2):
            work = self._grey_picture(model)
            started = perf_counter_ns()
            inputs = self.join([work])
            joined = perf_counter_ns()
            outputs = model.run(inputs, self.wanted(work.outputs))
            ran = perf_counter_ns()
            self.part([work], outputs)
            took = perf_counter_ns() - ran + joined - started
        return took

    def _grey_picture(self, model: LoadedModel) -> Work:
        image = self._image
        inputs = zeros(model.inputs, 1, 1)
        # One row more than the model's, so that it is resized.
        inputs[image.input] = np.full((image.height + 1, image.width, 3), 128, np.uint8)
        return Work(inputs, tuple(self.signature.outputs), lambda _: None, lambda: False)

    def _window(self, rows: int, columns: int) -> Window:
        """Returns the part of a picture that is seen: its centre, of the input's proportions."""
        image = self._image
        if not image.crop:
            return Window(0, 0, rows, columns)
        scale = image.crop * min(rows / image.height, columns / image.width)
        height = max(1, round(image.height * scale))
        width = max(1, round(image.width * scale))
        return Window((rows - height) // 2, (columns - width) // 2, height, width)

    def _cut(self, picture: Array) -> Array:
        top, left, height, width = self._window(*picture.shape[:2])
        return picture[top : top + height, left : left + width]

    def _found(
        self, step: DetectStep, prediction: Array, rows: int, columns: int
    ) -> dict[str, Array]:
        """Returns a picture's boxes, in its own pixels and within it."""
        found = detect(
            prediction,
            layout=step.layout,
            confidence=step.confidence,
            overlap=step.overlap,
            limit=step.limit,
        )
        window = self._window(rows, columns)
        placed = self._prepare.placement(window.height, window.width)
        boxes = found.boxes
        for axis, (start, cut, kept, fitted, whole) in enumerate(
            (
                (placed.left, window.left, window.width, placed.width, columns),
                (placed.top, window.top, window.height, placed.height, rows),
            )
        ):
            sides = boxes[:, axis::2]
            np.clip((sides - start) * (kept / fitted) + cut, 0, whole, out=sides)
        return {BOXES: boxes, SCORES: found.scores, CLASSES: found.classes}
