"""What sabotage knows of a model, and how it wraps one that runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.proof_cases.case import Array, Case, Feed
from benchmarks.proof_cases.truth import Truth

Before = Callable[[Feed], Feed]
After = Callable[[Feed, Feed], Feed]


@dataclass
class Wrapped:
    """A model with something done to its inputs or its outputs."""

    model: Any
    before: Before = lambda inputs: inputs
    after: After = lambda _, outputs: outputs

    def run(self, inputs: Mapping[str, Array]) -> Feed:
        changed = self.before(dict(inputs))
        return self.after(
            dict(inputs), {n: np.asarray(a) for n, a in self.model.run(changed).items()}
        )


@dataclass(frozen=True, slots=True)
class Output:
    """What is known of an output.

    Attributes:
        rows: Its axis of rows; None: it has none.
        long: Its last axis of other things whose size varies; None: it has none.
        column: Its axis of different quantities; None: it has none.
        spread: Standard deviation of what really comes.
        largest: Largest size of a number that really comes.
    """

    name: str
    kind: str
    rows: int | None
    long: int | None
    column: int | None
    spread: float
    largest: float


@dataclass(slots=True)
class Scene:
    """What sabotage needs to know of a model."""

    case: Case
    model: Any
    archive: Feed | None
    outputs: list[Output] = field(default_factory=list)
    inputs: Feed = field(default_factory=dict)

    @classmethod
    def of(cls, case: Case, truth: Truth, archive: Feed | None) -> Scene:
        real = [q for q in truth.questions if q.group == "real"]
        probes = [(rows, case.feed(np.random.default_rng(5), rows)) for rows in (3, 5)]
        answers = [(rows, truth.plain.run(feed)) for rows, feed in probes]
        found = cls(case, truth.optimised, archive, inputs=real[0].inputs)
        for name, array in real[0].answer.items():
            shapes = [q.answer[name].shape for q in real]
            rows = _axis_of_rows(name, answers)
            varying = [
                at
                for at in range(array.ndim)
                if at != rows and len({shape[at] for shape in shapes}) > 1
            ]
            fixed = [
                (array.shape[at], at)
                for at in range(array.ndim)
                if at != rows and at not in varying and array.shape[at] > 1
            ]
            values = np.concatenate([q.answer[name].ravel() for q in real])
            is_number = array.dtype.kind in "fiu"
            numbers = values[np.isfinite(values)] if is_number else np.zeros(0)
            largest = float(np.abs(numbers.astype(np.float64)).max(initial=0.0))
            found.outputs.append(
                Output(
                    name, array.dtype.kind, rows, varying[-1] if varying else None,
                    min(fixed)[1] if fixed else None,
                    truth.spread(name) if array.dtype.kind == "f" else 1.0, largest,
                )
            )  # fmt: skip
        return found

    def floats(self) -> list[Output]:
        return [output for output in self.outputs if output.kind == "f"]

    def named(self, kinds: str) -> list[Output]:
        return [output for output in self.outputs if output.kind in kinds]


def _axis_of_rows(name: str, answers: list[tuple[int, Feed]]) -> int | None:
    (one, left), (other, right) = answers
    a, b = left[name].shape, right[name].shape
    if len(a) != len(b):
        return None
    return next((at for at in range(len(a)) if a[at] == one and b[at] == other), None)


def changed(outputs: Feed, name: str, change: Callable[[Array], Array]) -> Feed:
    return {n: change(a.copy()) if n == name else a for n, a in outputs.items()}


def after_output(scene: Scene, output: Output, change: Callable[[Array], Array]) -> Wrapped:
    return Wrapped(scene.model, after=lambda _, outputs: changed(outputs, output.name, change))


def before_inputs(scene: Scene, dtype: Any, change: Callable[[Array], Array]) -> Wrapped:
    return Wrapped(
        scene.model,
        before=lambda inputs: {n: change(a) if a.dtype == dtype else a for n, a in inputs.items()},
    )


def on_floats(scene: Scene, change: Callable[[Array], Array]) -> Iterator[Wrapped]:
    if any(array.dtype.kind == "f" for array in scene.inputs.values()):
        yield Wrapped(
            scene.model,
            before=lambda inputs: {
                n: change(a) if a.dtype.kind == "f" else a for n, a in inputs.items()
            },
        )


def shape_of(scene: Scene, output: Output) -> tuple[int, ...]:
    return scene.model.run(scene.inputs)[output.name].shape


def dtype_of(scene: Scene, output: Output) -> Any:
    return scene.model.run(scene.inputs)[output.name].dtype
