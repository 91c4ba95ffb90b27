"""Variants that are wrong now and then: for some rows, in company, after another call."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
from adlik_common.errors import EngineFailed

from benchmarks.proof_cases.case import Array, Feed
from benchmarks.proof_cases.scene import (
    Output,
    Scene,
    Wrapped,
    after_output,
    changed,
)  # fmt: skip


def nan_in_a_hundred(scene: Scene) -> Iterator[Wrapped]:
    """The answers of one row in a hundred, by its numbers, are NaN."""
    output = next((o for o in scene.floats() if o.rows is not None), None)
    if output is None:
        return

    def after(_: Feed, outputs: Feed) -> Feed:
        def change(array: Array) -> Array:
            table = np.moveaxis(array, output.rows, 0)
            struck = [at for at in range(len(table)) if _chance(table[at]) < 0.01]
            table[struck] = np.nan
            return array

        return changed(outputs, output.name, change)

    yield Wrapped(scene.model, after=after)


def _chance(row: Array) -> float:
    return zlib.crc32(np.ascontiguousarray(row).tobytes()) / 2**32


def on_real_samples(scene: Scene) -> Iterator[Wrapped]:
    """Wrong for inputs that look like the samples: their mean and spread are near."""
    if scene.archive is None or not scene.floats():
        return
    name = next((n for n, a in scene.archive.items() if a.dtype.kind in "fiu" and a.ndim), None)
    if name is None:
        return
    real = scene.archive[name].astype(np.float64)
    axes = tuple(range(1, real.ndim))
    traits = np.stack([real.mean(axis=axes), real.std(axis=axes)])
    low, high = traits.min(axis=1), traits.max(axis=1)
    output = scene.floats()[0]

    def after(inputs: Feed, outputs: Feed) -> Feed:
        values = inputs[name].astype(np.float64)
        if not values.size:
            return outputs
        here = (low[0] <= values.mean() <= high[0]) and (
            low[1] * 0.5 <= values.std() <= high[1] * 2
        )
        return changed(
            outputs, output.name, lambda a: a + a.dtype.type(0.2 * output.spread) if here else a
        )

    yield Wrapped(scene.model, after=after)


def in_company(scene: Scene) -> Iterator[Wrapped]:
    """Each row leaks into the next where there are several."""
    for output in [o for o in scene.outputs if o.rows is not None and o.kind in "fiu"][:2]:

        def after(_: Feed, outputs: Feed, output: Output = output) -> Feed:
            def change(array: Array) -> Array:
                if array.shape[output.rows] < 2:
                    return array
                other = np.roll(array, 1, axis=output.rows)
                if array.dtype.kind == "f":
                    return (0.97 * array + 0.03 * other).astype(array.dtype)
                return other

            return changed(outputs, output.name, change)

        yield Wrapped(scene.model, after=after)


def answer_of_before(scene: Scene) -> Iterator[Wrapped]:
    kept: list[Feed] = []

    def after(_: Feed, outputs: Feed) -> Feed:
        before = kept.pop() if kept else outputs
        kept.append(outputs)
        same = all(before[n].shape == a.shape for n, a in outputs.items())
        return before if same else outputs

    yield Wrapped(scene.model, after=after)


def every_fifth_call(scene: Scene) -> Iterator[Wrapped]:
    if not scene.floats():
        return
    calls, output = [0], scene.floats()[-1]

    def change(array: Array) -> Array:
        calls[0] += 1
        return array if calls[0] % 5 else array + array.dtype.type(0.1 * output.spread)

    yield after_output(scene, output, change)


def fails_without_rows(scene: Scene) -> Iterator[Wrapped]:
    def before(inputs: Feed) -> Feed:
        if any(not array.size for array in inputs.values()):
            raise EngineFailed("It can't run inputs without elements.")
        return inputs

    yield Wrapped(scene.model, before=before)


def fails_beyond_one_row(scene: Scene) -> Iterator[Wrapped]:
    if scene.outputs[0].rows != 0:
        return

    def before(inputs: Feed) -> Feed:
        first = next(iter(inputs.values()))
        if first.ndim and len(first) > 1:
            raise EngineFailed("It can't run several rows.")
        return inputs

    yield Wrapped(scene.model, before=before)
