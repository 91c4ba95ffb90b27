"""Makes inputs up: values by what the model uses them as, at several scales, always the same."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from adlik_common.tensors import DATATYPES, TensorSpec

from adlik_proof.role import Role

Array = np.ndarray[Any, np.dtype[Any]]

PLAIN = ("normal", "unit")
"""Styles whose numbers are of the size that models are trained on."""
STYLES = (*PLAIN, "large", "small", "flat", "sparse")
"""How floats are made up: normal, 0..1, 30 and 0.01 times normal, of few values, few but large."""
GAPS = "gaps"
"""Normal numbers and NaN among them, for models to which that is ordinary."""
NONFINITE, WIDE = ("nan", "inf", "-inf"), "wide"
"""Styles with one kind of what is no number, and with whole numbers beyond 32 bits."""

_TEXTS = ("", "a", "B", "ja", "weiß nicht", "two words", "0", "-1.5", "日本", "x" * 200)
_SCALES = {"large": 30.0, "small": 0.01}
_REACHES = {"unit": 100, "large": 2**30, "sparse": 1000}
_SPARSE_SHARE, _SPARSE_SCALE, _GAP_SHARE = 0.1, 100.0, 0.2
_RESHAPES = 3


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes inputs of a model up.

    Attributes:
        inputs: What it takes.
        roles: What its inputs mean to it.
        tame: Whole numbers stay 0 or 1 in every style: the model refused others.
        shaping: Which of several ways to make sizes and shapes up.
    """

    inputs: Sequence[TensorSpec]
    roles: Mapping[str, Role]
    tame: bool = False
    shaping: int = 0

    def make(self, sizes: Mapping[str, int], style: str, seed: int) -> dict[str, Array]:
        """Returns one run.

        Args:
            sizes: Of the open axes, by `axis_names`.
            style: One of `STYLES` or `NONFINITE`, `GAPS` or `WIDE`.
            seed: The same seed gives the same numbers.
        """
        return {spec.name: self._array(spec, sizes, style, seed) for spec in self.inputs}

    @property
    def wide_inputs(self) -> list[str]:
        """Inputs of whole numbers of 64 bits that are neither indices nor sizes."""
        return [
            spec.name
            for spec in self.inputs
            if spec.datatype in ("INT64", "UINT64") and self._is_number(spec.name) and not self.tame
        ]

    def _is_number(self, name: str) -> bool:
        role = self.roles.get(name, Role())
        return not (role.is_index or role.is_size)

    def _array(self, spec: TensorSpec, sizes: Mapping[str, int], style: str, seed: int) -> Array:
        random = np.random.default_rng([seed, zlib.crc32(spec.name.encode())])
        names = axis_names(spec)
        shape = tuple(
            sizes[name] if size == -1 else size
            for name, size in zip(names, spec.shape, strict=True)
        )
        role = self.roles.get(spec.name, Role())
        dtype = DATATYPES[spec.datatype]
        if dtype == np.object_:
            return random.choice(np.array([*_TEXTS, *role.texts], np.object_), shape)
        if dtype.kind == "b":
            return random.integers(0, 2, shape).astype(np.bool_)
        if role.is_size:
            return self._sizes(shape, role).astype(dtype)
        if role.is_index:
            return random.integers(0, _bound(role, sizes, is_tame=self.tame), shape).astype(dtype)
        if dtype.kind in "iu":
            return self._whole(random, shape, dtype, role, style)
        return _floats(random, shape, style, role).astype(dtype)

    def _sizes(self, shape: tuple[int, ...], role: Role) -> Array:
        made = np.full(shape, (1, 2, 1)[self.shaping % _RESHAPES], np.int64)
        if role.is_shape and made.size and self.shaping % _RESHAPES != 1:
            made.reshape(-1)[0 if self.shaping % _RESHAPES == 0 else -1] = -1
        return made

    def _whole(
        self,
        random: np.random.Generator,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        role: Role,
        style: str,
    ) -> Array:
        reach = 2**44 if style == WIDE else 2**31 - 1
        lowest, highest = (
            max(int(np.iinfo(dtype).min), -reach),
            min(int(np.iinfo(dtype).max), reach),
        )
        usual = reach if style == WIDE else _REACHES.get(style, 2)
        usual = 2 if self.tame else usual
        low = max(lowest, -usual) if usual > 100 else 0
        made = random.integers(low, min(highest, usual), shape)
        if usual == 2 and len(shape) > 1:
            made[..., :1] = 1  # a mask of nothing leaves only what was rounded away
        known = [int(c) for c in role.constants if c == int(c) and lowest <= c <= highest]
        if known and not self.tame:
            # What a number is compared with or divided by, its multiples and their neighbours.
            near = random.choice(known, shape) * random.integers(0, reach // 2**26, shape)
            near += random.integers(-1, 2, shape)
            fits = (near >= lowest) & (near <= highest)
            made = np.where(fits & (random.random(shape) < 0.5), near, made)
            made = np.where(random.random(shape) < 0.2, random.choice(known, shape), made)
        return np.asarray(made).astype(dtype)


def axis_names(spec: TensorSpec) -> tuple[str, ...]:
    """Returns a name for each axis of an input: its own, or one that no other input shares."""
    given = spec.axes or ("",) * len(spec.shape)
    return tuple(name or f"{spec.name}[{at}]" for at, name in enumerate(given))


def _bound(role: Role, sizes: Mapping[str, int], *, is_tame: bool) -> int:
    """Returns below what an index stays; where nobody knows, below every open size."""
    unknown = 1 if is_tame else min(sizes.values(), default=1)
    known = [sizes.get(bound, 0) if isinstance(bound, str) else bound for bound in role.bounds]
    return max(1, min(size or unknown for size in known))


def _floats(random: np.random.Generator, shape: tuple[int, ...], style: str, role: Role) -> Array:
    if style == "unit":
        made = random.random(shape)
    elif style == "flat":  # borders between classes, zeros of both signs, rows that are equal
        made = random.choice(np.array([0.0, -0.0, 1.0, -1.0, 0.5, *role.constants[:8]]), shape)
    else:
        made = np.asarray(_SCALES.get(style, 1.0) * random.standard_normal(shape))
    if style == "sparse":
        made = np.where(random.random(shape) < _SPARSE_SHARE, _SPARSE_SCALE * made, 0.0)
    elif style == GAPS:
        made = np.where(random.random(shape) < _GAP_SHARE, np.nan, made)
        made.reshape(-1)[:1] = np.nan
    elif style in NONFINITE and made.size:
        # Few, one of them in the last row: what is not touched must stay what it was.
        made.reshape(-1)[[*random.integers(0, made.size, 2), -1]] = float(style)
    return np.asarray(made)
