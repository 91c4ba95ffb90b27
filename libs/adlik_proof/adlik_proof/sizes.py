"""Finds sizes that a model accepts for its open axes: several for each, by trying."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from time import monotonic

from adlik_common.tensors import TensorSpec

from adlik_proof.values import axis_names

Sizes = dict[str, int]
Accepts = Callable[[Sizes], bool]

# One, two or three, and an odd larger one show what a single size hides; the others are for models
# that refuse those: strides, windows, heads.
ROWS = (1, 3, 5, 2, 4, 8, 16)
OTHERS = (1, 3, 11, 2, 5, 9, 17, 4, 8, 16, 24, 32, 33, 48, 64, 96, 128, 160, 192, 256)
_FIRST_TRIES = (11, 16, 32, 64, 224, 1, 2, 3, 4, 5, 8, 128, 256, 320, 512, 640)
_FIRST_ROWS = (1, 2, 4, 3, 8, 16)
_MOST_MIXED = 3
WANTED = 3
LONG = (131, 67, 35)
"""One long size as well: what is wrong far behind shows at no other."""
_LONG_SECONDS = 0.2
"""Time of the first run, from which no long sizes are tried."""
_TYPICAL = (224, 128, 64, 32)
"""Sizes to measure at where nobody named one: of a picture, of a text, of what refuses those."""


@dataclass(frozen=True, slots=True)
class Found:
    """Sizes that a model accepts.

    Attributes:
        draws: Sizes of all open axes together; every axis takes as many values as were found.
        typical: What to measure speed and memory at.
    """

    draws: list[Sizes]
    typical: Sizes


def open_axes(inputs: Iterable[TensorSpec]) -> dict[str, bool]:
    """Returns the names of the open axes, and whether each is the first axis of an input."""
    axes: dict[str, bool] = {}
    for spec in inputs:
        for at, (name, size) in enumerate(zip(axis_names(spec), spec.shape, strict=True)):
            if size == -1:
                axes[name] = axes.get(name, False) or at == 0
    return axes


def find_sizes(
    inputs: Sequence[TensorSpec], accepts: Accepts, named: Sizes, seconds: float
) -> Found | None:
    """Returns sizes that a model accepts, None where none of those tried is.

    Args:
        inputs: What it takes.
        accepts: Whether it runs on made-up inputs of these sizes.
        named: Sizes that the plan names, of some axes.
        seconds: Time after which no more are looked for.
    """
    give_up = monotonic() + seconds
    accepts = _asked_once(accepts)
    axes = open_axes(inputs)
    for base in _bases(axes, named):
        started = monotonic()
        if accepts(base):
            break
    else:
        return None
    long = LONG if monotonic() - started < _LONG_SECONDS else ()
    groups = _groups(axes, base, accepts, give_up)
    for names, values in groups:
        if not axes[names[0]]:
            values.extend(_first(names, base, [n for n in long if max(values) < LONG[-1]], accepts))
    draws = _together(base, groups, accepts)
    largest = {name: max(draw[name] for draw in draws) for name in axes}
    return Found(draws, _typical(inputs, {**base, **largest}, named, accepts))


def _asked_once(accepts: Accepts) -> Accepts:
    """Returns the same, which remembers its answers: sizes meet again together with others."""
    known: dict[tuple[tuple[str, int], ...], bool] = {}

    def remembered(sizes: Sizes) -> bool:
        key = tuple(sorted(sizes.items()))
        if key not in known:
            known[key] = accepts(sizes)
        return known[key]

    return remembered


def _bases(axes: dict[str, bool], named: Sizes) -> Iterator[Sizes]:
    """Yields sizes to begin with: those that the plan names, and one size for all others."""
    if not axes:
        yield {}
        return
    others = [name for name, is_rows in axes.items() if not is_rows]
    tries = _FIRST_TRIES if others else _FIRST_TRIES[:1]
    for rows in _FIRST_ROWS:
        for size in tries:
            yield {n: named.get(n, size if n in others else rows) for n in axes}
    # Axes without names of their own may be rows as well: of a state, say.
    for size, *chosen in product(tries, *[(False, True)] * min(len(others), _MOST_MIXED)):
        mixed = dict(zip(others, chosen, strict=False))
        if len(set(chosen)) > 1:
            yield {n: named.get(n, size if n in others and not mixed.get(n) else 1) for n in axes}


def _groups(
    axes: dict[str, bool], base: Sizes, accepts: Accepts, give_up: float
) -> list[tuple[list[str], list[int]]]:
    """Returns axes that change together, with the sizes that they may have.

    Most change alone. Those that then take too few sizes (two names for one length) are changed
    together as well.
    """
    usual = {name: ROWS if is_rows else OTHERS for name, is_rows in axes.items()}
    alone = {name: _values([name], base, usual[name], accepts, give_up) for name in axes}
    groups = [([name], alone[name]) for name in axes]
    stuck = [name for name in axes if len(alone[name]) < WANTED]
    if len(stuck) > 1:
        groups.append((stuck, _values(stuck, base, usual[stuck[0]], accepts, give_up)))
    return groups


def _values(
    names: Sequence[str],
    base: Sizes,
    usual: Sequence[int],
    accepts: Accepts,
    give_up: float,
) -> list[int]:
    own = base[names[0]]
    found = [own]
    candidates = [*usual, own + 1, 2 * own, own + own // 2]
    for size in dict.fromkeys(candidates):
        if len(found) >= WANTED and max(found) > WANTED:
            break
        if monotonic() > give_up:
            break
        if size not in found and accepts({**base, **dict.fromkeys(names, size)}):
            found.append(size)
    return sorted(found)


def _first(names: Sequence[str], base: Sizes, sizes: Sequence[int], accepts: Accepts) -> list[int]:
    """Returns the first of some sizes that the model accepts, alone; none where it accepts none."""
    for size in sizes:
        if accepts({**base, **dict.fromkeys(names, size)}):
            return [size]
    return []


def _together(
    base: Sizes, groups: Sequence[tuple[list[str], list[int]]], accepts: Accepts
) -> list[Sizes]:
    """Returns draws in which every axis takes each of its sizes, and axes differ in size."""
    draws: list[Sizes] = []
    most = max((len(values) for _, values in groups), default=1)
    for turn in range(most):
        drawn = dict(base)
        for at, (names, values) in enumerate(groups):
            drawn.update(dict.fromkeys(names, values[(turn + at) % len(values)]))
        if drawn not in draws and (drawn == base or accepts(drawn)):
            draws.append(drawn)
    for names, values in groups:
        for size in values:
            alone = {**base, **dict.fromkeys(names, size)}
            covered = any(all(draw[name] == size for name in names) for draw in draws)
            if not covered and accepts(alone):
                draws.append(alone)
    return draws or [base]


def _typical(inputs: Sequence[TensorSpec], largest: Sizes, named: Sizes, accepts: Accepts) -> Sizes:
    """Returns sizes to measure at: one row, and of other axes what models are used with."""
    axes = open_axes(inputs)
    is_picture = any(len(spec.shape) == 4 and spec.shape[2:].count(-1) == 2 for spec in inputs)
    for rows in (1, *{largest[name] for name, is_rows in axes.items() if is_rows}):
        for size in _TYPICAL if is_picture else _TYPICAL[1:]:
            sizes = {n: named.get(n, rows if is_rows else size) for n, is_rows in axes.items()}
            if accepts(sizes):
                return sizes
    return {name: named.get(name, size) for name, size in largest.items()}
