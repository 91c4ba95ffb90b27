"""The protocol's JSON bodies, and the raw tensors behind them (binary tensor data extension)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import orjson
from adlik_common.errors import InvalidRequest, InvalidTensor
from adlik_common.tensors import DATATYPES, TensorSpec, datatype_of

from adlik_serving.oip.classification import classify
from adlik_serving.oip.request import (
    MAX_RANK,
    Answer,
    Array,
    Buffer,
    InferRequest,
    ModelLabel,
    RequestedOutput,
    Signature,
)
from adlik_serving.oip.tensor_bytes import read_tensor, write_tensor

_Value = TypeVar("_Value")
_TYPES: dict[str, set[type]] = {
    "b": {bool},
    "i": {int},
    "u": {int},
    "f": {int, float},
    "O": {str},
}
"""Kind of a dtype to the JSON values that may stand for its elements."""


def decode(body: Buffer, json_length: int, signature: Signature) -> InferRequest:
    """Returns the request in a JSON body.

    Args:
        body: JSON, and behind it the raw tensors of inputs that say `binary_data_size`.
        json_length: Bytes that are JSON; 0: all.
        signature: What the model takes.

    Raises:
        InvalidRequest: The body does not follow the protocol.
        InvalidTensor: A tensor does not fit the model or its own shape.
    """
    view = memoryview(body)
    if not 0 <= json_length <= len(view):
        raise InvalidRequest(
            f"The JSON is said to have {json_length} bytes; the body has {len(view)}.",
            cure="Inference-Header-Content-Length is the length of the JSON in bytes.",
        )
    end = json_length or len(view)
    message = _parse(view[:end])
    inputs = _read_inputs(message, view[end:], signature)
    parameters = _take(message, "parameters", dict, {}, "the request")
    binary = _take(parameters, "binary_data_output", bool, False, "parameters")
    outputs = [
        _requested(_typed(entry, dict, "an entry of outputs"), binary=binary)
        for entry in _take(message, "outputs", list, [], "the request")
    ]
    if not outputs and binary:
        outputs = [RequestedOutput(name, binary=True) for name in signature.outputs]
    request_id = _take(message, "id", str, "", "the request")
    return InferRequest(request_id, inputs, signature.check_outputs(outputs))


def _parse(data: memoryview) -> dict[str, Any]:
    try:
        return _typed(orjson.loads(data), dict, "the body")
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not JSON: {error}.") from error


def _read_inputs(
    message: dict[str, Any], binary: memoryview, signature: Signature
) -> dict[str, Array]:
    """Returns the input arrays; raw ones are taken from `binary` one behind the other."""
    inputs: dict[str, Array] = {}
    for item in _take(message, "inputs", list, None, "the request"):
        entry = _typed(item, dict, "an entry of inputs")
        name = _take(entry, "name", str, None, "an input")
        where = f"input '{name}'"
        datatype = _take(entry, "datatype", str, None, where)
        shape = _take(entry, "shape", list, None, where)
        if not all(type(size) is int for size in shape):
            raise InvalidRequest(f"The shape of {where} is not a list of whole numbers.")
        spec = signature.check_input(name, datatype, shape, inputs)
        parameters = _take(entry, "parameters", dict, {}, where)
        if "binary_data_size" not in parameters:
            inputs[name] = _read_values(spec, shape, _take(entry, "data", object, None, where))
            continue
        size = _take(parameters, "binary_data_size", int, None, where)
        if "data" in entry or not 0 <= size <= len(binary):
            raise InvalidRequest(
                f"The binary_data_size of {where} is {size}; {len(binary)} bytes are left behind "
                "the JSON.",
                cure="Send either 'data' or the bytes, and the length of the JSON as header.",
            )
        inputs[name] = read_tensor(spec, shape, binary[:size])
        binary = binary[size:]
    if binary:
        raise InvalidRequest(f"{len(binary)} bytes behind the JSON belong to no input.")
    signature.check_complete(inputs)
    return inputs


def _read_values(spec: TensorSpec, shape: list[int], data: object) -> Array:
    """Returns the array of a (nested or flat) list of JSON values."""
    dtype = DATATYPES[spec.datatype]
    if dtype == np.float16:
        raise InvalidTensor(
            f"Input '{spec.name}' is FP16, which JSON numbers cannot stand for exactly.",
            cure="Send it as binary tensor data.",
            tensor=spec.name,
        )
    values, types = _flatten(data)
    reason = ""
    if len(values) != math.prod(shape):
        reason = f"there are {len(values)} elements"
    elif not types <= _TYPES[dtype.kind]:
        reason = f"its elements are {', '.join(sorted(kind.__name__ for kind in types))}"
    else:
        try:
            return _convert(values, dtype).reshape(shape)
        except (OverflowError, FloatingPointError) as error:
            reason = str(error)
    raise InvalidTensor(
        f"The data of input '{spec.name}' does not make {spec.datatype} {shape}: {reason}.",
        cure="Send every element once, row by row, flat or nested.",
        tensor=spec.name,
    )


def _flatten(data: object) -> tuple[list[Any], set[type]]:
    """Returns the elements of nested lists in order, and their types."""
    values: list[Any] = [data]
    types: set[type] = {type(data)}
    for _ in range(MAX_RANK):
        if types != {list}:
            break
        values = list(chain.from_iterable(values))
        types = set(map(type, values))
    return values, types


def _convert(values: list[Any], dtype: np.dtype[Any]) -> Array:
    if dtype == np.object_:
        strings = np.empty(len(values), np.object_)
        strings[:] = values
        return strings
    with np.errstate(over="raise"):
        return (
            np.array(values, np.float64).astype(dtype)
            if dtype.kind == "f"
            else np.array(values, dtype)
        )


def _requested(entry: dict[str, Any], *, binary: bool) -> RequestedOutput:
    name = _take(entry, "name", str, None, "an output")
    where = f"output '{name}'"
    parameters = _take(entry, "parameters", dict, {}, where)
    classes = _take(parameters, "classification", int, 0, where)
    if classes < 0 or (classes == 0 and "classification" in parameters):
        raise InvalidRequest("The parameter 'classification' must be 1 or more.")
    return RequestedOutput(name, _take(parameters, "binary_data", bool, binary, where), classes)


def _take(
    entry: dict[str, Any], key: str, kind: type[_Value], default: _Value | None, where: str
) -> _Value:
    """Returns a value of a JSON object; raises `InvalidRequest` where it is missing or odd."""
    if key not in entry:
        if default is None:
            raise InvalidRequest(f"'{key}' is missing in {where}.")
        return default
    return _typed(entry[key], kind, f"'{key}' of {where}")


def _typed(value: object, kind: type[_Value], what: str) -> _Value:
    # bool is an int in Python, not in JSON.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise InvalidRequest(f"{what[0].upper()}{what[1:]} is no {_JSON_NAMES[kind]}.")
    return value


_JSON_NAMES: dict[type, str] = {
    dict: "JSON object",
    list: "list",
    str: "string",
    int: "whole number",
    bool: "boolean",
}


def encode(request: InferRequest, model: ModelLabel, outputs: Mapping[str, Array]) -> Answer:
    """Returns the JSON answer, with the outputs that are wanted so as raw bytes behind it.

    Raises:
        InvalidRequest: An output has no JSON form, or no scores to classify by.
    """
    outputs = classify(outputs, request.outputs)
    entries: list[dict[str, Any]] = []
    raw: list[Buffer] = []
    for name, binary, _ in request.outputs:
        array = outputs[name]
        entry: dict[str, Any] = {
            "name": name,
            "datatype": datatype_of(array.dtype),
            "shape": array.shape,
        }
        if binary:
            data = write_tensor(array)
            entry["parameters"] = {"binary_data_size": len(data)}
            raw.append(data)
        else:
            entry["data"] = _json_values(name, array)
        entries.append(entry)
    message: dict[str, Any] = {"model_name": model.name, "model_version": model.version}
    if request.id:
        message["id"] = request.id
    message["outputs"] = entries
    text = orjson.dumps(message, option=orjson.OPT_SERIALIZE_NUMPY)
    return Answer([text, *raw], len(text) if raw else 0)


def _json_values(name: str, array: Array) -> Array | list[str]:
    """Returns what orjson writes as the flat list of an output's elements."""
    if array.dtype == np.float16:
        raise InvalidRequest(
            f"Output '{name}' is FP16, which is answered as binary tensor data only.",
            cure="Ask for it with the parameter binary_data: true.",
        )
    if array.dtype != np.object_:
        return np.ascontiguousarray(array).reshape(-1)
    try:
        return [value.decode() if isinstance(value, bytes) else str(value) for value in array.flat]
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"Output '{name}' holds bytes that are not UTF-8 text.",
            cure="Ask for it with the parameter binary_data: true.",
        ) from error
