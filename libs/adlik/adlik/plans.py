"""What a user wants done with a model, as frozen dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class OutputLimits:
    """What one output of a lower precision must reach; None takes the model's limit."""

    min_r2: float | None = None
    min_expected_accuracy: float | None = None
    min_sure_agreement: float | None = None
    min_objects_kept: float | None = None
    max_abs_error: float | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What a variant must reach before it may be released; None takes the mesh's default."""

    max_accuracy_drop: float | None = None
    min_speedup: float | None = None
    min_r2: float | None = None
    min_expected_accuracy: float | None = None
    min_sure_agreement: float | None = None
    min_objects_kept: float | None = None
    max_abs_error: float | None = None
    outputs: Mapping[str, OutputLimits] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ImageStep:
    """How a picture becomes an input; "" or empty: the only input, no normalisation."""

    input: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    swap: bool = False
    letterbox: bool = False
    fill: int | None = None
    crop: float | None = None
    height: int = 0
    width: int = 0


@dataclass(frozen=True, slots=True)
class ClassesStep:
    """The best classes instead of scores; "" or 0: the only output, the mesh's default."""

    output: str = ""
    top: int = 0


@dataclass(frozen=True, slots=True)
class DetectStep:
    """Boxes instead of a detector's output; "", 0 or None: the mesh's default."""

    output: str = ""
    layout: str = ""
    confidence: float | None = None
    overlap: float | None = None
    limit: int = 0


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What serving does between a picture and the model, and the model and the answer."""

    image: ImageStep = ImageStep()
    classes: ClassesStep | None = None
    detect: DetectStep | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done with a model; empty recipes or targets mean all that apply."""

    recipes: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    limits: Limits = Limits()
    pipeline: Pipeline | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    batching: str = ""
