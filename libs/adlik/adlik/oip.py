"""The Open Inference Protocol over HTTP, with binary tensors behind the JSON."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adlik.errors import AdlikError

JSON_LENGTH_HEADER = "Inference-Header-Content-Length"

_DATATYPES = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32,
    "UINT64": np.uint64, "INT8": np.int8, "INT16": np.int16, "INT32": np.int32,
    "INT64": np.int64, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip
_NAMES = {np.dtype(dtype): name for name, dtype in _DATATYPES.items()}
_TYPES: dict[str, tuple[type, ...]] = {
    "b": (bool,), "i": (int,), "u": (int,), "f": (int, float), "O": (str, bytes)
}  # fmt: skip
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode(inputs: Mapping[str, np.ndarray], outputs: Sequence[str] = ()) -> tuple[bytes, int]:
    """Returns a request's body and the length of its JSON.

    Args:
        inputs: Arrays by input name. Strings (dtype object, S or U) are sent as BYTES, ml_dtypes'
            bfloat16 as BF16.
        outputs: Names of the wanted outputs; empty: all.
    """
    tensors, blobs = [], []
    for name, value in inputs.items():
        array = np.asarray(value)
        datatype, blob = _encode_array(array)
        parameters = {"binary_data_size": len(blob)}
        tensors.append(
            {
                "name": name,
                "datatype": datatype,
                "shape": list(array.shape),
                "parameters": parameters,
            }
        )
        blobs.append(blob)
    head: dict[str, Any] = {"inputs": tensors, "parameters": {"binary_data_output": True}}
    if outputs:
        head["outputs"] = [{"name": name, "parameters": {"binary_data": True}} for name in outputs]
    text = json.dumps(head, separators=(",", ":")).encode()
    return b"".join([text, *blobs]), len(text)


def decode(body: bytes, json_length: int | None) -> dict[str, np.ndarray]:
    """Returns a response's outputs; arrays are read-only views of the body where they can be.

    BF16, which numpy lacks, becomes float32; strings are bytes in arrays of objects.
    """
    length = len(body) if json_length is None else json_length
    head = json.loads(body[:length])
    view, position = memoryview(body), length
    outputs = {}
    for tensor in head.get("outputs", []):
        size = (tensor.get("parameters") or {}).get("binary_data_size")
        if size is None:
            outputs[tensor["name"]] = _from_list(tensor)
            continue
        outputs[tensor["name"]] = _decode_array(tensor, view[position : position + size])
        position += size
    if position != len(body):
        raise ValueError("The answer's tensors do not fill its body.")
    return outputs


def _encode_array(array: np.ndarray) -> tuple[str, bytes | memoryview]:
    if array.dtype.kind in "OSU":
        items = [_encode_string(item) for item in array.ravel()]
        return "BYTES", b"".join(struct.pack("<I", len(item)) + item for item in items)
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    # ml_dtypes' type, whose memory is what the protocol wants; its byte order is the machine's.
    name = "BF16" if array.dtype.name == "bfloat16" else _NAMES.get(little.dtype)
    if name is None:
        raise AdlikError(
            "INVALID_TENSOR",
            f"Arrays of dtype {array.dtype} can't be sent.",
            f"Convert it to one of {', '.join(sorted({str(d) for d in _NAMES}))}.",
        )
    contiguous = np.ascontiguousarray(little).reshape(-1)
    return name, contiguous.view(np.uint8).data if array.size else b""


def _encode_string(item: object) -> bytes:
    if isinstance(item, bytes):
        return item
    if isinstance(item, str):
        try:
            return item.encode()
        except UnicodeEncodeError as error:
            raise AdlikError(
                "INVALID_TENSOR", f"A string can't be written as UTF-8: {error.reason}."
            ) from error
    raise AdlikError(
        "INVALID_TENSOR",
        f"An array of objects holds a {type(item).__name__}, which is not a string.",
        "Convert numbers to a dtype of numpy, and everything else to str or bytes.",
    )


def _decode_array(tensor: Mapping[str, Any], blob: memoryview) -> np.ndarray:
    shape, datatype = tensor["shape"], tensor["datatype"]
    if datatype == "BF16":
        bits = np.frombuffer(blob, np.uint16).astype(np.uint32) << np.uint32(16)
        return bits.view(np.float32).reshape(shape)
    if datatype != "BYTES":
        dtype = _DATATYPES[datatype]
        return (np.frombuffer(blob, dtype) if len(blob) else np.empty(0, dtype)).reshape(shape)
    items, position = [], 0
    while position < len(blob):
        (length,) = struct.unpack_from("<I", blob, position)
        position += 4 + length
        if position > len(blob):
            raise ValueError("A string is cut off.")
        items.append(bytes(blob[position - length : position]))
    return _strings(items).reshape(shape)


def _from_list(tensor: Mapping[str, Any]) -> np.ndarray:
    try:
        return to_array(tensor["data"], tensor["datatype"]).reshape(tensor["shape"])
    except AdlikError as error:
        raise ValueError(error.message) from error


def to_array(values: Any, datatype: str) -> np.ndarray:
    """Returns JSON values, nested lists or one alone, as an array of a datatype; nothing is lost.

    BF16 becomes float32. Strings may be str or bytes; NaN and the infinities may be in quotes.

    Raises:
        AdlikError: A value is of another type, or out of the datatype's range; lists are uneven.
    """
    dtype = np.dtype(np.float32 if datatype == "BF16" else _DATATYPES.get(datatype, np.object_))
    flat, shape = _flattened(values)
    wanted = _TYPES[dtype.kind]
    if dtype.kind == "f":
        flat = [_NOT_FINITE.get(item, item) if isinstance(item, str) else item for item in flat]
    odd = sorted({type(item).__name__ for item in flat} - {kind.__name__ for kind in wanted})
    if odd:
        raise AdlikError("INVALID_TENSOR", f"{datatype} has no values that are {', '.join(odd)}.")
    if dtype == np.object_:
        return _strings(flat).reshape(shape)
    try:
        with np.errstate(over="raise"):
            if dtype.kind == "f":
                return np.array(flat, np.float64).astype(dtype).reshape(shape)
            return np.array(flat, dtype).reshape(shape)
    except (OverflowError, FloatingPointError) as error:
        raise AdlikError(
            "INVALID_TENSOR", f"A number is out of {datatype}'s range: {error}."
        ) from error


def _flattened(values: Any) -> tuple[list[Any], tuple[int, ...]]:
    """Returns the elements of evenly nested lists, and the shape that the lists make."""
    flat: list[Any] = [values]
    shape: list[int] = []
    while flat and all(isinstance(item, list) for item in flat):
        lengths = {len(item) for item in flat}
        if len(lengths) > 1:
            break  # lists that are left are no elements of any datatype
        shape += lengths
        flat = [inner for item in flat for inner in item]
    return flat, tuple(shape)


def _strings(items: Sequence[Any]) -> np.ndarray:
    array = np.empty(len(items), np.object_)
    array[:] = items
    return array


def numpy_type(datatype: str) -> type[np.generic] | None:
    """Returns the numpy type of a datatype of the protocol, None for BYTES."""
    return _DATATYPES.get(datatype)
