"""The ways to ask a mesh for an inference, each from arrays to arrays or the code of an error."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Self

import grpc
import httpx
import numpy as np
from adlik import oip
from adlik.client import Client
from adlik.errors import AdlikError
from adlik_proto.inference import open_inference_pb2 as pb
from adlik_proto.inference.open_inference_pb2_grpc import GRPCInferenceServiceStub

Inputs = Mapping[str, np.ndarray]
Answer = dict[str, np.ndarray] | str
Ask = Callable[[str, Inputs], Answer]


class Wires:
    """One client of each kind, for one thread; use as a context manager."""

    def __init__(self, http: str, address: str) -> None:
        self._client = Client(http)
        self._http = httpx.Client(base_url=http, timeout=60.0)
        self._channel = grpc.insecure_channel(
            # A connection of its own for each client, as clients on several machines have.
            address,
            options=[("grpc.use_local_subchannel_pool", 1)],
        )
        self._stub = GRPCInferenceServiceStub(self._channel)
        self.all: dict[str, Ask] = {
            "binary": self.binary,
            "json": self.json,
            "grpc": self.grpc,
            "stream": self.stream,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._http.close()
        self._channel.close()

    def binary(self, name: str, inputs: Inputs) -> Answer:
        try:
            return self._client.infer(name, inputs)
        except AdlikError as error:
            return error.code

    def json(self, name: str, inputs: Inputs) -> Answer:
        body, length = oip.encode(inputs)
        listed = [
            {**{key: tensor[key] for key in ("name", "datatype", "shape")}, "data": _listed(array)}
            for tensor, array in zip(
                json.loads(body[:length])["inputs"], inputs.values(), strict=True
            )
        ]
        # Python's json writes NaN and infinities as the protocol's servers read them.
        text = json.dumps({"inputs": listed})
        answer = self._http.post(f"/v2/models/{name}/infer", content=text)
        if answer.is_success:
            return oip.decode(answer.content, None)
        return str(answer.json()["code"])

    def grpc(self, name: str, inputs: Inputs) -> Answer:
        try:
            return _arrays(self._stub.ModelInfer(_message(name, inputs), timeout=60))
        except grpc.RpcError as error:
            return str(error.code())

    def stream(self, name: str, inputs: Inputs) -> Answer:
        """Asks twice in one stream; the answers must be the same."""
        messages = [_message(name, inputs)] * 2
        first, second = self._stub.ModelStreamInfer(iter(messages), timeout=60)
        if first.error_message or second.error_message:
            assert first.error_message
            assert second.error_message
            return "refused"
        one, other = _arrays(first.infer_response), _arrays(second.infer_response)
        assert one.keys() == other.keys()
        return one


def _listed(array: np.ndarray) -> list[object]:
    return [
        value.decode() if isinstance(value, bytes) else value for value in array.ravel().tolist()
    ]


def _message(name: str, inputs: Inputs) -> pb.ModelInferRequest:
    message = pb.ModelInferRequest(model_name=name)
    body, at = oip.encode(inputs)
    for tensor in json.loads(body[:at])["inputs"]:
        size = tensor["parameters"]["binary_data_size"]
        message.inputs.add(name=tensor["name"], datatype=tensor["datatype"], shape=tensor["shape"])
        message.raw_input_contents.append(body[at : at + size])
        at += size
    return message


def _arrays(message: pb.ModelInferResponse) -> dict[str, np.ndarray]:
    blobs = message.raw_output_contents
    head = [
        {
            "name": tensor.name,
            "datatype": tensor.datatype,
            "shape": list(tensor.shape),
            "parameters": {"binary_data_size": len(blob)},
        }
        for tensor, blob in zip(message.outputs, blobs, strict=True)
    ]
    text = json.dumps({"outputs": head}).encode()
    return oip.decode(b"".join([text, *blobs]), len(text))
