"""Tensors on the wire: datatypes of the protocol, their numpy types, and the check of a spec."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from adlik_common.errors import InvalidTensor

DATATYPES: dict[str, np.dtype] = {
    "BOOL": np.dtype(np.bool_),
    "UINT8": np.dtype(np.uint8),
    "UINT16": np.dtype(np.uint16),
    "UINT32": np.dtype(np.uint32),
    "UINT64": np.dtype(np.uint64),
    "INT8": np.dtype(np.int8),
    "INT16": np.dtype(np.int16),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "FP16": np.dtype(np.float16),
    "FP32": np.dtype(np.float32),
    "FP64": np.dtype(np.float64),
    "BYTES": np.dtype(np.object_),
}
"""Open Inference Protocol datatype to numpy dtype."""

_NAMES = {dtype: name for name, dtype in DATATYPES.items()}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor's name, Open Inference Protocol datatype and shape.

    Attributes:
        name: Its name.
        datatype: Open Inference Protocol name.
        shape: Sizes; -1: any size.
        axes: The model's own names of its axes, "" where it gives none; empty: of no axis.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]
    axes: tuple[str, ...] = field(default=(), compare=False)


def axis_name(given: str) -> str:
    """Returns the name of an open axis, "" where a model only says that it is open."""
    return "" if given.strip("?*-_ ") in ("", "unk", "None") else given


def datatype_of(dtype: npt.DTypeLike) -> str:
    """Returns the protocol's name of a numpy dtype; raises `InvalidTensor` where it has none."""
    name = _NAMES.get(np.dtype(dtype))
    if name is None:
        raise InvalidTensor(f"The protocol has no datatype for numpy's {np.dtype(dtype)}.")
    return name


def check_tensor(spec: TensorSpec, datatype: str, shape: Sequence[int]) -> None:
    """Raises `InvalidTensor` unless a tensor of this datatype and shape fits the spec."""
    if datatype != spec.datatype:
        raise InvalidTensor(
            f"Input '{spec.name}' has datatype {datatype}; the model takes {spec.datatype}.",
            cure=f"Convert the data to {spec.datatype}.",
            tensor=spec.name,
        )
    fits = len(shape) == len(spec.shape) and all(
        got >= 0 and want in (-1, got) for want, got in zip(spec.shape, shape, strict=True)
    )
    if not fits:
        raise InvalidTensor(
            f"Input '{spec.name}' has shape {list(shape)}; the model takes {list(spec.shape)}.",
            cure="Reshape the data; -1 stands for any size.",
            tensor=spec.name,
        )
