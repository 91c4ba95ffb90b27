"""The seam between Adlik and the engines: what loads a compiled model, and what runs it."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from adlik_common.errors import EngineFailed, InvalidTensor
from adlik_common.tensors import TensorSpec

Array = np.ndarray[Any, np.dtype[Any]]


class LoadedModel(Protocol):
    """A model in memory.

    Attributes:
        inputs: What it takes.
        outputs: What it gives.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str] = ()) -> dict[str, Array]:
        """Computes outputs; the interpreter's lock is released meanwhile.

        Args:
            inputs: An array per input, of the spec's datatype and a shape that fits it.
            outputs: Names of the outputs that are wanted; empty: all.

        Returns:
            The outputs by name; the arrays belong to the caller. One thread at a time may call.

        Raises:
            InvalidTensor: An input is missing or the model does not take it.
            EngineFailed: The engine could not compute.
        """

    def close(self) -> None:
        """Gives the model's memory back; it can't be run any more."""


class Engine(Protocol):
    """Something that loads and runs compiled models.

    Attributes:
        name: As targets and variants spell it, e.g. "openvino".
        format: Format of the models that it loads: "onnx", "openvino_ir", "tensorrt_plan".
    """

    name: str
    format: str

    def version(self) -> str:
        """Returns the installed version, "" where it is not installed."""

    def unavailable(self) -> str:
        """Returns why it does not run on this machine, "" where it does."""

    def precisions(self) -> tuple[str, ...]:
        """Returns the precisions that this machine computes natively, e.g. ("fp32", "int8")."""

    def load(self, path: Path, *, precision: str = "fp32", threads: int = 0) -> LoadedModel:
        """Loads a model.

        Args:
            path: The file, or the folder of a bundle's files.
            precision: How to compute; one of `precisions`.
            threads: Threads of one run; 0: the engine's choice.

        Raises:
            InvalidModel: The file is no model of this engine's format.
            UnsupportedOperator: The model has an operator that the engine does not know.
            EngineFailed: The engine could not load it for another reason.
        """


def package_version(package: str) -> str:
    """Returns a package's installed version, "" where there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


@cache
def import_fault(package: str) -> str:
    """Returns why a package can't be imported, "" where it can."""
    try:
        import_module(package)
    except ImportError as error:
        return f"{package} can't be imported: {error}"
    return ""


def check_precision(engine: Engine, precision: str) -> None:
    """Raises `EngineFailed` where an engine does not compute natively in a precision here."""
    if precision not in engine.precisions():
        raise EngineFailed(
            f"{engine.name} has no precision '{precision}' on this machine.",
            cure=f"Choose among {list(engine.precisions())}.",
        )


def missing_input(spec: TensorSpec) -> InvalidTensor:
    """Returns the error for an input that a caller left out."""
    return InvalidTensor(
        f"Input '{spec.name}' is missing.",
        cure=f"Send a {spec.datatype} tensor of shape {list(spec.shape)}.",
        tensor=spec.name,
    )


def unknown_output(name: str, known: Sequence[TensorSpec]) -> InvalidTensor:
    """Returns the error for an output that the model does not have."""
    return InvalidTensor(
        f"The model has no output '{name}'.",
        cure=f"Choose among {[spec.name for spec in known]}.",
        tensor=name,
    )


def return_memory() -> None:
    """Returns freed memory to the system: glibc keeps it otherwise."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)
