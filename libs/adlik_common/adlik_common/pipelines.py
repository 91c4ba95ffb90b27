"""What a plan's pipeline means for one model: its steps with all defaults, and what clients see.

The gateway reads it when a model is pushed, serving when it is loaded; both find the same faults.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from adlik_proto.adlik.model.v1 import model_pb2

from adlik_common.errors import InvalidPlan
from adlik_common.tensors import TensorSpec

SCORES, LABELS, BOXES, CLASSES = "scores", "labels", "boxes", "classes"
"""Names of the outputs that a pipeline answers with."""

LAYOUTS = {"yolov8": 1, "yolov5": 2}
"""Layouts of a detector's output, and the axis that holds a candidate's box and scores."""

MAX_SIDE = 4096
MAX_TOP = 1000
MAX_BOXES = 10_000
DEFAULT_TOP, DEFAULT_BOXES = 5, 300
DEFAULT_FILL, DEFAULT_CONFIDENCE, DEFAULT_OVERLAP = 114, 0.25, 0.45
_SMALLEST, _LARGEST = 1e-6, 1e6

Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class ImageStep:
    """How a picture becomes an input.

    Attributes:
        input: The model's input, float32 [N, 3, height, width].
        height: Rows of the input.
        width: Columns of the input.
        mean: Mean of each channel of the input, of values from 0 to 1.
        std: Standard deviation of each channel.
        swap: Whether the model takes BGR.
        letterbox: Whether proportions are kept by filling what is left.
        fill: Level of what is filled, 0..255.
        crop: Share of the largest cut of the right proportions that is kept; 0: the whole picture.
    """

    input: str
    height: int
    width: int
    mean: Triple
    std: Triple
    swap: bool
    letterbox: bool
    fill: int
    crop: float


@dataclass(frozen=True, slots=True)
class ClassesStep:
    """How scores [N, classes] become the best classes.

    Attributes:
        output: The model's output.
        top: Classes that are answered.
    """

    output: str
    top: int


@dataclass(frozen=True, slots=True)
class DetectStep:
    """How a detector's output becomes boxes.

    Attributes:
        output: The model's output.
        layout: One of `LAYOUTS`.
        confidence: Score above which a box counts.
        overlap: Intersection over union that two boxes of one class may have.
        limit: Boxes at most.
    """

    output: str
    layout: str
    confidence: float
    overlap: float
    limit: int


@dataclass(frozen=True, slots=True)
class Steps:
    """A pipeline that fits its model.

    Attributes:
        image: How the picture becomes an input.
        answer: How outputs become the answer; None: they are the answer.
        inputs: What clients send: a uint8 picture [rows, columns, 3] in place of the input.
        outputs: What they get.
    """

    image: ImageStep
    answer: ClassesStep | DetectStep | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def resolve(
    pipeline: model_pb2.Pipeline, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> Steps:
    """Returns what a plan's pipeline means for a model with these tensors.

    Raises:
        InvalidPlan: It does not fit the model, or a number is out of range; the field is named.
    """
    if not pipeline.HasField("image"):
        raise InvalidPlan(
            "pipeline.image is missing.",
            cure='Begin with {"image": {}}: a pipeline takes a picture.',
        )
    image = _image(pipeline.image, inputs)
    answer: ClassesStep | DetectStep | None = None
    given = tuple(outputs)
    if pipeline.HasField("classes"):
        answer, given = _classes(pipeline.classes, outputs)
    elif pipeline.HasField("detect"):
        answer, given = _detect(pipeline.detect, outputs)
    picture = TensorSpec(image.input, "UINT8", (-1, -1, 3))
    taken = [picture if spec.name == image.input else _one_row(spec) for spec in inputs]
    return Steps(image, answer, tuple(taken), given)


def _one_row(spec: TensorSpec) -> TensorSpec:
    """Returns what a request for one picture brings of another input."""
    if spec.shape[:1] != (-1,):
        return spec
    return TensorSpec(spec.name, spec.datatype, (1, *spec.shape[1:]))


def _image(step: model_pb2.ImageStep, inputs: Sequence[TensorSpec]) -> ImageStep:
    spec = _tensor("image.input", step.input, inputs)
    if len(spec.shape) != 4 or spec.shape[1] != 3 or spec.datatype != "FP32":
        raise InvalidPlan(
            f"pipeline.image.input '{spec.name}' is {spec.datatype} {list(spec.shape)}.",
            cure="A picture becomes FP32 [N, 3, rows, columns]: export the model so, channels "
            "first.",
        )
    _check_rows("image.input", spec)
    if step.letterbox and step.HasField("crop"):
        raise InvalidPlan(
            "pipeline.image has both letterbox and crop.",
            cure="Choose one: a letterbox keeps the whole picture, a crop its centre.",
        )
    fill = step.fill if step.HasField("fill") else DEFAULT_FILL
    crop = step.crop if step.HasField("crop") else 0.0
    if step.HasField("crop"):
        _check_range("image.crop", crop, 0.01, 1)
    return ImageStep(
        spec.name,
        _side("height", step.height, spec, 2),
        _side("width", step.width, spec, 3),
        _triple("image.mean", step.mean, -_LARGEST, 0.0),
        _triple("image.std", step.std, _SMALLEST, 1.0),
        step.swap,
        step.letterbox,
        int(_check_range("image.fill", fill, 0, 255)),
        crop,
    )


def _side(name: str, wanted: int, spec: TensorSpec, axis: int) -> int:
    """Returns rows or columns of the picture's input: the model's or, where it has none, given."""
    own = spec.shape[axis]
    if wanted and own not in (-1, wanted):
        raise InvalidPlan(
            f"pipeline.image.{name} is {wanted}; the model takes {list(spec.shape)}.",
            cure="Leave it out: the model says it itself.",
        )
    if not wanted and own == -1:
        raise InvalidPlan(
            f"pipeline.image.{name} is missing; the model takes {list(spec.shape)}.",
            cure="Give height and width where the model leaves them open.",
        )
    return int(_check_range(f"image.{name}", wanted or own, 1, MAX_SIDE))


def _triple(field: str, values: Sequence[float], low: float, default: float) -> Triple:
    if not values:
        return default, default, default
    if len(values) != 3:
        raise InvalidPlan(
            f"pipeline.{field} has {len(values)} numbers.", cure="Give three, one for each channel."
        )
    first, second, third = (_check_range(field, value, low, _LARGEST) for value in values)
    return first, second, third


def _classes(
    step: model_pb2.ClassesStep, outputs: Sequence[TensorSpec]
) -> tuple[ClassesStep, tuple[TensorSpec, ...]]:
    spec = _tensor("classes.output", step.output, outputs)
    if len(spec.shape) != 2 or spec.datatype != "FP32":
        raise InvalidPlan(
            f"pipeline.classes.output '{spec.name}' is {spec.datatype} {list(spec.shape)}.",
            cure="Choose an output FP32 [N, classes].",
        )
    _check_rows("classes.output", spec)
    count = spec.shape[1]
    most = min(count, MAX_TOP) if count > 0 else MAX_TOP
    top = int(_check_range("classes.top", step.top or min(DEFAULT_TOP, most), 1, most))
    size = top if count > 0 else -1
    given = (TensorSpec(SCORES, "FP32", (size,)), TensorSpec(LABELS, "INT64", (size,)))
    return ClassesStep(spec.name, top), given


def _detect(
    step: model_pb2.DetectStep, outputs: Sequence[TensorSpec]
) -> tuple[DetectStep, tuple[TensorSpec, ...]]:
    layout = step.layout or "yolov8"
    if layout not in LAYOUTS:
        raise InvalidPlan(
            f"pipeline.detect.layout '{layout}' is unknown.", cure=f"Choose among {list(LAYOUTS)}."
        )
    spec = _tensor("detect.output", step.output, outputs)
    axis, head = LAYOUTS[layout], 4 if layout == "yolov8" else 5
    fits = len(spec.shape) == 3 and spec.datatype == "FP32"
    if not fits or 0 < spec.shape[axis] <= head:
        form = "[N, 4 + classes, boxes]" if axis == 1 else "[N, boxes, 5 + classes]"
        raise InvalidPlan(
            f"pipeline.detect.output '{spec.name}' is {spec.datatype} {list(spec.shape)}.",
            cure=f"Choose a raw output FP32 {form}, as {layout} gives it, or another layout.",
        )
    _check_rows("detect.output", spec)
    confidence = step.confidence if step.HasField("confidence") else DEFAULT_CONFIDENCE
    overlap = step.overlap if step.HasField("overlap") else DEFAULT_OVERLAP
    resolved = DetectStep(
        spec.name,
        layout,
        _check_range("detect.confidence", confidence, 0, 1),
        _check_range("detect.overlap", overlap, 0, 1),
        int(_check_range("detect.limit", step.limit or DEFAULT_BOXES, 1, MAX_BOXES)),
    )
    return resolved, (
        TensorSpec(BOXES, "FP32", (-1, 4)),
        TensorSpec(SCORES, "FP32", (-1,)),
        TensorSpec(CLASSES, "INT32", (-1,)),
    )


def _tensor(field: str, name: str, specs: Sequence[TensorSpec]) -> TensorSpec:
    """Returns the tensor that a field names, or the only one where it names none."""
    names = [spec.name for spec in specs]
    if not name and len(specs) != 1:
        raise InvalidPlan(f"pipeline.{field} is missing.", cure=f"Choose among {names}.")
    if name and name not in names:
        raise InvalidPlan(
            f"pipeline.{field} '{name}' is no tensor of the model.", cure=f"Choose among {names}."
        )
    return specs[names.index(name) if name else 0]


def _check_rows(field: str, spec: TensorSpec) -> None:
    """Raises `InvalidPlan` unless the model can be run on one picture."""
    if spec.shape[0] not in (-1, 1):
        raise InvalidPlan(
            f"pipeline.{field} '{spec.name}' has {spec.shape[0]} rows: the model is made for that "
            "many pictures at once.",
            cure="Export it with an open first dimension, or with 1.",
        )


def _check_range(field: str, value: float, low: float, high: float) -> float:
    if not (math.isfinite(value) and low <= value <= high):
        raise InvalidPlan(
            f"pipeline.{field} is {value:g}.", cure=f"Use a number from {low:g} to {high:g}."
        )
    return value
