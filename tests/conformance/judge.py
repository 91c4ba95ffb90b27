"""Says whether a model in plans answers as it should, measured by the reference's own noise."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime

Feed = Mapping[str, Any]

NEAR = 3e-6
"""Part of an output's largest number that single steps of float32 may differ by, unasked."""

LEAST = 1e-9
"""What any number may differ by."""

NOISES = 16.0
"""How many times the reference's own noise an answer may differ by."""

FLIPPED = 0.02
"""Part of an output's elements that a rounding to levels may push to a neighbour."""


def session(model: onnx.ModelProto, *, optimized: bool = False) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    if not optimized:
        level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.graph_optimization_level = level
    content = model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


class Reference:
    """What ONNX Runtime answers without its optimizations, and how noisy that is."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model, self.session = model, session(model)
        self.names = [output.name for output in self.session.get_outputs()]
        self.has_levels = any(node.op_type == "QuantizeLinear" for node in _nodes(model.graph))

    def __call__(self, feed: Feed) -> dict[str, Any]:
        return dict(zip(self.names, self.session.run(None, dict(feed)), strict=True))

    def fails_optimized(self, feed: Feed) -> bool:
        """Whether its own optimizations break it for an input, as they do for some without rows."""
        try:
            session(self.model, optimized=True).run(None, dict(feed))
        except Exception:  # noqa: BLE001 # its errors have no class of their own
            return True
        return False

    def noise(self, feed: Feed) -> dict[str, Any]:
        """How far answers move with engine optimizations, and with inputs one step of float32 on.

        Returns:
            For each output an array of the largest moves; nothing for outputs that are no tensors.
        """
        want, moves = self(feed), {}
        others = []
        with contextlib.suppress(Exception):  # its optimizer fails on some models
            others.append(session(self.model, optimized=True).run(None, dict(feed)))
        others += [self.session.run(None, _moved(feed, seed)) for seed in range(3)]
        for place, (name, array) in enumerate(want.items()):
            if not isinstance(array, np.ndarray) or array.dtype.kind != "f":
                continue
            with np.errstate(all="ignore"):
                gaps = [np.abs(_wide(other[place]) - _wide(array)) for other in others]
            moves[name] = np.nan_to_num(np.max(gaps, axis=0), nan=0.0, posinf=0.0)
        return moves


def _nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    inner = [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    return [*graph.node, *(node for g in inner for node in _nodes(g))]


def _wide(array: Any) -> np.ndarray:
    return np.asarray(array).astype(np.float64)


def _moved(feed: Feed, seed: int) -> dict[str, Any]:
    rng, moved = np.random.default_rng(seed), {}
    for name, array in feed.items():
        moved[name] = array
        if isinstance(array, np.ndarray) and array.dtype == np.float32:
            ends = np.where(rng.random(array.shape) < 0.5, -np.inf, np.inf).astype(np.float32)
            moved[name] = np.nextafter(array, ends)
    return moved


def differ(want: Any, got: Any, near: float = NEAR, least: float = LEAST) -> str:
    """Returns in words how two results differ, "" where they do not."""
    if isinstance(want, list) or isinstance(got, list):
        if not isinstance(got, list) or not isinstance(want, list) or len(want) != len(got):
            return "another sequence"
        said = (differ(a, b, near, least) for a, b in zip(want, got, strict=True))
        return next((words for words in said if words), "")
    if want is None or got is None:
        return "" if want is got else "one is missing"
    want, got = np.asarray(want), np.asarray(got)
    if want.shape != got.shape:
        return f"shape {got.shape}, wanted {want.shape}"
    if want.dtype != got.dtype and not {want.dtype.kind, got.dtype.kind} <= set("OUS"):
        return f"dtype {got.dtype}, wanted {want.dtype}"
    if want.dtype.kind not in "fc" and want.dtype.isbuiltin == 1 and want.dtype.kind != "V":
        bad = int((want.astype(str) != got.astype(str)).sum() if want.dtype.kind in "OUS"
                  else (want != got).sum())  # fmt: skip
        return f"{bad} of {want.size} differ" if bad else ""
    return _differ_floats(want, got, near, least)


def _differ_floats(want: np.ndarray, got: np.ndarray, near: float, least: float) -> str:
    a, b = _wide(want), _wide(got)
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        return f"{int((np.isnan(a) != np.isnan(b)).sum())} of {a.size} are NaN on one side only"
    finite = np.isfinite(a) & np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return "infinities differ"
    error = np.abs(a[finite] - b[finite]).max(initial=0.0)
    scale = np.abs(a[finite]).max(initial=0.0)
    if error > near * scale + least:
        return f"largest error {error:.3g}, largest number {scale:.3g}"
    return ""


def judged(reference: Reference, feed: Feed, got: Mapping[str, Any], near: float = NEAR) -> str:
    """Returns in words how an answer differs from the reference by more than its noise.

    Args:
        reference: What the answer should be.
        feed: The inputs.
        got: The answer.
        near: Part of an output's largest number that it may differ by, unasked.
    """
    want = reference(feed)
    if list(got) != list(want):
        return f"outputs {list(got)}, wanted {list(want)}"
    # Where no level stands for 0, a sum of levels is 0 but for the rounding of what it is made of.
    least = LEAST * (1000 if reference.has_levels else 1)
    said = {n: words for n in want if (words := differ(want[n], got[n], near, least))}
    if not said:
        return ""
    noise = reference.noise(feed)
    for name, words in said.items():
        if not _within(reference, want[name], got[name], noise.get(name)):
            return f"{name}: {words}"
    return ""


def _within(reference: Reference, want: Any, got: Any, noise: np.ndarray | None) -> bool:
    """Whether what differs is noise: of floats, or of floats that were rounded to levels."""
    if not isinstance(got, np.ndarray) or want.shape != got.shape or want.dtype != got.dtype:
        return False
    a, b = _wide(want), _wide(got)
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return False
    finite = np.isfinite(a)
    gap = np.abs(np.where(finite, a, 0) - np.where(finite, b, 0))
    if noise is not None and gap.max(initial=0) <= NOISES * noise.max(initial=0):
        return True
    if not reference.has_levels:
        return False
    step = 1.0 if want.dtype.kind in "iu" else 0.02 * np.abs(a[finite]).max(initial=0.0)
    off = gap > (0 if want.dtype.kind in "iu" else NEAR * np.abs(a[finite]).max(initial=0.0))
    return bool(off.sum() <= FLIPPED * a.size + 1 and gap.max(initial=0) <= step)
