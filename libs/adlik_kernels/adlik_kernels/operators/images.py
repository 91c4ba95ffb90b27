"""From a picture to a model's input in one pass: resize, normalise, reorder, quantize."""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adlik_kernels import configuration
from adlik_kernels.errors import InvalidOperand
from adlik_kernels.machine.pool import shared
from adlik_kernels.operators.operands import address, aligned_empty, check, check_output

_pack_words = struct.Struct("19q").pack
WORTH_SHARING = 20_000
"""Pixels of a result above which a call is shared among threads."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a picture lies within a model's input.

    Attributes:
        top: Rows above it.
        left: Columns left of it.
        height: Its rows after resizing.
        width: Its columns after resizing.
    """

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class ImageInput:
    """Turns uint8 pictures into one model's input; callable from any thread.

    The result is (picture / 255 - mean) / std, resized bilinearly with half-pixel centres and no
    antialiasing, as OpenCV and ONNX do, in channels-first order.

    Attributes:
        height: Rows of the input.
        width: Columns of the input.
        mean: Mean of each channel of the result, in 0..1.
        std: Standard deviation of each channel.
        swap: Whether to turn the channels round, from BGR to RGB or back.
        letterbox: Whether to keep the picture's proportions and fill what is left.
        fill: Level, 0..255, of what is left.
        scale: Scale of a uint8 result, real = scale * (level - zero); 0 for float32.
        zero: Level of a uint8 result that stands for 0.
    """

    height: int
    width: int
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    swap: bool = False
    letterbox: bool = False
    fill: int = 114
    scale: float = 0.0
    zero: int = 0
    _affine: NDArray[np.float32] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1 or min(self.std) <= 0 or self.scale < 0:
            raise InvalidOperand(
                "An image input has rows, columns, positive standard deviations and no negative "
                "scale."
            )
        std, mean = np.array(self.std), np.array(self.mean)
        slope, shift = 1.0 / (255.0 * std), -mean / std
        if self.scale:
            slope, shift = slope / self.scale, shift / self.scale + self.zero
        affine = np.concatenate([slope, shift]).astype(np.float32)
        object.__setattr__(self, "_affine", affine)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of the result."""
        return np.dtype(np.uint8 if self.scale else np.float32)

    def placement(self, height: int, width: int) -> Placement:
        """Returns where a picture of a size lies within the input, to map boxes back.

        Args:
            height: Rows of the picture.
            width: Columns of the picture.
        """
        if not self.letterbox:
            return Placement(0, 0, self.height, self.width)
        ratio = min(self.height / height, self.width / width)
        rows = max(min(round(height * ratio), self.height), 1)
        columns = max(min(round(width * ratio), self.width), 1)
        return Placement((self.height - rows) // 2, (self.width - columns) // 2, rows, columns)

    def __call__(
        self, image: NDArray[np.uint8], *, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Prepares one picture.

        Args:
            image: uint8 [rows, columns, 3], contiguous, or cut out of such a picture.
            out: Where to write, [3, height, width]; it must not share memory with the picture.

        Returns:
            [3, height, width], float32, or uint8 if the input is quantized.

        Raises:
            InvalidOperand: An array does not fit; nothing was written.
        """
        image = _check_picture(image)
        shape = (3, self.height, self.width)
        if out is None:
            out = np.empty(shape, self.dtype)
        else:
            out = check_output(out, self.dtype, shape, (("image", image),))
        rows, columns = image.shape[:2]
        placed = self.placement(rows, columns)
        vertical, horizontal = _taps(rows, placed.height), _taps(columns, placed.width)
        threads = configuration.threads()
        chunks = threads if self.height * self.width >= WORTH_SHARING else 1
        scratch = aligned_empty((chunks, columns * 3), np.float32)
        words = _pack_words(
            *(address(image), rows, columns),
            *(address(vertical.places), address(vertical.weights)),
            *(address(horizontal.places), address(horizontal.weights)),
            *(address(self._affine), address(out), address(scratch)),
            *(self.height, self.width),
            *(placed.top, placed.left, placed.height, placed.width),
            *(int(self.swap), self.fill, image.strides[0]),
        )
        shared(threads).run(_kernel(quantized=bool(self.scale)), words, chunks)
        return out


def _check_picture(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns a picture whose rows are contiguous each; they may lie apart, as in a cut."""
    if isinstance(image, np.ndarray) and image.ndim == 3 and image.size:
        pitch, *within = image.strides
        if within == [3, 1] and pitch >= image.shape[1] * 3:
            check("image", image[:1], np.uint8, (1, None, 3))
            return image
    return check("image", image, np.uint8, (None, None, 3))


@dataclass(frozen=True, slots=True)
class _Taps:
    """For each place of a resized axis: the first of two source places, the second's weight."""

    places: NDArray[np.int64]
    weights: NDArray[np.float32]


@functools.lru_cache(maxsize=256)
def _taps(source: int, size: int) -> _Taps:
    centre = np.clip((np.arange(size) + 0.5) * source / size - 0.5, 0, source - 1)
    first = np.minimum(np.floor(centre).astype(np.int64), max(source - 2, 0))
    return _Taps(first, (centre - first).astype(np.float32))


@functools.cache
def _kernel(*, quantized: bool) -> int:
    """The address of the compiled kernel; numba is imported on first use, for it takes a while."""
    from adlik_kernels.codegen.compiled import kernel
    from adlik_kernels.templates import images as imagecode

    return kernel(imagecode.prepare_levels if quantized else imagecode.prepare_floats)


def stack(images: Sequence[NDArray[np.uint8]], prepare: ImageInput) -> NDArray[Any]:
    """Prepares pictures of any sizes as one batch.

    Args:
        images: uint8 pictures, each [rows, columns, 3].
        prepare: What the model takes.

    Returns:
        [pictures, 3, height, width].

    Raises:
        InvalidOperand: There is no picture, or one does not fit.
    """
    if not images:
        raise InvalidOperand("A batch needs a picture.")
    batch = np.empty((len(images), 3, prepare.height, prepare.width), prepare.dtype)
    for image, place in zip(images, batch, strict=True):
        prepare(image, out=place)
    return batch
