"""The protocol's JSON bodies, and the raw tensors behind them (binary tensor data extension)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import orjson
from adlik_common.errors import InvalidRequest
from adlik_common.tensors import DATATYPES, TensorSpec, datatype_of

from adlik_serving.oip.classification import classify
from adlik_serving.oip.json_lists import (
    PLACEHOLDER,
    JsonList,
    cut_lists,
    needs_lists,
    read_list,
)
from adlik_serving.oip.json_values import read_values, write_values
from adlik_serving.oip.request import (
    Answer,
    Array,
    Buffer,
    InferRequest,
    ModelLabel,
    RequestedOutput,
    Signature,
    check_parameters,
)
from adlik_serving.oip.tensor_bytes import read_tensor, write_tensor

_Value = TypeVar("_Value")
LARGE_BYTES = 64 * 1024
"""Larger texts are read in pieces."""


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
    message, lists = _parse(view[:end])
    inputs = _read_inputs(message, lists, view[end:], signature)
    parameters = _parameters(message, "request")
    binary = _take(parameters, "binary_data_output", bool, False, "parameters")
    outputs = [
        _requested(_typed(entry, dict, "an entry of outputs"), binary=binary)
        for entry in _take(message, "outputs", list, [], "the request")
    ]
    if not outputs and binary:
        outputs = [RequestedOutput(name, binary=True) for name in signature.outputs]
    request_id = _take(message, "id", str, "", "the request")
    return InferRequest(request_id, inputs, signature.check_outputs(outputs))


def _parse(data: memoryview) -> tuple[dict[str, Any], list[JsonList]]:
    """Returns the JSON object in a text, and the lists that were cut out of it."""
    lists: list[JsonList] = []
    text: Buffer = data
    if len(data) > LARGE_BYTES or needs_lists(data):
        text, lists = cut_lists(data)
    try:
        return _typed(orjson.loads(text), dict, "the body"), lists
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not JSON: {error}.") from error


def _read_inputs(
    message: dict[str, Any], lists: Sequence[JsonList], binary: memoryview, signature: Signature
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
        parameters = _parameters(entry, where)
        if parameters.get("binary_data_size") is None:
            data = _take(entry, "data", object, None, where)
            inputs[name] = _read_data(spec, shape, data, lists)
            continue
        size = _take(parameters, "binary_data_size", int, None, where)
        if entry.get("data") is not None or not 0 <= size <= len(binary):
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


def _read_data(
    spec: TensorSpec, shape: Sequence[int], data: object, lists: Sequence[JsonList]
) -> Array:
    """Returns the array of an input's data, which may stand in a list that was cut out."""
    if isinstance(data, dict):
        found = data.get(PLACEHOLDER)
        if type(found) is int and 0 <= found < len(lists):
            return read_list(spec, shape, lists[found])
        if type(found) is str and DATATYPES[spec.datatype].kind == "f":
            return read_values(spec, shape, -0.0 if found == "-0" else found)
    return read_values(spec, shape, data)


def _requested(entry: dict[str, Any], *, binary: bool) -> RequestedOutput:
    name = _take(entry, "name", str, None, "an output")
    where = f"output '{name}'"
    parameters = _parameters(entry, where)
    classes = _take(parameters, "classification", int, 0, where)
    if classes < 0 or (classes == 0 and parameters.get("classification") is not None):
        raise InvalidRequest("The parameter 'classification' must be 1 or more.")
    return RequestedOutput(name, _take(parameters, "binary_data", bool, binary, where), classes)


def _parameters(entry: dict[str, Any], where: str) -> dict[str, Any]:
    """Returns the parameters of a part of a request; raises `InvalidRequest` for some."""
    parameters = _take(entry, "parameters", dict, {}, where)
    check_parameters(parameters, where)
    return parameters


def _take(
    entry: dict[str, Any], key: str, kind: type[_Value], default: _Value | None, where: str
) -> _Value:
    """Returns a value of a JSON object; raises `InvalidRequest` where it is missing or odd.

    null means that it is not set: clients with typed messages write it for what they leave out.
    """
    if entry.get(key) is None:
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
    message: dict[str, Any] = {"model_name": model.name, "model_version": model.version}
    if request.id:
        message["id"] = request.id
    text: list[Buffer] = [orjson.dumps(message)[:-1], b',"outputs":[']
    raw: list[Buffer] = []
    for at, (name, binary, _) in enumerate(request.outputs):
        array = outputs[name]
        entry: dict[str, Any] = {
            "name": name,
            "datatype": datatype_of(array.dtype),
            "shape": array.shape,
        }
        if at:
            text.append(b",")
        if binary:
            data = write_tensor(array)
            entry["parameters"] = {"binary_data_size": len(data)}
            raw.append(data)
            text.append(orjson.dumps(entry))
        else:
            text += (orjson.dumps(entry)[:-1], b',"data":', *write_values(name, array), b"}")
    text.append(b"]}")
    return Answer([*text, *raw], sum(map(len, text)) if raw else 0)


def decoding_work(body: Buffer, json_length: int, signature: Signature) -> int:
    """Returns how many bytes of a body have to be looked at one by one."""
    return len(body) if signature.scanned else json_length or len(body)


def encoding_work(request: InferRequest, outputs: Mapping[str, Array]) -> int:
    """Returns how many elements of the outputs have to be written one by one."""
    return sum(
        outputs[name].size
        for name, binary, classes in request.outputs
        if classes or not binary or outputs[name].dtype == np.object_
    )
