"""Variants that are wrong at some places of their outputs: rows, borders, tokens, columns."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from benchmarks.proof_cases.case import Array, Feed
from benchmarks.proof_cases.scene import (
    Output,
    Scene,
    Wrapped,
    after_output,
    changed,
    dtype_of,
    shape_of,
)  # fmt: skip


def rows_from(scene: Scene, first: int, *, last_only: bool = False) -> Iterator[Wrapped]:
    """Rows that bear an earlier row's answer."""
    for output in [o for o in scene.outputs if o.rows is not None][:2]:

        def after(_: Feed, outputs: Feed, output: Output = output) -> Feed:
            def change(array: Array) -> Array:
                table = np.moveaxis(array, output.rows, 0)
                if last_only and len(table) > 1:
                    table[-1] = table[0]
                elif not last_only:
                    table[first:] = table[:1]
                return array

            return changed(outputs, output.name, change)

        yield Wrapped(scene.model, after=after)


def last_row(scene: Scene) -> Iterator[Wrapped]:
    return rows_from(scene, 0, last_only=True)


def third_row(scene: Scene) -> Iterator[Wrapped]:
    return rows_from(scene, 2)


def row_beyond_64(scene: Scene) -> Iterator[Wrapped]:
    return rows_from(scene, 64)


def border(scene: Scene) -> Iterator[Wrapped]:
    """The last element along the last axis of maps and sequences is its neighbour."""
    for output in scene.outputs:
        axis = next(
            (at for at in (3, 2) if at < len(shape_of(scene, output)) and at != output.rows), None
        )
        if axis is None or shape_of(scene, output)[axis] < 2:
            continue

        def after(_: Feed, outputs: Feed, name: str = output.name, axis: int = axis) -> Feed:
            def change(array: Array) -> Array:
                table = np.moveaxis(array, axis, 0)
                if len(table) > 1:
                    table[-1] = table[-2]
                return array

            return changed(outputs, name, change)

        yield Wrapped(scene.model, after=after)
        return


def ninth_token(scene: Scene) -> Iterator[Wrapped]:
    for output in [o for o in scene.outputs if o.long is not None][:1]:

        def after(_: Feed, outputs: Feed, output: Output = output) -> Feed:
            def change(array: Array) -> Array:
                np.moveaxis(array, output.long, 0)[8:] = 0
                return array

            return changed(outputs, output.name, change)

        yield Wrapped(scene.model, after=after)


def tail_of_eight(scene: Scene) -> Iterator[Wrapped]:
    """What is left over when an open axis is cut into pieces of eight is wrong."""
    for output in [o for o in scene.outputs if o.long is not None][:1]:

        def after(_: Feed, outputs: Feed, output: Output = output) -> Feed:
            def change(array: Array) -> Array:
                table = np.moveaxis(array, output.long, 0)
                whole = len(table) // 8 * 8
                if whole:
                    table[whole:] = 0
                return array

            return changed(outputs, output.name, change)

        yield Wrapped(scene.model, after=after)


def column_zeroed(scene: Scene) -> Iterator[Wrapped]:
    for output in [o for o in scene.outputs if o.column is not None and o.kind in "fiub"]:

        def change(array: Array, axis: int = output.column) -> Array:
            table = np.moveaxis(array, axis, 0)
            table[len(table) // 2] = 0
            return array

        yield after_output(scene, output, change)


def channels_swapped(scene: Scene) -> Iterator[Wrapped]:
    for output in [o for o in scene.outputs if o.column is not None]:

        def change(array: Array, axis: int = output.column) -> Array:
            table = np.moveaxis(array, axis, 0)
            table[[0, 1]] = table[[1, 0]]
            return array

        yield after_output(scene, output, change)


def boxes_shifted(scene: Scene) -> Iterator[Wrapped]:
    if not scene.case.name.startswith("detector"):
        return
    output = scene.outputs[0]

    def change(array: Array) -> Array:
        if output.name == "y":
            array[:, 0] += 3
        else:
            array[..., 0] += 3
        return array

    yield after_output(scene, output, change)


def one_element(scene: Scene) -> Iterator[Wrapped]:
    """The first element alone is off, by a tenth of the spread."""
    for output in scene.floats():

        def change(array: Array, spread: float = output.spread) -> Array:
            if array.size:
                array.reshape(-1)[0] += array.dtype.type(0.1 * spread)
            return array

        yield after_output(scene, output, change)


def outputs_swapped(scene: Scene) -> Iterator[Wrapped]:
    for one in scene.outputs:
        for other in scene.outputs:
            is_alike = shape_of(scene, one) == shape_of(scene, other) and dtype_of(
                scene, one
            ) == dtype_of(scene, other)
            if one.name < other.name and is_alike:

                def after(_: Feed, outputs: Feed, a: str = one.name, b: str = other.name) -> Feed:
                    return {**outputs, a: outputs[b], b: outputs[a]}

                yield Wrapped(scene.model, after=after)
                return


def one_row_loses_its_axis(scene: Scene) -> Iterator[Wrapped]:
    for output in [o for o in scene.outputs if o.rows is not None][:1]:

        def change(array: Array, axis: int = output.rows) -> Array:
            return array.squeeze(axis) if array.shape[axis] == 1 else array

        yield after_output(scene, output, change)
