"""Checks pushed samples against the model's signature before anybody computes with them."""

from __future__ import annotations

import lzma
import math
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
from adlik_common.errors import InvalidSamples
from adlik_common.tensors import DATATYPES, TensorSpec
from numpy.lib import format as npy

LABELS = "labels"
# What zipfile raises of broken bytes, RuntimeError of an archive with a password; and numpy of a
# header that it can't parse.
_UNREADABLE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, ValueError, EOFError, OSError, RuntimeError,
    tokenize.TokenError, SyntaxError, TypeError, MemoryError,
)  # fmt: skip


def check_samples(path: Path, inputs: Sequence[TensorSpec], *, max_bytes: int) -> int:
    """Returns the number of samples in an NPZ archive that fits a model.

    Args:
        path: The archive; it is hostile until checked: nothing is unpickled, no size is believed.
        inputs: What the model takes.
        max_bytes: Most bytes that the arrays may have when unpacked.

    Raises:
        InvalidSamples: The archive, an array's name, datatype or shape, or a value (NaN, Inf)
            does not fit.
    """
    specs = {spec.name: spec for spec in inputs}
    counts: dict[str, int] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > max_bytes:
                raise InvalidSamples(f"The samples unpack to more than {max_bytes} bytes.")
            for entry in archive.infolist():
                name = entry.filename.removesuffix(".npy")
                with archive.open(entry) as file:
                    array = _read(name, file, entry.file_size)
                if name == LABELS:
                    _check_labels(array)
                else:
                    _check(name, array, specs)
                counts[name] = len(array)
    except _UNREADABLE as error:
        raise InvalidSamples(f"The samples are no readable .npz archive: {error}.") from error
    return _count(counts, specs)


def _read(name: str, file: IO[bytes], size: int) -> np.ndarray:
    version = npy.read_magic(file)
    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = header(file)  # no check depends on the order in memory
    size_bytes = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or not shape or min(shape) < 0 or size_bytes > size:
        raise InvalidSamples(f"The array '{name}' has dtype {dtype} and shape {list(shape)}.")
    data = np.frombuffer(file.read(size_bytes), dtype)
    return data.reshape(shape)


def _check(name: str, array: np.ndarray, specs: dict[str, TensorSpec]) -> None:
    spec = specs.get(name)
    if spec is None:
        raise InvalidSamples(f"The samples hold '{name}'; the model takes {sorted(specs)}.")
    if array.dtype != DATATYPES.get(spec.datatype):
        raise InvalidSamples(
            f"'{name}' has dtype {array.dtype}; the model takes {spec.datatype}.",
            cure="Convert the array before saving it.",
        )
    wanted, found = spec.shape[1:], array.shape[1:]
    if len(wanted) != len(found) or any(
        w not in (-1, f) for w, f in zip(wanted, found, strict=True)
    ):
        raise InvalidSamples(
            f"'{name}' has samples of shape {list(found)}; the model takes {list(wanted)}.",
            cure="The first axis counts the samples; the others are the model's.",
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int(np.size(array) - np.isfinite(array).sum())
        raise InvalidSamples(
            f"'{name}' holds {bad} values that are NaN or infinite.",
            cure="Check the preprocessing that made the samples.",
        )


def _check_labels(array: np.ndarray) -> None:
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InvalidSamples(
            f"'{LABELS}' has dtype {array.dtype} and shape {list(array.shape)}.",
            cure="Give one whole number per sample: the index of its class.",
        )


def _count(counts: dict[str, int], specs: dict[str, TensorSpec]) -> int:
    missing = sorted(set(specs) - set(counts))
    if missing:
        raise InvalidSamples(f"The samples lack the model's inputs {missing}.")
    if len(set(counts.values())) != 1 or not next(iter(counts.values())):
        raise InvalidSamples(f"The arrays have different numbers of samples: {counts}.")
    return next(iter(counts.values()))
