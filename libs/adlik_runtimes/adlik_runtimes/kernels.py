"""Adlik's own engine: plans of generated kernels, ONNX Runtime for what plans do not know.

A bundle holds the ONNX model, what was measured of its operators and a report of what runs where.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from adlik_common.errors import EngineFailed, InvalidModel, InvalidTensor
from adlik_common.tensors import DATATYPES, TensorSpec, check_tensor, datatype_of

from adlik_runtimes.engine import (
    Array,
    check_precision,
    import_fault,
    missing_input,
    package_version,
    return_memory,
    unknown_output,
)
from adlik_runtimes.onnxruntime import load_error

MODEL_FILE, REPORT_FILE = "model.onnx", "report.json"
RECORDS_FILE, COSTS_FILE = "records.jsonl", "costs.jsonl"


class KernelsModel:
    """A model in parts, each a plan or an ONNX Runtime session.

    Args:
        model: An `adlik_kernels.Model`.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.inputs = tuple(_spec(model.source, name) for name in model.inputs)
        self.outputs = tuple(_spec(model.source, name) for name in model.outputs)
        self._names = {spec.name for spec in self.outputs}

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str] = ()) -> dict[str, Array]:
        """Computes outputs, see `LoadedModel.run`."""
        from adlik_kernels import InvalidOperand

        for name in outputs:
            if name not in self._names:
                raise unknown_output(name, self.outputs)
        arrays = {spec.name: _checked(inputs, spec) for spec in self.inputs}
        try:
            found: dict[str, Array] = self._model(arrays)
        except InvalidOperand as error:
            raise InvalidTensor(error.message, cure=error.cure) from error
        except Exception as error:  # ONNX Runtime's errors have no class of their own
            raise EngineFailed(f"The model could not be run: {error}") from error
        return {name: found[name] for name in outputs} if outputs else found

    def report(self) -> dict[str, Any]:
        """Returns what runs where as plain values: plans' share of the nodes, and the parts."""
        parts = [asdict(part) for part in self._model.parts]
        return {"share": self._model.share, "parts": parts}

    def close(self) -> None:
        """Drops weights and arenas and gives their memory back."""
        self._model = None
        return_memory()


class Kernels:
    """Loads ONNX models into plans; see `Engine`."""

    name = "kernels"
    format = "kernels_bundle"

    def version(self) -> str:
        """Returns the installed version, "" where there is none."""
        return package_version("adlik-kernels")

    def unavailable(self) -> str:
        """Returns why plans do not run here, "" where they do."""
        return import_fault("adlik_kernels") or import_fault("onnx") or _machine_fault()

    def precisions(self) -> tuple[str, ...]:
        """Returns what plans compute in: the graph itself says which."""
        return ("fp32", "int8")

    def load(self, path: Path, *, precision: str = "fp32", threads: int = 0) -> KernelsModel:
        """Loads a bundle's folder, or an ONNX file. See `Engine.load`."""
        import adlik_kernels

        check_precision(self, precision)
        if fault := _machine_fault():
            raise EngineFailed(f"Kernels do not run here: {fault}", cure="Correct the setting.")
        try:
            if path.is_dir():
                if (path / RECORDS_FILE).is_file():
                    adlik_kernels.merge_records(path / RECORDS_FILE)
                if (path / COSTS_FILE).is_file():
                    adlik_kernels.merge_costs(path / COSTS_FILE)
                path = path / MODEL_FILE
            return KernelsModel(adlik_kernels.load_model(path, threads=threads))
        except (adlik_kernels.BuildFailed, adlik_kernels.InvalidRecord) as error:
            raise EngineFailed(str(error)) from error
        except adlik_kernels.UnsupportedGraph as error:
            raise InvalidModel(str(error)) from error
        except Exception as error:  # onnx's and ONNX Runtime's have no class of their own
            if type(error).__module__.startswith("google.protobuf"):
                raise InvalidModel(
                    f"The ONNX model can't be read: {error}", cure="Check it with onnx.checker."
                ) from error
            raise load_error(error) from error


ENGINE = Kernels()


def keep_records_in(folder: Path) -> None:
    """Lets what bundles bring stay in a folder, beside a copy of what is known of this machine.

    For a process that only judges a bundle: what it rejects must leave no trace.
    """
    import adlik_kernels
    from adlik_kernels.schedules.registry import database_path

    known, own = database_path(), folder / RECORDS_FILE
    if known.is_file():
        shutil.copyfile(known, own)
    adlik_kernels.configure(records=own)


def _machine_fault() -> str:
    """Why kernels can't be made for this machine: it is capped at what it does not have."""
    from adlik_kernels import KernelError
    from adlik_kernels.machine.target import host

    try:
        host()
    except KernelError as error:
        return str(error)
    return ""


def _spec(source: Any, name: str) -> TensorSpec:
    """The spec of an input or output of an `adlik_kernels` source."""
    from onnx import helper

    kind = source.types.get(name, 0)
    datatype = _DATATYPES.get(kind, "")
    if not datatype:
        told = helper.tensor_dtype_to_string(kind) if kind else "unknown"
        raise InvalidModel(
            f"'{name}' is a tensor of type {told}; only {sorted(_DATATYPES.values())} are served.",
            cure="Export the model with plain tensors.",
        )
    dims = source.dims.get(name, ())
    return TensorSpec(name, datatype, tuple(d if isinstance(d, int) else -1 for d in dims))


_DATATYPES = {
    1: "FP32", 2: "UINT8", 3: "INT8", 4: "UINT16", 5: "INT16", 6: "INT32", 7: "INT64",
    8: "BYTES", 9: "BOOL", 10: "FP16", 11: "FP64", 12: "UINT32", 13: "UINT64",
}  # fmt: skip
"""Datatypes of the Open Inference Protocol by ONNX's element types."""


def _checked(inputs: Mapping[str, Array], spec: TensorSpec) -> Array:
    array = inputs.get(spec.name)
    if array is None:
        raise missing_input(spec)
    if array.dtype != DATATYPES[spec.datatype] or not _fits(array.shape, spec.shape):
        check_tensor(spec, datatype_of(array.dtype), array.shape)
    return array if array.flags.c_contiguous else np.ascontiguousarray(array)


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    if len(shape) != len(wanted):
        return False
    return all(want in {-1, size} for size, want in zip(shape, wanted, strict=True))
