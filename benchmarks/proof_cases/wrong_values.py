"""Variants that compute or carry some values wrong: scales, bits, signs, texts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.proof_cases.case import Array, Feed
from benchmarks.proof_cases.scene import (
    Scene,
    Wrapped,
    after_output,
    before_inputs,
    dtype_of,
    on_floats,
)  # fmt: skip


def scaled(scene: Scene) -> Iterator[Wrapped]:
    for output in scene.floats():
        yield after_output(scene, output, lambda array: array * array.dtype.type(1.05))


def off_by_one(scene: Scene) -> Iterator[Wrapped]:
    for output in scene.named("iu"):
        yield after_output(scene, output, lambda array: array + array.dtype.type(1))


def truth_turned(scene: Scene) -> Iterator[Wrapped]:
    """One truth value in a row is the other."""
    for output in scene.named("b"):

        def change(array: Array) -> Array:
            array.reshape(-1)[-1:] ^= True
            return array

        yield after_output(scene, output, change)


def cut_to_32_bits(scene: Scene) -> Iterator[Wrapped]:
    if any(array.dtype == np.int64 for array in scene.inputs.values()):
        yield before_inputs(scene, np.int64, lambda a: a.astype(np.int32).astype(np.int64))
    if any(array.dtype == np.float64 for array in scene.inputs.values()):
        yield before_inputs(
            scene, np.float64, lambda array: array.astype(np.float32).astype(np.float64)
        )
    for output in scene.outputs:
        if output.kind == "i" and output.largest >= 2**31:
            yield after_output(scene, output, lambda array: array.astype(np.int32).astype(np.int64))


def whole_numbers_as_floats(scene: Scene) -> Iterator[Wrapped]:
    if any(array.dtype == np.int64 for array in scene.inputs.values()):
        yield before_inputs(
            scene, np.int64, lambda array: array.astype(np.float32).astype(np.int64)
        )


def saturated(scene: Scene) -> Iterator[Wrapped]:
    for output in scene.floats():
        limit = output.largest * 0.7
        yield after_output(
            scene,
            output,
            lambda array, limit=limit: np.clip(array, -limit, limit).astype(array.dtype),
        )


def small_noise(scene: Scene) -> Iterator[Wrapped]:
    random = np.random.default_rng(3)
    for output in scene.floats():

        def change(array: Array, spread: float = output.spread) -> Array:
            return (array + 1e-3 * spread * random.standard_normal(array.shape)).astype(array.dtype)

        yield after_output(scene, output, change)


def another_datatype(scene: Scene) -> Iterator[Wrapped]:
    others = {"f4": "f8", "f8": "f4", "f2": "f4", "i8": "i4", "i4": "i8", "u1": "i8"}
    for output in scene.outputs:
        name = np.dtype(dtype_of(scene, output)).str[1:]
        if name in others:
            yield after_output(scene, output, lambda array, other=others[name]: array.astype(other))


def nan_dropped(scene: Scene) -> Iterator[Wrapped]:
    for kind in (np.float32, np.float64, np.float16):
        if any(array.dtype == kind for array in scene.inputs.values()):
            yield before_inputs(scene, kind, lambda array: np.nan_to_num(array, nan=0.0))


def negative_numbers(scene: Scene) -> Iterator[Wrapped]:
    return on_floats(scene, lambda array: np.maximum(array, array.dtype.type(0)))


def large_numbers(scene: Scene) -> Iterator[Wrapped]:
    """Clipped at three times what comes; without samples only where strangers try as much."""
    sizes = {
        n: float(np.nanmax(np.abs(a), initial=1))
        for n, a in scene.inputs.items()
        if a.dtype.kind == "f"
    }
    known = scene.archive is not None
    limits = {n: 3 * size for n, size in sizes.items() if known or size < 20}

    def before(inputs: Feed) -> Feed:
        return {
            n: np.clip(a, -limits[n], limits[n]).astype(a.dtype) if n in limits else a
            for n, a in inputs.items()
        }

    if limits:
        yield Wrapped(scene.model, before=before)


def zeros(scene: Scene) -> Iterator[Wrapped]:
    return on_floats(scene, lambda array: np.where(array == 0, array.dtype.type(0.5), array))


def accents_lost(scene: Scene) -> Iterator[Wrapped]:
    def plain(array: Array) -> Array:
        flat = [
            t.encode("ascii", "replace").decode() if isinstance(t, str) else t
            for t in array.ravel()
        ]
        return np.array(flat, object).reshape(array.shape)

    if any(array.dtype == object for array in scene.inputs.values()):
        yield before_inputs(scene, object, plain)
    for output in scene.named("OU"):
        yield after_output(scene, output, plain)


def texts_shortened(scene: Scene) -> Iterator[Wrapped]:
    """Texts in are cut at four letters; texts out lose what follows a blank."""
    if any(array.dtype == object for array in scene.inputs.values()):
        yield before_inputs(
            scene, object, lambda a: np.array([t[:4] for t in a.ravel()], object).reshape(a.shape)
        )


def input_ignored(scene: Scene) -> Iterator[Wrapped]:
    if len(scene.inputs) < 2:
        return
    for name in scene.inputs:
        yield Wrapped(
            scene.model,
            before=lambda inputs, name=name: {
                n: np.zeros_like(a) if n == name else a for n, a in inputs.items()
            },
        )
