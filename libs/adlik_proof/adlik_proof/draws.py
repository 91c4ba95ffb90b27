"""Inputs that could show a fault: made up, at several sizes and scales, for what a model takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from adlik_common.tensors import TensorSpec

from adlik_proof import evidence
from adlik_proof.role import Role
from adlik_proof.sizes import Found, Sizes, find_sizes, open_axes
from adlik_proof.values import GAPS, NONFINITE, PLAIN, STYLES, WIDE, Maker

if TYPE_CHECKING:
    from adlik_proof.reference import Reference

Array = np.ndarray[Any, np.dtype[Any]]

_SEED = 20260101
_CROWD_ROWS, _CROWD_SECONDS, _CROWD_BYTES = 601, 0.25, 8 * 2**20
"""Rows that show what is wrong of one in a hundred, as far as time and memory allow."""
_SHAPINGS = 3


@dataclass(frozen=True, slots=True)
class Draw:
    """Made-up inputs.

    Attributes:
        kind: As of `evidence.Run`.
        style: How the numbers were made up.
        inputs: By name.
    """

    kind: str
    style: str
    inputs: Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Drawer:
    """Makes inputs up that a model has been seen to take.

    Attributes:
        maker: Makes the values.
        found: The sizes.
        has_gaps: NaN among the numbers is ordinary.
    """

    maker: Maker
    found: Found
    has_gaps: bool = False

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        """What the model takes."""
        return self.maker.inputs

    def typical(self) -> dict[str, Array]:
        """Returns inputs to measure speed and memory on."""
        return self.maker.make(self.found.typical, PLAIN[0], _SEED)

    def draws(self) -> Iterator[Draw]:
        """Yields every style and every size at least once."""
        draws = self.found.draws
        styles = (*STYLES, GAPS) if self.has_gaps else STYLES
        for turn in range(max(len(draws), len(styles))):
            style = styles[turn % len(styles)]
            yield self._draw(evidence.DRAWN, draws[turn % len(draws)], style, turn)
        # Once more with plain numbers at every size: what a lower precision is judged by.
        for turn, sizes in enumerate(draws):
            yield self._draw(evidence.DRAWN, sizes, PLAIN[turn % len(PLAIN)], 100 + turn)

    def special(self) -> Iterator[Draw]:
        """Yields what serving can tell apart: NaN and infinities, and wide whole numbers."""
        sizes = self._several()
        if any(spec.datatype.startswith(("FP", "BF")) for spec in self.inputs):
            for turn, style in enumerate(NONFINITE):
                yield self._draw(evidence.NONFINITE, sizes, style, turn)
            yield self._draw(evidence.NONFINITE, self.found.draws[0], NONFINITE[0], 10)
        if self.maker.wide_inputs:
            yield self._draw(evidence.WIDE, sizes, WIDE, 0)
            yield self._draw(evidence.WIDE, self.found.draws[0], WIDE, 1)

    def _several(self) -> Sizes:
        """Returns the smallest sizes at which no open axis is 1, or the largest there are."""
        several = [sizes for sizes in self.found.draws if min(sizes.values(), default=2) > 1]
        return min(several, key=lambda drawn: sorted(drawn.values()), default=self._largest())

    def _largest(self) -> Sizes:
        return max(self.found.draws, key=lambda drawn: sorted(drawn.values()))

    def empty(self) -> list[Draw]:
        """Returns inputs without elements: each open axis of size 0, then all first axes."""
        sizes = self._largest()
        axes = open_axes(self.inputs)
        emptied = [{**sizes, name: 0} for name in axes]
        rows = [name for name, is_rows in axes.items() if is_rows]
        if len(rows) > 1:
            emptied.append({**sizes, **dict.fromkeys(rows, 0)})
        return [self._draw(evidence.EMPTY, drawn, PLAIN[0], 0) for drawn in emptied]

    def crowd(self, seconds_a_row: float, bytes_a_row: float) -> list[Draw]:
        """Returns many rows at once: a fault of few inputs is met by many only.

        Args:
            seconds_a_row: What the model takes for a row.
            bytes_a_row: Of inputs and outputs.
        """
        axes = open_axes(self.inputs)
        rows = [name for name, is_rows in axes.items() if is_rows]
        small = min(self.found.draws, key=lambda drawn: sorted(drawn.values()))
        count = min(_CROWD_ROWS, int(_CROWD_SECONDS / max(seconds_a_row, 1e-6)))
        count = min(count, int(_CROWD_BYTES / max(bytes_a_row, 1)))
        if not rows or count <= 8:
            return []
        sizes = {**small, **dict.fromkeys(rows, count | 1)}
        styles = (PLAIN[0], "large", GAPS) if self.has_gaps else (PLAIN[0], "large")
        draws = [self._draw(evidence.CROWD, sizes, style, 7) for style in styles]
        if self.maker.wide_inputs:
            draws.append(self._draw(evidence.WIDE, sizes, WIDE, 7))
        return draws

    def company(self, requests: int, style: str, seed: int) -> list[dict[str, Array]]:
        """Returns requests of one row each whose other sizes are equal."""
        axes = open_axes(self.inputs)
        sizes = self._largest()
        alone = {name: 1 if is_rows else sizes[name] for name, is_rows in axes.items()}
        return [self.maker.make(alone, style, seed + at) for at in range(requests)]

    def _draw(self, kind: str, sizes: Sizes, style: str, turn: int) -> Draw:
        return Draw(kind, style, self.maker.make(sizes, style, _SEED + turn))


def find_drawer(reference: Reference, named: Sizes, seconds: float) -> Drawer | None:
    """Returns what makes inputs up that the model takes, None where nothing does.

    Args:
        reference: The model.
        named: Sizes of open axes that the plan names.
        seconds: About how long sizes are looked for.
    """
    for maker in _makers(reference.inputs, reference.roles):
        found = find_sizes(reference.inputs, _accepting(reference, maker), named, seconds)
        if found is not None:
            return Drawer(maker, found, reference.fills_gaps)
    return None


def _accepting(reference: Reference, maker: Maker) -> Callable[[Sizes], bool]:
    """Returns what says whether the model takes inputs of some sizes; each is tried once."""

    @cache
    def accepts(key: tuple[tuple[str, int], ...]) -> bool:
        return reference.accepts(maker.make(dict(key), PLAIN[0], _SEED))

    return lambda sizes: accepts(tuple(sorted(sizes.items())))


def _makers(inputs: Sequence[TensorSpec], roles: Mapping[str, Role]) -> Iterator[Maker]:
    shapings = _SHAPINGS if any(role.is_size for role in roles.values()) else 1
    whole = any(spec.datatype.startswith(("INT", "UINT")) for spec in inputs)
    for tame in (False, True) if whole else (False,):
        for shaping in range(shapings):
            yield Maker(inputs, roles, tame=tame, shaping=shaping)


def seconds_of(call: Callable[[], object]) -> float:
    """Returns how long a call takes at best."""
    times = []
    for _ in range(3):
        started = perf_counter()
        call()
        times.append(perf_counter() - started)
    return min(times)
