"""How weights lie in memory: panels of columns, k by k, one 32-bit word a column."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from adlik_kernels.codegen.isa import GROUP
from adlik_kernels.operators.operands import aligned_empty


def pack_weights(w: NDArray[Any], width: int, dtype: str) -> NDArray[np.uint32]:
    """Returns weights as [panels, words of k, width] 32-bit words, padded with zeros.

    Args:
        w: [depth, columns]; float32 for "fp32", uint16 bits for "bf16", int8 for "int8".
        width: Columns of one panel.
        dtype: One of `isa.DTYPES`.
    """
    depth, columns = w.shape
    group = GROUP[dtype]
    words, panels = -(-depth // group), -(-columns // width)
    packed = aligned_empty((panels, words, width), np.uint32)
    elements = packed.view(w.dtype).reshape(panels, words, width, group)
    if depth % group or columns % width:
        elements[...] = 0
    for panel in range(panels):
        part = w[:, panel * width : (panel + 1) * width]
        used = part.shape[1]
        whole = depth // group
        view = part[: whole * group].reshape(whole, group, used)
        elements[panel, :whole, :used] = view.transpose(0, 2, 1)
        for late in range(depth - whole * group):
            elements[panel, whole, :used, late] = part[whole * group + late]
    return packed


def pack_groups(w: NDArray[Any], width: int, dtype: str, groups: int = 1) -> NDArray[np.uint32]:
    """Returns the packed weights of several products of one shape, one behind the other.

    Args:
        w: [depth, columns of all groups].
        width: Columns of one panel; none has columns of two groups.
        dtype: One of `isa.DTYPES`.
        groups: How many products.
    """
    if groups == 1:
        return pack_weights(w, width, dtype)
    parts = [pack_weights(part, width, dtype) for part in np.split(w, groups, axis=1)]
    packed = aligned_empty((groups * len(parts[0]), *parts[0].shape[1:]), np.uint32)
    return np.concatenate(parts, out=packed)


def pad_columns(values: NDArray[Any] | float, columns: int) -> NDArray[np.float32]:
    """Returns per-column float32 values followed by zeros, so that whole vectors may be loaded.

    Args:
        values: [columns], or one value for all.
        columns: Columns of the result.
    """
    padded = aligned_empty(columns + 256, np.float32)
    padded[:columns] = values
    padded[columns:] = 0
    return padded


def to_bf16(x: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Returns the bits of bfloat16 numbers, rounded to nearest even; NaN stays NaN.

    Args:
        x: float32 of any shape.
    """
    bits = np.ascontiguousarray(x).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    quiet = (bits >> 16) | 0x40
    return np.where(np.isnan(x), quiet, rounded).astype(np.uint16)


def from_bf16(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Returns bfloat16 bits as float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
