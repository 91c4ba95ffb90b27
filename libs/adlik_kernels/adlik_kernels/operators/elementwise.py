"""Operators that go number by number: activations, sums and products with broadcasting."""

from __future__ import annotations

import functools
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adlik_kernels import configuration
from adlik_kernels.codegen.build import Loaded, load
from adlik_kernels.errors import InvalidOperand
from adlik_kernels.machine.pool import shared
from adlik_kernels.machine.target import Target
from adlik_kernels.operators.operands import address, check, output_of
from adlik_kernels.templates.elementwise import Elementwise, elementwise_module
from adlik_kernels.workload import ACTIVATION_NAMES

WORTH_SHARING = 100_000
"""Numbers above which a call is shared among threads."""

_pack_words = struct.Struct("7q").pack


def apply_activation(
    x: NDArray[np.float32], name: str, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Returns an activation of every number, such as gelu(x).

    Args:
        x: float32 of any shape, contiguous.
        name: One of `workload.ACTIVATION_NAMES`.
        out: Where to write, float32, shaped like x; it must not share memory with x.

    Raises:
        InvalidOperand: An array does not fit, or there is no such activation; nothing was written.
    """
    shape = getattr(x, "shape", ())
    x = check("x", x, np.float32, shape)
    if not name:
        raise InvalidOperand("There is no activation ''.", cure=f"Use one of {ACTIVATION_NAMES}.")
    out = output_of(out, np.float32, shape, (("x", x),))
    _run(Elementwise("", "vector", _known(name)), x, None, out, (1, x.size, 1, 1))
    return out


def add(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    activation: str | None = None,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Returns activation(x + y), where y may be smaller than x.

    Args:
        x: float32 of any shape, contiguous.
        y: float32, contiguous; it broadcasts to x as numpy's arrays do, such as [columns],
            [rows, 1] or [batch, 1, 1, channels], along at most one run of axes between two others.
        activation: One of `workload.ACTIVATION_NAMES`, or None.
        out: Where to write, float32, shaped like x; it must not share memory with x or y.

    Raises:
        InvalidOperand: An array does not fit; nothing was written.
    """
    return _joined("add", x, y, activation, out)


def multiply(
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    activation: str | None = None,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Returns activation(x * y), where y may be smaller than x.

    Args:
        x: float32 of any shape, contiguous.
        y: float32, contiguous; it broadcasts to x as for `add`.
        activation: One of `workload.ACTIVATION_NAMES`, or None.
        out: Where to write, float32, shaped like x; it must not share memory with x or y.

    Raises:
        InvalidOperand: An array does not fit; nothing was written.
    """
    return _joined("multiply", x, y, activation, out)


def broadcast(shape: tuple[int, ...], smaller: tuple[int, ...]) -> tuple[str, int, int, int, int]:
    """Returns how an elementwise kernel meets a smaller operand.

    Neighbouring axes along which the smaller one is whole, or is repeated, are taken together.

    Args:
        shape: Shape of x.
        smaller: Shape of the operand that broadcasts to it.

    Returns:
        What a row of it is (see `Elementwise.second`), rows, columns, repeat and period.

    Raises:
        InvalidOperand: It does not broadcast to x, or along too many axes apart from each other.
    """
    runs = _runs(shape, smaller)
    second, columns, repeat, period, before = "number", 1, 1, 1, 1
    if runs:
        whole, columns = runs.pop()
        second = "vector" if whole else "number"
    if second == "vector" and runs:
        repeat = runs.pop()[1]
    if runs and runs[-1][0]:
        period = runs.pop()[1]
        before = runs.pop()[1] if runs else 1
    elif second == "vector":
        # A vector for all rows: the rows that it is repeated for are all there are.
        repeat, before = 1, repeat
    if runs:
        raise InvalidOperand(
            f"An operand of shape {smaller} is repeated along too many axes of {shape}.",
            cure="Broadcast some of them with numpy.broadcast_to, and copy them.",
        )
    return second, before * period * repeat, columns, repeat, period


def _runs(shape: tuple[int, ...], smaller: tuple[int, ...]) -> list[tuple[bool, int]]:
    """Runs of axes: whether the smaller operand is whole along them, and how many numbers."""
    aligned = (1,) * (len(shape) - len(smaller)) + smaller
    if len(aligned) != len(shape) or any(
        b not in {1, a} for a, b in zip(shape, aligned, strict=True)
    ):
        raise InvalidOperand(f"An operand of shape {smaller} does not broadcast to {shape}.")
    runs: list[tuple[bool, int]] = []
    for size, other in zip(shape, aligned, strict=True):
        whole = other == size
        if size == 1:
            continue
        if runs and runs[-1][0] == whole:
            runs[-1] = (whole, runs[-1][1] * size)
        else:
            runs.append((whole, size))
    return runs


def _joined(operation: str, x: Any, y: Any, activation: str | None, out: Any) -> NDArray[Any]:
    shape = getattr(x, "shape", ())
    x = check("x", x, np.float32, shape)
    y = check("y", y, np.float32, getattr(y, "shape", ()))
    second, *sizes = broadcast(shape, y.shape)
    result = output_of(out, np.float32, shape, (("x", x), ("y", y)))
    workload = Elementwise(operation, second, _known(activation or ""))
    _run(workload, x, y, result, tuple(sizes))
    return result


@functools.cache
def elementwise_kernel(workload: Elementwise, target: Target) -> Loaded:
    """Returns an elementwise kernel, compiling it if no cache has it."""
    return load("elementwise", workload, lambda: elementwise_module(workload, target.lanes), target)


def _known(activation: str) -> str:
    if activation and activation not in ACTIVATION_NAMES:
        raise InvalidOperand(
            f"There is no activation {activation!r}.", cure=f"Use one of {ACTIVATION_NAMES}."
        )
    return activation


def _run(
    workload: Elementwise,
    x: NDArray[Any],
    y: NDArray[Any] | None,
    out: NDArray[Any],
    sizes: tuple[int, ...],
) -> None:
    kernel = elementwise_kernel(workload, configuration.target())
    second = 0 if y is None else address(y)
    pool = shared(configuration.threads())
    chunks = pool.chunks if x.size >= WORTH_SHARING else 1
    pool.run(kernel.address, _pack_words(address(x), address(out), second, *sizes), chunks)
