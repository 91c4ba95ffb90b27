"""The TensorRT engine: runs serialized plans on an NVIDIA GPU (TensorRT 10 Python API).

It needs the packages `tensorrt` and `cuda-python` and a GPU; without them it says so and nothing
else in the process changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from adlik_common.errors import AdlikError, EngineFailed, InvalidModel, InvalidTensor
from adlik_common.tensors import DATATYPES, TensorSpec, datatype_of

from adlik_runtimes.engine import (
    Array,
    check_precision,
    missing_input,
    package_version,
    return_memory,
    unknown_output,
)


class TensorRtModel:
    """An execution context of a plan, with a stream and device memory of its own.

    Args:
        trt: The module `tensorrt`.
        cuda: The module `cuda.bindings.runtime`.
        engine: The deserialized plan (`tensorrt.ICudaEngine`).
    """

    def __init__(self, trt: Any, cuda: Any, engine: Any) -> None:
        self._cuda, self._engine = cuda, engine
        self._context = engine.create_execution_context()
        self._stream = _checked(cuda.cudaStreamCreate())
        self._memory: dict[str, tuple[int, int]] = {}
        names = [engine.get_tensor_name(at) for at in range(engine.num_io_tensors)]
        kinds = {name: engine.get_tensor_mode(name) for name in names}
        specs = {name: _spec(trt, engine, name) for name in names}
        self.inputs = tuple(specs[n] for n in names if kinds[n] == trt.TensorIOMode.INPUT)
        self.outputs = tuple(specs[n] for n in names if kinds[n] == trt.TensorIOMode.OUTPUT)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str] = ()) -> dict[str, Array]:
        """Computes outputs, see `LoadedModel.run`."""
        known = {spec.name: spec for spec in self.outputs}
        for name in outputs:
            if name not in known:
                raise unknown_output(name, self.outputs)
        sent = [self._send(spec, inputs) for spec in self.inputs]
        found = {name: self._receiver(spec) for name, spec in known.items()}
        if not self._context.execute_async_v3(self._stream):
            raise EngineFailed("TensorRT could not run the model.", cure="See the service's log.")
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        for name, array in found.items():
            address = self._memory[name][0]
            self._copy(array.ctypes.data, address, array.nbytes, kind)
        _checked(self._cuda.cudaStreamSynchronize(self._stream))
        del sent  # the copies to the device read from these until here
        return {name: found[name] for name in outputs or found}

    def close(self) -> None:
        """Frees the device's memory and the plan."""
        for address, _ in self._memory.values():
            _checked(self._cuda.cudaFree(address))
        self._memory.clear()
        _checked(self._cuda.cudaStreamDestroy(self._stream))
        self._context = self._engine = None
        return_memory()

    def _send(self, spec: TensorSpec, inputs: Mapping[str, Array]) -> Array:
        if spec.name not in inputs:
            raise missing_input(spec)
        array = np.ascontiguousarray(inputs[spec.name])
        if not self._context.set_input_shape(spec.name, array.shape):
            raise InvalidTensor(
                f"The plan has no profile for '{spec.name}' of shape {list(array.shape)}.",
                cure="Compile the model with a profile that holds this shape.",
            )
        address = self._place(spec.name, array.nbytes)
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(address, array.ctypes.data, array.nbytes, kind)
        return array

    def _receiver(self, spec: TensorSpec) -> Array:
        shape = tuple(self._context.get_tensor_shape(spec.name))
        array = np.empty(shape, DATATYPES[spec.datatype])
        self._place(spec.name, array.nbytes)
        return array

    def _place(self, name: str, size: int) -> int:
        """Returns device memory for a tensor, kept for the next run."""
        address, room = self._memory.get(name, (0, 0))
        if room < size or not address:
            if address:
                _checked(self._cuda.cudaFree(address))
            address = _checked(self._cuda.cudaMalloc(max(size, 1)))
            self._memory[name] = (address, max(size, 1))
        self._context.set_tensor_address(name, address)
        return address

    def _copy(self, target: int, source: int, size: int, kind: Any) -> None:
        _checked(self._cuda.cudaMemcpyAsync(target, source, size, kind, self._stream))


class TensorRt:
    """Loads TensorRT plans; see `Engine`."""

    name = "tensorrt"
    format = "tensorrt_plan"

    def version(self) -> str:
        """Returns the installed version, "" where there is none."""
        return package_version("tensorrt")

    @cache  # noqa: B019 - the engine lives as long as the process
    def unavailable(self) -> str:
        """Returns why TensorRT does not run here, "" where it does."""
        try:
            import tensorrt  # noqa: F401
            from cuda.bindings import runtime  # type: ignore[import-not-found]  # GPU hosts only
        except (ImportError, OSError) as error:  # OSError: a library of the driver is missing
            return f"tensorrt can't be imported: {error}"
        try:
            count = _checked(runtime.cudaGetDeviceCount())
        except AdlikError as error:
            return error.message
        return "" if count else "this machine has no NVIDIA GPU"

    def precisions(self) -> tuple[str, ...]:
        """Returns what plans are built for."""
        return ("fp32", "fp16", "int8")

    def load(
        self,
        path: Path,
        *,
        precision: str = "fp32",
        threads: int = 0,  # noqa: ARG002 - a GPU needs none
    ) -> TensorRtModel:
        """Loads a plan; the plan itself says the precision. See `Engine.load`."""
        if reason := self.unavailable():
            raise EngineFailed(f"TensorRT does not run here: {reason}.")
        check_precision(self, precision)
        import tensorrt as trt
        from cuda.bindings import runtime

        plan_runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
        engine = plan_runtime.deserialize_cuda_engine(path.read_bytes())
        if engine is None:
            raise InvalidModel(
                "TensorRT can't read the plan: it was built for another GPU or version.",
                cure="Compile the model on this machine.",
            )
        return TensorRtModel(trt, runtime, engine)


ENGINE = TensorRt()


def _spec(trt: Any, engine: Any, name: str) -> TensorSpec:
    dtype = trt.nptype(engine.get_tensor_dtype(name))
    return TensorSpec(name, datatype_of(dtype), tuple(engine.get_tensor_shape(name)))


def _checked(answer: tuple[Any, ...]) -> Any:
    """Returns what a call of CUDA's gave; raises `EngineFailed` where it failed."""
    status, *values = answer
    if int(status) != 0:
        raise EngineFailed(f"CUDA says {status}.", cure="Check the NVIDIA driver (nvidia-smi).")
    return values[0] if values else None
