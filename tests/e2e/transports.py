"""Every way to ask for an inference, written out by hand: none shares code with what it tests."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence

import grpc
import httpx
import numpy as np
from adlik import Client
from adlik_proto.inference import open_inference_pb2 as pb
from adlik_proto.inference import open_inference_pb2_grpc as rpc

Arrays = dict[str, np.ndarray]
Ask = Callable[[str, Arrays, Sequence[str]], Arrays]

DATATYPES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64", "float16": "FP16",
    "float32": "FP32", "float64": "FP64", "object": "BYTES",
}  # fmt: skip
DTYPES = {datatype: np.dtype(name) for name, datatype in DATATYPES.items()}
TYPED = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents",
    "INT32": "int_contents", "INT64": "int64_contents", "UINT8": "uint_contents",
    "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


class Transports:
    """The ways to one mesh.

    Args:
        http: URL of the HTTP API.
        grpc_address: host:port of the gRPC API.
    """

    def __init__(self, http: str, grpc_address: str) -> None:
        self._http = httpx.Client(base_url=http, timeout=60, trust_env=False)
        self._client = Client(http)
        self._channel = grpc.insecure_channel(grpc_address)
        self._stub = rpc.GRPCInferenceServiceStub(self._channel)

    def close(self) -> None:
        self._http.close()
        self._client.close()
        self._channel.close()

    def all(self) -> Mapping[str, Ask]:
        """Returns the ways by name."""
        return {
            "HTTP JSON": self.http_json,
            "HTTP JSON, nested": self.http_nested,
            "HTTP binary": self.http_binary,
            "HTTP, answered in binary": self.http_mixed,
            "gRPC raw": self.grpc_raw,
            "gRPC typed": self.grpc_typed,
            "gRPC stream": self.grpc_stream,
            "adlik.Client": self.client,
        }

    def http_json(self, model: str, inputs: Arrays, outputs: Sequence[str] = ()) -> Arrays:
        return self._json(model, inputs, outputs, nested=False)

    def http_nested(self, model: str, inputs: Arrays, outputs: Sequence[str] = ()) -> Arrays:
        return self._json(model, inputs, outputs, nested=True)

    def _json(self, model: str, inputs: Arrays, outputs: Sequence[str], *, nested: bool) -> Arrays:
        entries = [
            described(name, array) | {"data": (array if nested else array.ravel()).tolist()}
            for name, array in inputs.items()
        ]
        body = {"inputs": entries, "outputs": [{"name": name} for name in outputs], "id": model}
        # As Python writes it: with NaN, Infinity and -Infinity.
        answer = self._post(model, json.dumps(body).encode())
        return read_json(answer.content, b"", model)

    def http_binary(self, model: str, inputs: Arrays, outputs: Sequence[str] = ()) -> Arrays:
        blobs = [raw(array) for array in inputs.values()]
        entries = [
            described(name, array) | {"parameters": {"binary_data_size": len(blob)}}
            for (name, array), blob in zip(inputs.items(), blobs, strict=True)
        ]
        wanted = [{"name": name, "parameters": {"binary_data": True}} for name in outputs]
        head = {"id": model, "inputs": entries, "parameters": {"binary_data_output": True}}
        text = json.dumps(head | ({"outputs": wanted} if wanted else {})).encode()
        return self._binary(model, text + b"".join(blobs), len(text))

    def http_mixed(self, model: str, inputs: Arrays, outputs: Sequence[str] = ()) -> Arrays:
        entries = [described(n, a) | {"data": a.ravel().tolist()} for n, a in inputs.items()]
        wanted = [
            {"name": name, "parameters": {"binary_data": at % 2 == 0}}
            for at, name in enumerate(outputs)
        ]
        text = json.dumps({"id": model, "inputs": entries, "outputs": wanted}).encode()
        return self._binary(model, text, len(text))

    def _binary(self, model: str, body: bytes, length: int) -> Arrays:
        headers = {"Inference-Header-Content-Length": str(length)}
        answer = self._post(model, body, headers)
        end = int(answer.headers.get("inference-header-content-length", len(answer.content)))
        return read_json(answer.content[:end], answer.content[end:], model)

    def _post(self, model: str, body: bytes, headers: Mapping[str, str] = {}) -> httpx.Response:
        answer = self._http.post(f"/v2/models/{model}/infer", content=body, headers=headers)
        assert answer.status_code == 200, answer.text[:500]
        return answer

    def grpc_raw(self, model: str, inputs: Arrays, outputs: Sequence[str] = ()) -> Arrays:
        return read_message(self._stub.ModelInfer(raw_message(model, inputs, outputs)), model)

    def grpc_typed(self, model: str, inputs: Arrays, outputs: Sequence[str] = ()) -> Arrays:
        message = pb.ModelInferRequest(model_name=model, id=model)
        for name, array in inputs.items():
            datatype = DATATYPES[array.dtype.name]
            tensor = message.inputs.add(name=name, datatype=datatype, shape=array.shape)
            values = [v.encode() if isinstance(v, str) else v for v in array.ravel().tolist()]
            getattr(tensor.contents, TYPED[datatype]).extend(values)
        for name in outputs:
            message.outputs.add(name=name)
        return read_message(self._stub.ModelInfer(message), model)

    def grpc_stream(self, model: str, inputs: Arrays, outputs: Sequence[str] = ()) -> Arrays:
        (answer,) = self._stub.ModelStreamInfer(iter([raw_message(model, inputs, outputs)]))
        assert not answer.error_message, answer.error_message
        return read_message(answer.infer_response, model)

    def client(self, model: str, inputs: Arrays, outputs: Sequence[str] = ()) -> Arrays:
        found = self._client.infer(model, inputs, outputs=outputs)
        for name, array in found.items():
            if array.dtype == np.object_:
                found[name] = strings([item.decode() for item in array.flat], array.shape)
        return found


def described(name: str, array: np.ndarray) -> dict[str, object]:
    return {"name": name, "datatype": DATATYPES[array.dtype.name], "shape": list(array.shape)}


def strings(items: Sequence[str], shape: Sequence[int]) -> np.ndarray:
    array = np.empty(len(items), np.object_)
    array[:] = items
    return array.reshape(shape)


def raw(array: np.ndarray) -> bytes:
    """Returns a tensor's bytes as the protocol wants them."""
    if array.dtype != np.object_:
        return np.ascontiguousarray(array).tobytes()
    items = [item.encode() for item in array.flat]
    return b"".join(struct.pack("<I", len(item)) + item for item in items)


def from_raw(datatype: str, shape: Sequence[int], data: bytes) -> np.ndarray:
    if datatype != "BYTES":
        assert len(data) == math.prod(shape) * DTYPES[datatype].itemsize
        return np.frombuffer(bytearray(data), DTYPES[datatype]).reshape(shape)
    items = []
    while data:
        (length,) = struct.unpack_from("<I", data)
        items.append(data[4 : 4 + length].decode())
        data = data[4 + length :]
    return strings(items, shape)


def read_json(text: bytes, binary: bytes, request_id: str) -> Arrays:
    """Returns the outputs of an answer, in its order; all its bytes must be used."""
    head = json.loads(text)
    assert head["id"] == request_id
    found = {}
    for output in head["outputs"]:
        datatype, shape = output["datatype"], output["shape"]
        if "data" in output:
            assert len(output["data"]) == math.prod(shape)
            found[output["name"]] = (
                strings(output["data"], shape)
                if datatype == "BYTES"
                else np.array(output["data"], DTYPES[datatype]).reshape(shape)
            )
            continue
        size = output["parameters"]["binary_data_size"]
        found[output["name"]] = from_raw(datatype, shape, binary[:size])
        binary = binary[size:]
    assert not binary
    return found


def raw_message(model: str, inputs: Arrays, outputs: Sequence[str]) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name=model, id=model)
    for name, array in inputs.items():
        datatype = DATATYPES[array.dtype.name]
        message.inputs.add(name=name, datatype=datatype, shape=array.shape)
        message.raw_input_contents.append(raw(array))
    for name in outputs:
        message.outputs.add(name=name)
    return message


def read_message(message: pb.ModelInferResponse, request_id: str) -> Arrays:
    assert message.id == request_id
    assert len(message.outputs) == len(message.raw_output_contents)
    return {
        output.name: from_raw(output.datatype, list(output.shape), data)
        for output, data in zip(message.outputs, message.raw_output_contents, strict=True)
    }
