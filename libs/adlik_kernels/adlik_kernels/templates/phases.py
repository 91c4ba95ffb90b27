"""What transposed convolutions compute, and the direct ones that each of them consists of.

A transposed convolution with steps of s is s x s direct ones with steps of 1, one for each phase of
a result's row and column (Shi et al., "Is the deconvolution layer the same as a convolutional
layer?", 2016). A phase sees every s-th tap of the window and makes every s-th pixel.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from adlik_kernels.errors import InvalidOperand

STEPS = range(1, 5)
"""Steps that there is code for: each pair of phases is written out."""


@dataclass(frozen=True, slots=True)
class Phase:
    """The pixels of one axis that see the same taps of the window.

    Attributes:
        first_tap: The first tap that it sees; the others follow a step apart.
        taps: How many they are; 0 where the window is shorter than the step.
        first: Number of x beside the last tap for the first pixel.
        count: Pixels.
        first_pixel: The first pixel; the others follow a step apart.
    """

    first_tap: int
    taps: int
    first: int
    count: int
    first_pixel: int


@dataclass(frozen=True, slots=True)
class Transposed2d:
    """activation(transposed conv(x, w) + bias) on channels-last float arrays.

    Attributes:
        height: Rows of the input.
        width: Columns of the input.
        channels: Channels of the input.
        filters: Channels of the result.
        kernel: Rows and columns of the window.
        stride: Rows and columns between the windows that two pixels of the input are spread over.
        padding: Rows and columns cut off on each side of the result.
        output_padding: Rows and columns more at the result's end.
        border: Zero rows and columns on each side of x in memory.
        out_border: Rows and columns on each side of the result that are not written.
        bias: Whether a bias of shape [filters] is added.
        activation: One of `workload.ACTIVATION_NAMES`, or "".
    """

    height: int
    width: int
    channels: int
    filters: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    output_padding: tuple[int, int] = (0, 0)
    border: tuple[int, int] | None = None
    out_border: int = 0
    bias: bool = False
    activation: str = ""

    def __post_init__(self) -> None:
        sizes = (self.height, self.width, self.channels, self.filters, *self.kernel)
        if not set(self.stride) <= set(STEPS):
            raise InvalidOperand(f"The steps {self.stride} are not from 1 to {STEPS[-1]}.")
        more = zip(self.output_padding, self.stride, strict=True)
        if min(self.padding) < 0 or any(not 0 <= n < step for n, step in more):
            raise InvalidOperand(
                "The padding is no negative number, and that of the output less than a step."
            )
        if min(sizes) < 1 or min(self.result) < 1:
            raise InvalidOperand(f"{self} has no result.", cure="Is the padding too large?")
        if any(have < need for have, need in zip(self.around, self.needed, strict=True)):
            raise InvalidOperand(f"The border {self.border} is smaller than {self.needed}.")

    dtype = "fp32"
    output = "float32"
    residual = False
    residual_dtype = "float32"
    rounded = False

    @property
    def result(self) -> tuple[int, int]:
        """Rows and columns of the result."""
        down, across = (
            (size - 1) * step - 2 * cut + window + more
            for size, step, cut, window, more in zip(
                (self.height, self.width),
                self.stride,
                self.padding,
                self.kernel,
                self.output_padding,
                strict=True,
            )
        )
        return down, across

    @property
    def needed(self) -> tuple[int, int]:
        """Rows and columns of zeros around x that some windows see."""
        down, across = (
            max(
                max(phase.taps - 1 - phase.first, phase.first + phase.count - size, 0)
                for phase in self.phases(axis)
            )
            for axis, size in enumerate((self.height, self.width))
        )
        return down, across

    @property
    def around(self) -> tuple[int, int]:
        """Rows and columns on each side of x in memory."""
        return self.needed if self.border is None else self.border

    @property
    def operations(self) -> int:
        """Multiplications and additions for one picture, those with zeros around it among them."""
        down, across = (sum(p.taps * p.count for p in self.phases(axis)) for axis in (0, 1))
        return 2 * down * across * self.channels * self.filters

    def phases(self, axis: int) -> list[Phase]:
        """Returns the phases of the rows (0) or columns (1) that the result has."""
        step, cut, window = self.stride[axis], self.padding[axis], self.kernel[axis]
        found = []
        for tap in range(step):
            first = -(-(cut - tap) // step)
            count = (self.result[axis] - 1 + cut - tap) // step - first + 1
            taps = max(0, -(-(window - tap) // step))
            if count > 0:
                found.append(Phase(tap, taps, first, count, first * step + tap - cut))
        return found


def phase_pairs(workload: Transposed2d) -> list[tuple[Phase, Phase]]:
    """Returns the direct convolutions that make a transposed one, in the order of their filters."""
    return list(itertools.product(workload.phases(0), workload.phases(1)))


def phase_filters(w: NDArray[Any], workload: Transposed2d, pair: tuple[Phase, Phase]) -> Any:
    """Returns a phase's filters as a product's matrix, its window's rows first along k.

    Args:
        w: [channels, filters, rows, columns].
        workload: What is computed.
        pair: The phase down and across.
    """
    (down, across), (below, beside) = pair, workload.stride
    part = w[:, :, down.first_tap :: below, across.first_tap :: beside]
    part = part[:, :, : down.taps, : across.taps]
    # The last tap of a phase meets the first number of x.
    return part[:, :, ::-1, ::-1].transpose(2, 3, 0, 1).reshape(-1, w.shape[1])
