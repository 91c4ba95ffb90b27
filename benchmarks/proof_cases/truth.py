"""What is really right: a variant on fresh inputs, other than the judge's, beside plain arithmetic.

The truth knows nothing of the judge. It runs the model as it is written, operator by operator,
on inputs as they really come, on the same ones scaled, and on many rows at once. Its noise is what
optimisation, another order of sums and one unit in the last place change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np
import onnx
from adlik_common.errors import AdlikError
from adlik_proof.probe import ANSWERED, try_apart
from adlik_runtimes.onnxruntime import OnnxRuntimeModel, load_error
from onnx import numpy_helper

from benchmarks.proof_cases.case import Array, Case, Feed
from benchmarks.proof_cases.grades import WRONG, Grade, grade_coarse, grade_floats

ORDINARY, NONFINITE, WIDE, EMPTY = "ordinary", "nonfinite", "wide", "empty"
ROWS = (1, 1, 2, 3, 3, 5, 8, 13)
CROWD = 500
_FEEDS, _SECONDS, _SEED = 24, 1.0, 977


class Runs(Protocol):
    """A model that runs."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]: ...


@dataclass(frozen=True, slots=True)
class Question:
    """Inputs, what is right for them, and how surely.

    Attributes:
        group: Inputs whose outputs are of one size.
        kind: What serving can tell apart: "ordinary", "nonfinite", "wide" or "empty".
        inputs: By name.
        answer: Of plain arithmetic.
        others: Other right answers.
    """

    group: str
    kind: str
    inputs: Feed
    answer: Feed
    others: list[Feed]


def session(source: onnx.ModelProto | bytes, *, plain: bool = False, save: str = "") -> Any:
    """Returns an ONNX Runtime session of one thread, optimised or plain."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_DISABLE_ALL if plain else levels.ORT_ENABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if save:
        options.optimized_model_filepath = save
    data = source if isinstance(source, bytes) else source.SerializeToString()
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def load(source: onnx.ModelProto | bytes, *, plain: bool = False) -> OnnxRuntimeModel:
    """Returns a model that runs in ONNX Runtime."""
    try:
        return OnnxRuntimeModel(session(source, plain=plain))
    except Exception as error:  # its errors have no class of their own
        raise load_error(error) from error


class Truth:
    """A model's right answers.

    Args:
        case: What it is used on.
        model: It.
        file: Its file.
    """

    def __init__(self, case: Case, model: onnx.ModelProto, file: Path) -> None:
        self.plain = load(model, plain=True)
        self.optimised = load(model)
        self._moved = load(_moved_weights(model), plain=True)
        self._random = np.random.default_rng(_SEED)
        self._case = case
        self.questions = [
            question
            for group, inputs in self._inputs(file)
            if (question := self._ask(group, inputs))
        ]

    def grade(self, variant: Runs) -> Grade:
        """Returns how right a variant is that claims the model's own precision."""
        found = Grade()
        answers: list[tuple[Question, Feed]] = []
        for question in self.questions:
            answer = _answer(variant, question, found)
            if answer is None:
                continue
            if fault := _form_fault(question, answer) or _exact_fault(question, answer):
                found.add(WRONG, question.kind, f"{question.group}: {fault}")
            else:
                answers.append((question, answer))
        for group in dict.fromkeys(question.group for question in self.questions):
            asked = [(q, a) for q, a in answers if q.group == group]
            for name in asked[0][0].answer if asked else ():
                if asked[0][0].answer[name].dtype.kind == "f":
                    grade, text = grade_floats(
                        [question.answer[name] for question, _ in asked],
                        [[question.others[at][name] for question, _ in asked] for at in range(2)],
                        [answer[name] for _, answer in asked],
                    )
                    found.add(grade, asked[0][0].kind, f"{group}: {name}: {text}")
        return found

    def grade_coarse(self, variant: Runs) -> Grade:
        """Returns how right a variant of a lower precision is, on inputs as they really come."""
        found = Grade()
        asked: list[tuple[Question, Feed]] = []
        for question in self.questions:
            if question.group not in ("real", "crowd"):
                continue
            answer = _answer(variant, question, found)
            if answer is None:
                continue
            if fault := _form_fault(question, answer):
                found.add(WRONG, question.kind, fault)
                return found
            asked.append((question, answer))
        for name in asked[0][0].answer if asked else ():
            wanted = [q.answer[name] for q, _ in asked]
            grade, text = grade_coarse(wanted, [a[name] for _, a in asked])
            found.add(grade, ORDINARY, f"{name}: {text}")
        return found

    def spread(self, output: str) -> float:
        """Returns the standard deviation of an output over what really comes."""
        real = [q.answer[output] for q in self.questions if q.group == "real"]
        values = np.concatenate([a.astype(np.float64).ravel() for a in real])
        values = values[np.isfinite(values)]
        return float(values.std() or np.abs(values).max(initial=1.0) or 1.0)

    def dependence(self) -> bool | None:
        """Whether rows of the optimised model depend on their company; None: can't be joined."""
        wanted = {spec.axes[0] if spec.axes else "" for spec in self.optimised.inputs}
        if len(wanted) != 1 or "" in wanted:
            return None
        for _ in range(12):
            feeds = [self._case.feed(self._random, 1) for _ in range(3)]
            if len({tuple(a.shape for a in feed.values()) for feed in feeds}) > 1:
                continue
            joined = {n: np.concatenate([feed[n] for feed in feeds]) for n in feeds[0]}
            try:
                together = self.plain.run(joined)
                alone = [self.plain.run(feed) for feed in feeds]
            except AdlikError:
                return True
            for name, array in together.items():
                parts = [answer[name] for answer in alone]
                shapes = {part.shape[1:] for part in parts}
                if len(shapes) > 1 or any(part.shape[:1] != (1,) for part in parts):
                    return True
                apart = np.concatenate(parts)
                if apart.shape != array.shape or not _near(apart, array):
                    return True
        return False

    def _inputs(self, file: Path) -> Iterator[tuple[str, Feed]]:
        started = perf_counter()
        first = self._case.feed(self._random, 1)
        self.plain.run(first)
        each = max(perf_counter() - started, 1e-4)
        count = max(6, min(_FEEDS, int(_SECONDS / each)))
        real = [self._case.feed(self._random, ROWS[at % len(ROWS)]) for at in range(count)]
        yield from (("real", feed) for feed in real)
        floats = [n for n, a in real[0].items() if a.dtype.kind == "f"]
        for feed in real[: count // 3] if floats else ():
            for group, factor in (("large", 30), ("small", 0.01), ("mirrored", -1)):
                yield (
                    group,
                    {n: a * a.dtype.type(factor) if n in floats else a for n, a in feed.items()},
                )
            yield "flat", {n: np.round(a) if n in floats else a for n, a in feed.items()}
        for feed in real[: count // 3]:
            yield "cut", self._cut(feed)
        if each < 0.02:
            yield from self._crowd()
        yield from self._special(real, floats)
        # Once more: what went before may have left something behind.
        yield from (("after", feed) for feed in real[:8])
        yield from self._without_rows(real[1], file)

    def _crowd(self) -> Iterator[tuple[str, Feed]]:
        crowd = self._case.feed(self._random, CROWD)
        if sum(a.nbytes for a in crowd.values()) < 32 * 2**20:
            yield "crowd", crowd

    def _cut(self, feed: Feed) -> Feed:
        """Returns inputs of which open axes, but for the rows, are shorter than usual."""
        sizes: dict[str, int] = {}
        made = {}
        for spec in self.plain.inputs:
            array = feed[spec.name]
            for at in range(1, array.ndim):
                if spec.shape[at] == -1:
                    name = spec.axes[at] or f"{spec.name}[{at}]"
                    size = int(self._random.integers(1, array.shape[at] + 1))
                    array = array.take(range(sizes.setdefault(name, size)), axis=at, mode="clip")
            made[spec.name] = array
        return made

    def _special(self, real: list[Feed], floats: list[str]) -> Iterator[tuple[str, Feed]]:
        for feed in real[: 4 if floats else 0]:
            broken = {n: a.copy() for n, a in feed.items()}
            for name in floats:
                flat = broken[name].reshape(-1)
                flat[self._random.integers(0, flat.size, 1 + flat.size // 40)] = np.nan
            yield NONFINITE, broken

    def _without_rows(self, feed: Feed, file: Path) -> Iterator[tuple[str, Feed]]:
        axes = {spec.name: spec.axes[0] if spec.axes else "" for spec in self.plain.inputs}
        name = axes[next(iter(feed))]
        if name:
            empty = {n: a[:0] if axes.get(n) == name else a for n, a in feed.items()}
            # The engine ends the process on some of these: asked in another one.
            if try_apart(file, [empty]) == [ANSWERED]:
                yield EMPTY, empty

    def _ask(self, group: str, inputs: Feed) -> Question | None:
        try:
            answer = self.plain.run(inputs)
            others = [self.optimised.run(inputs), self._moved.run(_moved(inputs, self._random))]
        except AdlikError:
            return None
        return Question(group, _kind(inputs), inputs, answer, others)


def _kind(inputs: Feed) -> str:
    if any(not a.size for a in inputs.values()):
        return EMPTY
    if any(a.dtype.kind == "f" and not np.isfinite(a).all() for a in inputs.values()):
        return NONFINITE
    wide = (a for a in inputs.values() if a.dtype in (np.int64, np.uint64))
    return WIDE if any((np.abs(a) >= 2**31).any() for a in wide) else ORDINARY


def _answer(variant: Runs, question: Question, found: Grade) -> Feed | None:
    try:
        return variant.run(question.inputs)
    except AdlikError as error:
        found.add(WRONG, question.kind, f"{question.group}: fails: {error.message[:120]}")
        return None


def _form_fault(question: Question, answer: Feed) -> str:
    for name, array in question.answer.items():
        if name not in answer:
            return f"{name} is missing"
        found = answer[name]
        if found.shape != array.shape:
            return f"{name} has shape {found.shape} in place of {array.shape}"
        if found.dtype != array.dtype and array.dtype.kind not in "OUS":
            return f"{name} has dtype {found.dtype} in place of {array.dtype}"
    return ""


def _exact_fault(question: Question, answer: Feed) -> str:
    """Returns how whole numbers, texts and what is finite differ, where right answers agree."""
    for name, array in question.answer.items():
        found, others = answer[name], [other[name] for other in question.others]
        others = [other for other in others if other.shape == array.shape]
        wanted = array
        if array.dtype.kind == "f":
            wanted, found = np.isfinite(array), np.isfinite(found)
            others = [np.isfinite(other) for other in others]
        sure = np.ones(array.shape, np.bool_)
        for other in others:
            sure &= other == wanted
        wrong = int((sure & (wanted != found)).sum())
        if wrong:
            return f"{name}: {wrong} of {array.size} differ"
    return ""


def _near(left: Array, right: Array) -> bool:
    if left.dtype.kind != "f":
        return bool(np.array_equal(left, right))
    tolerance = 1e-2 if left.dtype == np.float16 else 1e-4
    scale = float(np.abs(np.nan_to_num(left)).max(initial=1e-30))
    return bool(np.nanmax(np.abs(left - right), initial=0.0) <= tolerance * scale)


def _moved(inputs: Feed, random: np.random.Generator) -> Feed:
    """Returns inputs whose floats are moved by one unit in the last place, zeros left alone."""
    moved = {}
    for name, array in inputs.items():
        if array.dtype.kind == "f":
            towards = np.where(random.random(array.shape) < 0.5, -np.inf, np.inf).astype(
                array.dtype
            )
            nearby = np.nextafter(array, towards)
            moved[name] = np.where((array != 0) & np.isfinite(array), nearby, array)
        else:
            moved[name] = array
    return moved


def _moved_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    random = np.random.default_rng(_SEED)
    for weight in copy.graph.initializer:
        array = numpy_helper.to_array(weight)
        if array.dtype in (np.float32, np.float64) and array.ndim > 1:
            weight.CopyFrom(numpy_helper.from_array(_moved({"": array}, random)[""], weight.name))
    return copy
