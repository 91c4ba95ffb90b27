"""The ONNX Runtime engine: loads ONNX files on the CPU, with all graph optimisations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adlik_common.errors import (
    AdlikError,
    EngineFailed,
    InvalidModel,
    InvalidTensor,
    UnsupportedOperator,
)
from adlik_common.tensors import TensorSpec, axis_name

from adlik_runtimes.engine import (
    Array,
    check_precision,
    import_fault,
    missing_input,
    package_version,
    return_memory,
    unknown_output,
)

_DATATYPES = {
    "float": "FP32", "double": "FP64", "float16": "FP16", "bool": "BOOL", "string": "BYTES",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
}  # fmt: skip
_UNKNOWN_OPERATOR = (
    re.compile(r"(?P<domain>[\w.]*):(?P<op>\w+)\(-?\d+\) is not a registered"),
    re.compile(
        r'In Node, \("[^"]*", (?P<op>\w+), "(?P<domain>[^"]*)".*'
        r"(?:No Op registered|No opset import|is not a registered)",
        re.DOTALL,
    ),
    re.compile(r"Could not find an implementation for (?P<domain>)(?P<op>\w+)\("),
)
_NOT_A_MODEL = ("InvalidProtobuf", "InvalidGraph", "InvalidArgument", "NoSuchFile", "NoModel")


class OnnxRuntimeModel:
    """An ONNX Runtime session.

    Args:
        session: The session (`onnxruntime.InferenceSession`).
    """

    def __init__(self, session: Any) -> None:
        self._session = session
        self.inputs = tuple(_spec(node) for node in session.get_inputs())
        self.outputs = tuple(_spec(node) for node in session.get_outputs())
        self._names = [spec.name for spec in self.outputs]

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str] = ()) -> dict[str, Array]:
        """Computes outputs, see `LoadedModel.run`."""
        names = list(outputs) or self._names
        try:
            arrays = self._session.run(names, inputs)
        except Exception as error:  # its errors have no class of their own
            raise self._why(inputs, names, error) from error
        return dict(zip(names, arrays, strict=True))

    def close(self) -> None:
        """Ends the session and gives its memory back."""
        self._session = None
        return_memory()

    def _why(self, inputs: Mapping[str, Array], names: list[str], error: Exception) -> AdlikError:
        for spec in self.inputs:
            if spec.name not in inputs:
                return missing_input(spec)
        for name in names:
            if name not in self._names:
                return unknown_output(name, self.outputs)
        if isinstance(error, UnicodeDecodeError):
            return EngineFailed(
                "An output of the model holds bytes that are not UTF-8 text, which ONNX Runtime "
                "does not give out.",
                cure="Have the model give them as UINT8.",
            )
        said = _words(error)
        if type(error).__name__ == "InvalidArgument":
            return InvalidTensor(f"ONNX Runtime does not take these inputs: {said}")
        return EngineFailed(f"ONNX Runtime could not run the model: {said}")


class OnnxRuntime:
    """Loads ONNX files; see `Engine`."""

    name = "onnxruntime"
    format = "onnx"

    def version(self) -> str:
        """Returns the installed version, "" where there is none."""
        return package_version("onnxruntime")

    def unavailable(self) -> str:
        """Returns why ONNX Runtime does not run here, "" where it does."""
        return import_fault("onnxruntime")

    def precisions(self) -> tuple[str, ...]:
        """Returns what it computes: float and, from QDQ graphs, 8-bit integers."""
        return ("fp32", "int8")

    def load(self, path: Path, *, precision: str = "fp32", threads: int = 0) -> OnnxRuntimeModel:
        """Loads an ONNX file; the graph itself says the precision. See `Engine.load`."""
        ort = _imported()
        check_precision(self, precision)
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that spin while idle take the cores from the models beside this one.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        try:
            session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no class of their own
            raise load_error(error) from error
        return OnnxRuntimeModel(session)


ENGINE = OnnxRuntime()


def load_plainly(source: Path | bytes, threads: int = 0) -> Any:
    """Returns a session that computes a model as it is written, operator by operator.

    Args:
        source: ONNX file or its bytes.
        threads: Threads of one run; 0: the engine's choice.
    """
    ort = _imported()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def _imported() -> Any:
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # nobody is told of what runs here
    return onnxruntime


def load_error(error: Exception) -> AdlikError:
    """Returns Adlik's error for what ONNX Runtime says of a model that it does not load."""
    text = str(error)
    for pattern in _UNKNOWN_OPERATOR:
        if found := pattern.search(text):
            operator, domain = found["op"], found["domain"] or "ai.onnx"
            return UnsupportedOperator(
                f"ONNX Runtime does not know the operator '{operator}' of domain '{domain}'.",
                cure="Export the model with standard ONNX operators of an opset it knows.",
                operator=operator,
                domain=domain,
            )
    said = _words(error)
    if type(error).__name__ in _NOT_A_MODEL:
        return InvalidModel(
            f"ONNX Runtime can't read the model: {said}",
            cure="Check that the file is a whole ONNX model (onnx.checker).",
        )
    return EngineFailed(f"ONNX Runtime could not load the model: {said}")


def _words(error: Exception) -> str:
    """Returns an error's text without ONNX Runtime's code prefix and path of the file."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error))
    return " ".join(re.sub(r"Load model from .*? failed:", "", text).split())


def _spec(node: Any) -> TensorSpec:
    found = re.fullmatch(r"tensor\((\w+)\)", node.type)
    if found is None or found[1] not in _DATATYPES:
        raise InvalidModel(
            f"'{node.name}' is a {node.type}; only tensors of {sorted(_DATATYPES)} are served.",
            cure="Export the model with plain tensors (for example without ZipMap).",
        )
    shape = tuple(size if isinstance(size, int) and size > 0 else -1 for size in node.shape)
    axes = tuple(axis_name(size) if isinstance(size, str) else "" for size in node.shape)
    return TensorSpec(node.name, _DATATYPES[found[1]], shape, axes)
