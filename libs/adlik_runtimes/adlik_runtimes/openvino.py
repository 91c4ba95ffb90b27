"""The OpenVINO engine: loads OpenVINO IR (or ONNX) on the CPU at a stated precision.

Where only the number of rows is open, single rows run on a form of the model whose shapes are
fixed: it is compiled for exactly that and 1.1 to 1.5 times faster. Other numbers of rows share one
form with open shapes, compiled when first needed.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from adlik_common.errors import (
    AdlikError,
    EngineFailed,
    InvalidModel,
    InvalidTensor,
    UnsupportedOperator,
)
from adlik_common.tensors import DATATYPES, TensorSpec, check_tensor, datatype_of

from adlik_runtimes import cpu
from adlik_runtimes.engine import (
    Array,
    check_precision,
    import_fault,
    missing_input,
    package_version,
    return_memory,
    unknown_output,
)

MODEL_FILE = "model.xml"

# Up to this size a copy takes less time than making a writable view.
_CHEAP_COPY_BYTES = 1 << 16

_HINT = "INFERENCE_PRECISION_HINT"
# int8 graphs name their 8-bit parts themselves; the hint is for the rest of them.
_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
_DATATYPES = {
    "f32": "FP32", "f64": "FP64", "f16": "FP16", "boolean": "BOOL",
    "i8": "INT8", "i16": "INT16", "i32": "INT32", "i64": "INT64",
    "u8": "UINT8", "u16": "UINT16", "u32": "UINT32", "u64": "UINT64",
}  # fmt: skip
_UNKNOWN_OPERATORS = re.compile(r"No conversion rule found for operations: (?P<first>[^\s,]+)")
_NOT_A_MODEL = ("Unable to read the model", "can't be parsed", "Could not open the file")


class OpenVinoModel:
    """A model that OpenVINO has compiled for this machine.

    Args:
        core: OpenVINO's core.
        model: The model as read.
        config: Properties to compile it with.
        tensor: The class `openvino.Tensor`.
    """

    def __init__(self, core: Any, model: Any, config: Mapping[str, Any], tensor: Any) -> None:
        self._core, self._model, self._config = core, model, config
        self.inputs = tuple(_spec(port) for port in model.inputs)
        self.outputs = tuple(_spec(port) for port in model.outputs)
        self._index = {spec.name: at for at, spec in enumerate(self.outputs)}
        self._tensor: Any = tensor
        self._one_row: Any = None
        self._any_rows: Any = None
        if self._only_rows_are_open():
            self._one_row = self._compile([(1, *spec.shape[1:]) for spec in self.inputs])
        if self._one_row is None:
            self._any_rows = self._compile()

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str] = ()) -> dict[str, Array]:
        """Computes outputs, see `LoadedModel.run`."""
        arrays = [_shareable(self._checked(inputs, spec)) for spec in self.inputs]
        request = self._request(arrays)
        try:
            for at, array in enumerate(arrays):
                # Shared: OpenVINO reads the caller's memory, which `arrays` keeps alive.
                request.set_input_tensor(at, self._tensor(array, shared_memory=True))
            request.infer(share_outputs=True)
            found = {name: self._output(request, name) for name in outputs or self._index}
        except RuntimeError as error:
            self._renew(request)
            raise self._why(arrays, error) from error
        return found

    def close(self) -> None:
        """Drops the compiled forms and gives their memory back."""
        self._one_row = self._any_rows = self._model = None
        return_memory()

    def _checked(self, inputs: Mapping[str, Array], spec: TensorSpec) -> Array:
        array = inputs.get(spec.name)
        if array is None:
            raise missing_input(spec)
        if array.dtype != DATATYPES[spec.datatype] or array.ndim != len(spec.shape):
            check_tensor(spec, datatype_of(array.dtype), array.shape)
        if not array.size:
            # It would answer with the shape of the run before, and go wrong or crash afterwards.
            raise InvalidTensor(
                f"Input '{spec.name}' has shape {list(array.shape)}: OpenVINO needs elements.",
                cure="Send at least one element along each axis.",
                tensor=spec.name,
            )
        return array

    def _request(self, arrays: list[Array]) -> Any:
        """Returns the inference request of the form that these inputs are run on."""
        if self._one_row is not None:
            for array in arrays:
                if array.shape[0] != 1:
                    break
            else:
                return self._one_row
        if self._any_rows is None:
            self._any_rows = self._compile()
        return self._any_rows

    def _renew(self, request: Any) -> None:
        """Replaces a request that failed: what it left behind must be in no answer."""
        fresh = request.get_compiled_model().create_infer_request()
        if request is self._one_row:
            self._one_row = fresh
        else:
            self._any_rows = fresh

    def _output(self, request: Any, name: str) -> Array:
        at = self._index.get(name)
        if at is None:
            raise unknown_output(name, self.outputs)
        copy: Array = request.get_output_tensor(at).data.copy()
        return copy

    def _only_rows_are_open(self) -> bool:
        shapes = [spec.shape for spec in self.inputs]
        return bool(shapes) and all(s[:1] == (-1,) and -1 not in s[1:] for s in shapes)

    def _compile(self, shapes: list[tuple[int, ...]] | None = None) -> Any:
        """Returns an inference request for fixed shapes, None where the model can't have them."""
        model = self._model
        try:
            if shapes is not None:
                model = model.clone()
                model.reshape(dict(zip(model.inputs, map(list, shapes), strict=True)))
            compiled = self._core.compile_model(model, "CPU", self._config)
        except RuntimeError as error:
            if shapes is not None:
                return None
            raise EngineFailed(f"OpenVINO could not compile the model: {_words(error)}") from error
        self._check_precision(compiled)
        return compiled.create_infer_request()

    def _check_precision(self, compiled: Any) -> None:
        """OpenVINO does not say that the processor lacks a precision: it computes in another."""
        wanted, found = self._config[_HINT], compiled.get_property(_HINT).get_type_name()
        if found != wanted:
            raise EngineFailed(
                f"OpenVINO would compute in {found} on this machine, not in {wanted}.",
                cure="Compile for a precision that the processor has.",
            )

    def _why(self, arrays: list[Array], error: Exception) -> AdlikError:
        for spec, array in zip(self.inputs, arrays, strict=True):
            try:
                check_tensor(spec, datatype_of(array.dtype), array.shape)
            except InvalidTensor as invalid:
                return invalid
        return EngineFailed(f"OpenVINO could not run the model: {_words(error)}")


class OpenVino:
    """Loads OpenVINO IR; see `Engine`."""

    name = "openvino"
    format = "openvino_ir"

    def version(self) -> str:
        """Returns the installed version, "" where there is none."""
        return package_version("openvino")

    def unavailable(self) -> str:
        """Returns why OpenVINO does not run here, "" where it does."""
        return import_fault("openvino")

    def precisions(self) -> tuple[str, ...]:
        """Returns what it computes natively: bfloat16 only where the processor has it."""
        return ("fp32", "bf16", "int8") if cpu.has_bfloat16() else ("fp32", "int8")

    def load(self, path: Path, *, precision: str = "fp32", threads: int = 0) -> OpenVinoModel:
        """Loads a folder that holds model.xml and model.bin, or one ONNX file.

        See `Engine.load`.
        """
        import openvino

        check_precision(self, precision)
        config: dict[str, Any] = {
            # By default OpenVINO would compute in bfloat16 wherever the processor has it.
            _HINT: _HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": "1",
            # Replicas beside each other would otherwise pin their threads to the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        if threads:
            config["INFERENCE_NUM_THREADS"] = threads
        core = openvino.Core()
        return OpenVinoModel(core, read_model(core, path), config, openvino.Tensor)


ENGINE = OpenVino()


def read_model(core: Any, path: Path) -> Any:
    """Returns OpenVINO's model of a file, or of a folder with model.xml.

    Raises:
        UnsupportedOperator: It has an operator that OpenVINO does not convert.
        InvalidModel: OpenVINO can't read it.
    """
    try:
        return core.read_model(path / MODEL_FILE if path.is_dir() else path)
    except RuntimeError as error:
        raise _read_error(error) from error


def _shareable(array: Array) -> Array:
    """Returns contiguous memory that OpenVINO accepts: it refuses what it could not write."""
    if not array.flags.c_contiguous:
        return array.copy(order="C")
    if array.flags.writeable:
        return array
    if array.nbytes <= _CHEAP_COPY_BYTES:
        return array.copy()
    memory = (ctypes.c_char * array.nbytes).from_address(array.ctypes.data)
    return np.ndarray(array.shape, array.dtype, memoryview(memory))


def _read_error(error: Exception) -> AdlikError:
    text = str(error)
    if found := _UNKNOWN_OPERATORS.search(text):
        domain, _, operator = found["first"].rpartition(".")
        operator, domain = re.sub(r"-\d+$", "", operator), domain or "ai.onnx"
        return UnsupportedOperator(
            f"OpenVINO does not know the operator '{operator}' of domain '{domain}'.",
            cure="Export the model with standard operators, or compile it for onnxruntime.",
            operator=operator,
            domain=domain,
        )
    if any(words in text for words in _NOT_A_MODEL):
        return InvalidModel(
            f"OpenVINO can't read the model: {_words(error)}",
            cure="Check that the file is a whole model.",
        )
    return EngineFailed(f"OpenVINO could not read the model: {_words(error)}")


def _words(error: Exception) -> str:
    """Returns an error's text without the places in OpenVINO's source."""
    lines = str(error).splitlines()
    noise = ("Exception from", "Check '")
    return " ".join(line.strip() for line in lines if line.strip() and not line.startswith(noise))


def _spec(port: Any) -> TensorSpec:
    type_name = port.element_type.to_string()
    name = _name(port)
    if type_name not in _DATATYPES:
        raise InvalidModel(
            f"'{name}' is a tensor of {type_name}; only {sorted(_DATATYPES)} are served."
        )
    partial = port.partial_shape
    if partial.rank.is_dynamic:
        raise InvalidModel(
            f"'{name}' has an open number of dimensions.",
            cure="Export the model with a fixed rank for every input and output.",
        )
    shape = tuple(-1 if size.is_dynamic else size.get_length() for size in partial)
    return TensorSpec(name, _DATATYPES[type_name], shape)


def _name(port: Any) -> str:
    """Returns the name that the source model gave a tensor: it may have others by fusing."""
    given: str = port.node.friendly_name.removesuffix("/sink_port_0")
    return given if given in port.names or not port.names else min(port.names)
