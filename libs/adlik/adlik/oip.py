"""The Open Inference Protocol over HTTP, with binary tensors behind the JSON."""

from __future__ import annotations

import json
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


def encode(inputs: Mapping[str, np.ndarray], outputs: Sequence[str] = ()) -> tuple[bytes, int]:
    """Returns a request's body and the length of its JSON.

    Args:
        inputs: Arrays by input name; strings (dtype object, S or U) are sent as BYTES.
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
    """Returns a response's outputs; arrays are read-only views of the body where they can be."""
    length = len(body) if json_length is None else json_length
    head = json.loads(body[:length])
    view, position = memoryview(body), length
    outputs = {}
    for tensor in head.get("outputs", []):
        size = tensor.get("parameters", {}).get("binary_data_size")
        if size is None:
            outputs[tensor["name"]] = _from_list(tensor)
            continue
        outputs[tensor["name"]] = _decode_array(tensor, view[position : position + size])
        position += size
    return outputs


def _encode_array(array: np.ndarray) -> tuple[str, bytes | memoryview]:
    if array.dtype.kind in "OSU":
        items = [v if isinstance(v, bytes) else str(v).encode() for v in array.ravel()]
        return "BYTES", b"".join(struct.pack("<I", len(item)) + item for item in items)
    name = _NAMES.get(array.dtype)
    if name is None:
        raise AdlikError("INVALID_TENSOR", f"Arrays of dtype {array.dtype} can't be sent.")
    return name, np.ascontiguousarray(array).data.cast("B") if array.size else b""


def _decode_array(tensor: Mapping[str, Any], blob: memoryview) -> np.ndarray:
    shape, datatype = tensor["shape"], tensor["datatype"]
    if datatype != "BYTES":
        return np.frombuffer(blob, _DATATYPES[datatype]).reshape(shape)
    items, position = [], 0
    while position < len(blob):
        (length,) = struct.unpack_from("<I", blob, position)
        items.append(bytes(blob[position + 4 : position + 4 + length]))
        position += 4 + length
    return np.array(items, dtype=object).reshape(shape)


def _from_list(tensor: Mapping[str, Any]) -> np.ndarray:
    dtype = _DATATYPES.get(tensor["datatype"], np.object_)
    return np.array(tensor["data"], dtype=dtype).reshape(tensor["shape"])


def numpy_type(datatype: str) -> type[np.generic] | None:
    """Returns the numpy type of a datatype of the protocol, None for BYTES."""
    return _DATATYPES.get(datatype)
