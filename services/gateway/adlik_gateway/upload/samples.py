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
from adlik_common.samples import Layout, arrange, check_labels, labels_name, layout_of
from adlik_common.tensors import TensorSpec
from numpy.lib import format as npy

# What zipfile raises of broken bytes, RuntimeError of an archive with a password; and numpy of a
# header that it can't parse.
_UNREADABLE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, ValueError, EOFError, OSError, RuntimeError,
    tokenize.TokenError, SyntaxError, TypeError, MemoryError,
)  # fmt: skip


def check_samples(path: Path, inputs: Sequence[TensorSpec], *, max_bytes: int) -> int:
    """Returns the number of runs in an NPZ archive that fits a model.

    Args:
        path: The archive; it is hostile until checked: nothing is unpickled, no size is believed.
        inputs: What the model takes.
        max_bytes: Most bytes that the arrays may have when unpacked.

    Raises:
        InvalidSamples: The archive, an array's name, datatype or shape, or a value (NaN, Inf)
            does not fit.
    """
    specs = {spec.name: spec for spec in inputs}
    labels = labels_name(inputs)
    layouts: dict[str, Layout] = {}
    classes: np.ndarray | None = None
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > max_bytes:
                raise InvalidSamples(f"The samples unpack to more than {max_bytes} bytes.")
            for entry in archive.infolist():
                name = entry.filename.removesuffix(".npy")
                with archive.open(entry) as file:
                    array = _read(name, file, entry.file_size)
                if name == labels:
                    classes = array
                else:
                    layouts[name] = _check(name, array, specs)
    except _UNREADABLE as error:
        raise InvalidSamples(f"The samples are no readable .npz archive: {error}.") from error
    count, layouts = arrange(layouts, inputs)
    if classes is not None:
        check_labels(classes, count, layouts)
    return count


def _read(name: str, file: IO[bytes], size: int) -> np.ndarray:
    version = npy.read_magic(file)
    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = header(file)  # no check depends on the order in memory
    size_bytes = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or min(shape, default=0) < 0 or size_bytes > size:
        raise InvalidSamples(f"The array '{name}' has dtype {dtype} and shape {list(shape)}.")
    data = np.frombuffer(file.read(size_bytes), dtype)
    return data.reshape(shape)


def _check(name: str, array: np.ndarray, specs: dict[str, TensorSpec]) -> Layout:
    spec = specs.get(name)
    if spec is None:
        raise InvalidSamples(f"The samples hold '{name}'; the model takes {sorted(specs)}.")
    layout = layout_of(spec, array.dtype, array.shape)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int(np.size(array) - np.isfinite(array).sum())
        raise InvalidSamples(
            f"'{name}' holds {bad} values that are NaN or infinite.",
            cure="Check the preprocessing that made the samples.",
        )
    return layout
