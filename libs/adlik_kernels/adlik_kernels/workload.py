"""What is computed: workloads, their checks of fitness, and their plain float64 references."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Protocol

from adlik_kernels.errors import InvalidOperand

ACTIVATION_NAMES = ("relu", "relu6", "sigmoid", "tanh", "silu", "hardswish", "gelu")
"""Activations that operators fuse."""

OUTPUTS = {"fp32": ("float32",), "bf16": ("float32",), "int8": ("float32", "uint8")}
"""Output types of a matrix product, by its element type."""


class Fused(Protocol):
    """What the end of a micro-kernel needs to know of its workload."""

    @property
    def dtype(self) -> str:
        """Element type of the operands."""

    @property
    def output(self) -> str:
        """Element type of the result."""

    @property
    def bias(self) -> bool:
        """Whether a bias is added."""

    @property
    def residual(self) -> bool:
        """Whether an array like the result is added."""

    @property
    def residual_dtype(self) -> str:
        """Element type of that array."""

    @property
    def rounded(self) -> bool:
        """Whether sums are rounded to levels of their own before that array is added."""

    @property
    def activation(self) -> str:
        """Name of the activation, or ""."""


@dataclass(frozen=True, slots=True)
class Dense:
    """activation(x @ w + bias + residual), the matrix product with its fused end.

    Attributes:
        rows: Rows of x, or 0 for a kernel that takes any number of them.
        columns: Columns of w and of the result.
        depth: Columns of x and rows of w.
        dtype: "fp32", "bf16" or "int8" (unsigned x, signed w, 32-bit sums).
        output: "float32", or "uint8" for an int8 product that is requantized.
        bias: Whether a bias of shape [columns] is added.
        residual: Whether an array shaped like the result is added before the activation.
        activation: One of `ACTIVATION_NAMES`, or "".
        residual_dtype: "float32", or "uint8" for an int8 product with a quantized residual.
        rounded: Whether sums are rounded to levels of their own before the residual is added.
    """

    rows: int
    columns: int
    depth: int
    dtype: str = "fp32"
    output: str = "float32"
    bias: bool = False
    residual: bool = False
    activation: str = ""
    residual_dtype: str = "float32"
    rounded: bool = False

    def __post_init__(self) -> None:
        if self.rows < 0 or self.columns < 1 or self.depth < 1:
            raise InvalidOperand(
                f"A product of {self.rows}x{self.depth} and {self.depth}x{self.columns} is empty.",
                cure="Give at least one row, column and element along the depth.",
            )
        check_ends(self)

    @property
    def operations(self) -> int:
        """Multiplications and additions of one call."""
        return 2 * max(self.rows, 1) * self.columns * self.depth

    @property
    def run(self) -> int:
        """Numbers along k that lie one behind the other in x: all of them."""
        return self.depth

    def for_rows(self, rows: int) -> Dense:
        """Returns the same product for a number of rows; 0 for any."""
        return Dense(**{**asdict(self), "rows": rows})

    @property
    def key(self) -> str:
        """The name under which its schedules are recorded; fused ends do not matter."""
        return f"dense-{self.dtype}-{self.rows}x{self.columns}x{self.depth}"


def check_ends(workload: Fused) -> None:
    """Refuses a fused end that no micro-kernel has.

    Raises:
        InvalidOperand: There is no such activation, or the types do not go together.
    """
    if workload.activation and workload.activation not in ACTIVATION_NAMES:
        raise InvalidOperand(
            f"There is no activation {workload.activation!r}.",
            cure=f"Use one of {ACTIVATION_NAMES}, or none.",
        )
    if workload.dtype not in OUTPUTS or workload.output not in OUTPUTS[workload.dtype]:
        raise InvalidOperand(
            f"There is no {workload.dtype} product with {workload.output} results.",
            cure=f"Use one of {OUTPUTS}.",
        )
    if workload.residual_dtype not in OUTPUTS[workload.dtype]:
        raise InvalidOperand(
            f"A {workload.dtype} product cannot add {workload.residual_dtype} numbers.",
            cure=f"Use one of {OUTPUTS[workload.dtype]}.",
        )
    if workload.rounded and not (workload.dtype == "int8" and workload.residual):
        raise InvalidOperand("Only the sums of int8 products are rounded before a residual.")


LONG_ROW = 28
"""Pixels in a row that tiles of any size fill well."""


BLOCK = 16
"""Channels of one block of a blocked layout."""

LAYOUTS = ("last", "blocked")
"""Where channels lie: last, or last in blocks of `BLOCK` and the blocks before the rows."""

Sides = tuple[int, int] | tuple[int, int, int, int]
"""Rows and columns on opposite sides alike, or those above, left, below and right."""


def four_sides(sides: Sides) -> tuple[int, int, int, int]:
    """Returns rows or columns above, left, below and right."""
    return sides if len(sides) == 4 else (*sides, *sides)


@dataclass(frozen=True, slots=True)
class Conv2d:
    """activation(conv(x, w) + bias + residual) on arrays with room for padding.

    x has a border of at least the padding, which is zero already; the result and the residual may
    have borders of their own, which are left alone.

    Attributes:
        height: Rows of the input without padding.
        width: Columns of the input without padding.
        channels: Channels of the input.
        filters: Channels of the result.
        kernel: Rows and columns of the window.
        stride: Steps of the window.
        padding: Zero rows and columns around the input: (above and below, left and right), or
            (above, left, below, right).
        border: Rows and columns around x in memory, alike; the padding itself if not given.
        out_border: Rows and columns on each side of the result that are not written.
        residual_border: The same of the residual.
        dtype: "fp32", "bf16" or "int8"; channels fill whole 32-bit words.
        output: "float32", or "uint8" for int8.
        bias: Whether a bias of shape [filters] is added.
        residual: Whether an array like the result is added.
        activation: One of `ACTIVATION_NAMES`, or "".
        residual_dtype: "float32", or "uint8" for an int8 convolution with a quantized residual.
        rounded: Whether sums are rounded to levels of their own before the residual is added.
        dilation: Pixels from one row and column of the window to the next.
        groups: Groups of channels; filters see the channels of their group alone.
        in_layout: "last" for [batch, height, width, channels], or "blocked" for
            [batch, channels / 16, height, width, 16].
        out_layout: The same of the result and the residual.
    """

    height: int
    width: int
    channels: int
    filters: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: Sides = (0, 0)
    border: Sides | None = None
    out_border: int = 0
    residual_border: int = 0
    dtype: str = "fp32"
    output: str = "float32"
    bias: bool = False
    residual: bool = False
    activation: str = ""
    residual_dtype: str = "float32"
    rounded: bool = False
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    in_layout: str = "last"
    out_layout: str = "last"

    def __post_init__(self) -> None:
        check_ends(self)
        if len(self.padding) not in {2, 4}:
            raise InvalidOperand(
                f"The padding {self.padding} has neither two numbers nor four.",
                cure="Give (above and below, left and right) or (above, left, below, right).",
            )
        sizes = (self.height, self.width, self.channels, self.filters)
        window = (*self.kernel, *self.stride, *self.dilation)
        if min(*sizes, *window) < 1 or min(self.padding) < 0 or min(self.out_size) < 1:
            raise InvalidOperand(f"{self} has no result.", cure="Is the window too large?")
        if any(held < pad for held, pad in zip(self.borders, self.pads, strict=True)):
            raise InvalidOperand(f"The border {self.border} is smaller than the padding.")
        if self.groups < 1 or self.channels % self.groups or self.filters % self.groups:
            raise InvalidOperand(
                f"{self.channels} channels and {self.filters} filters make no {self.groups} groups."
            )
        self._check_channels()

    def _check_channels(self) -> None:
        word = {"fp32": 1, "bf16": 2, "int8": 4}[self.dtype]
        sides = (
            ("channels", self.in_layout, self.channels // self.groups, word),
            ("filters", self.out_layout, self.columns, 1),
        )
        for name, layout, count, least in sides:
            if layout not in LAYOUTS:
                raise InvalidOperand(f"There is no layout {layout!r}.", cure=f"Use {LAYOUTS}.")
            unit = BLOCK if layout == "blocked" else least
            if count % unit:
                raise InvalidOperand(
                    f"A group of this {self.dtype} convolution cannot have {count} {name}.",
                    cure=f"Pad the {name} of each group to a multiple of {unit}.",
                )

    @property
    def pads(self) -> tuple[int, int, int, int]:
        """Zero rows and columns above, left, below and right."""
        return four_sides(self.padding)

    @property
    def borders(self) -> tuple[int, int, int, int]:
        """Rows and columns above, left of, below and right of x in memory."""
        return four_sides(self.padding if self.border is None else self.border)

    @property
    def around(self) -> tuple[int, int]:
        """Rows above and columns left of x in memory."""
        return self.borders[:2]

    @property
    def held_height(self) -> int:
        """Rows of x in memory."""
        return self.height + self.borders[0] + self.borders[2]

    @property
    def held_width(self) -> int:
        """Columns of x in memory."""
        return self.width + self.borders[1] + self.borders[3]

    @property
    def out_size(self) -> tuple[int, int]:
        """Rows and columns of the result."""
        above, left, below, right = self.pads
        seen = (self.height + above + below, self.width + left + right)
        rows, columns = (
            (size - step * (window - 1) - 1) // stride + 1
            for size, step, window, stride in zip(
                seen, self.dilation, self.kernel, self.stride, strict=True
            )
        )
        return rows, columns

    @property
    def out_height(self) -> int:
        """Rows of the result."""
        return self.out_size[0]

    @property
    def out_width(self) -> int:
        """Columns of the result."""
        return self.out_size[1]

    @property
    def rows(self) -> int:
        """Pixels that lie one behind the other: the rows of the product that this is."""
        return self.flattened().out_width

    @property
    def columns(self) -> int:
        """Filters of one group: the columns of that product."""
        return self.filters // self.groups

    @property
    def depth(self) -> int:
        """Numbers of a window: the depth of that product."""
        return self.kernel[0] * self.kernel[1] * self.channels // self.groups

    @property
    def run(self) -> int:
        """Numbers along k that lie one behind the other in x: a row of a window, or less of it."""
        blocked = self.in_layout == "blocked"
        whole = self.dilation[1] == 1 and (blocked or self.groups == 1)
        together = BLOCK if blocked else self.channels // self.groups
        return (self.kernel[1] if whole else 1) * together

    @property
    def operations(self) -> int:
        """Multiplications and additions for one picture."""
        return 2 * self.out_height * self.out_width * self.filters * self.depth

    @property
    def key(self) -> str:
        """The name under which its schedules are recorded; fused ends and borders do not matter."""
        size = f"{self.height}x{self.width}x{self.channels}"
        window = f"{self.filters}x{self.kernel[0]}x{self.kernel[1]}"
        pads = self.pads[:2] if self.pads[:2] == self.pads[2:] else self.pads
        steps = "x".join(str(n) for n in (*self.stride, *pads))
        apart = "" if self.dilation == (1, 1) else "-d{}x{}".format(*self.dilation)
        groups = "" if self.groups == 1 else f"-g{self.groups}"
        sides = f"-{self.in_layout[0]}{self.out_layout[0]}".replace("-ll", "")
        return f"conv-{self.dtype}-{size}-{window}-{steps}{apart}{groups}{sides}"

    def flattened(self) -> Conv2d:
        """Returns the same computation with short rows joined, if it is a plain product.

        Rows stay as many as they can: they are what threads share.
        """
        plain = (self.kernel, self.stride) == ((1, 1), (1, 1))
        if not plain or any(self.borders) or self.out_border or self.residual_border:
            return self
        joined = next(n for n in range(1, self.height + 1) if self._joins(n))
        return replace(self, height=self.height // joined, width=self.width * joined)

    def _joins(self, rows: int) -> bool:
        """Whether so many rows make one that whole tiles fill well."""
        whole = self.height % rows == 0
        return whole and (rows * self.width >= LONG_ROW or rows == self.height)


Workload = Dense | Conv2d
"""What schedules are searched for."""
