"""Plain references of what kernels compute, in float64 and numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adlik_kernels.workload import BLOCK, Sides, four_sides


def activate(name: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Applies an activation in float64, as the plain reference of the fused ones.

    Args:
        name: One of `ACTIVATION_NAMES`, or "".
        x: Any shape.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        sigmoid = 1.0 / (1.0 + np.exp(-x))
        choices: dict[str, Any] = {
            "": lambda: x,
            "relu": lambda: np.maximum(x, 0.0),
            "relu6": lambda: np.minimum(np.maximum(x, 0.0), 6.0),
            "sigmoid": lambda: sigmoid,
            "tanh": lambda: np.tanh(x),
            "silu": lambda: x * sigmoid,
            "hardswish": lambda: x * np.minimum(np.maximum(x + 3.0, 0.0), 6.0) / 6.0,
            "gelu": lambda: 0.5 * x * (1.0 + _erf(x / math.sqrt(2.0))),
        }
        result: NDArray[np.float64] = choices[name]()
    return result


def dense_reference(
    x: NDArray[Any],
    w: NDArray[Any],
    bias: NDArray[Any] | None = None,
    residual: NDArray[Any] | None = None,
    activation: str = "",
) -> NDArray[np.float64]:
    """Returns activation(x @ w + bias + residual) in float64.

    Args:
        x: [rows, depth].
        w: [depth, columns].
        bias: [columns].
        residual: [rows, columns].
        activation: One of `ACTIVATION_NAMES`, or "".
    """
    with np.errstate(invalid="ignore", over="ignore"):
        total = x.astype(np.float64) @ w.astype(np.float64)
        if bias is not None:
            total = total + bias
        if residual is not None:
            total = total + residual
    return activate(activation, total)


def _erf(x: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = np.vectorize(math.erf, otypes=[np.float64])(x)
    return result


def conv2d_reference(
    x: NDArray[Any],
    w: NDArray[Any],
    stride: tuple[int, int] = (1, 1),
    padding: Sides = (0, 0),
    groups: int = 1,
    *,
    dilation: tuple[int, int] = (1, 1),
) -> NDArray[np.float64]:
    """Returns the plain convolution in float64.

    Args:
        x: [batch, height, width, channels].
        w: [filters, channels / groups, rows, columns].
        stride: Steps of the window.
        padding: Zero rows and columns around x.
        groups: Groups of channels.
        dilation: Pixels from one row and column of the window to the next.
    """
    (down, across), (rows, columns) = stride, w.shape[2:]
    above, left, below, right = four_sides(padding)
    x = np.pad(x.astype(np.float64), ((0, 0), (above, below), (left, right), (0, 0)))
    height = (x.shape[1] - dilation[0] * (rows - 1) - 1) // down + 1
    width = (x.shape[2] - dilation[1] * (columns - 1) - 1) // across + 1
    parts = []
    for part, weights in zip(
        np.split(x, groups, axis=3), np.split(w.astype(np.float64), groups), strict=True
    ):
        total = np.zeros((x.shape[0], height, width, weights.shape[0]))
        for row in range(rows):
            for column in range(columns):
                y, z = row * dilation[0], column * dilation[1]
                below, right = y + down * (height - 1) + 1, z + across * (width - 1) + 1
                seen = part[:, y:below:down, z:right:across]
                total += seen @ weights[:, :, row, column].T
        parts.append(total)
    return np.concatenate(parts, axis=3)


def blocked_reference(x: NDArray[Any]) -> NDArray[Any]:
    """Returns pictures in blocks of 16 channels.

    Args:
        x: [batch, height, width, channels] of any type; channels are a multiple of 16.

    Returns:
        [batch, channels / 16, height, width, 16], contiguous.
    """
    batch, height, width, channels = x.shape
    blocks = x.reshape(batch, height, width, channels // BLOCK, BLOCK)
    return np.ascontiguousarray(blocks.transpose(0, 3, 1, 2, 4))


def unblocked_reference(x: NDArray[Any]) -> NDArray[Any]:
    """Returns pictures in blocks with channels last.

    Args:
        x: [batch, channels / 16, height, width, 16] of any type.

    Returns:
        [batch, height, width, channels], contiguous.
    """
    batch, blocks, height, width, _ = x.shape
    turned = np.ascontiguousarray(x.transpose(0, 2, 3, 1, 4))
    return turned.reshape(batch, height, width, blocks * BLOCK)


def conv2d_transposed_reference(
    x: NDArray[Any],
    w: NDArray[Any],
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    output_padding: tuple[int, int] = (0, 0),
) -> NDArray[np.float64]:
    """Returns the plain transposed convolution in float64: every number of x spreads a window.

    Args:
        x: [batch, height, width, channels].
        w: [channels, filters, rows, columns].
        stride: Steps from one number's window to the next one's.
        padding: Rows and columns cut off on each side of the result.
        output_padding: Rows and columns more at the result's end.
    """
    (down, across), (rows, columns) = stride, w.shape[2:]
    batch, height, width, _ = x.shape
    tall, wide = (height - 1) * down + rows, (width - 1) * across + columns
    below, right = output_padding
    total = np.zeros((batch, tall + below, wide + right, w.shape[1]))
    for row in range(rows):
        for column in range(columns):
            seen = x.astype(np.float64) @ w[:, :, row, column].astype(np.float64)
            stop = (row + down * (height - 1) + 1, column + across * (width - 1) + 1)
            total[:, row : stop[0] : down, column : stop[1] : across] += seen
    above, left = padding
    return total[:, above : tall + below - above, left : wide + right - left]
