"""The protocol's gRPC messages, read and written in place: tensor bytes are never parsed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from adlik_common import wire
from adlik_common.errors import InvalidRequest, InvalidTensor
from adlik_common.tensors import DATATYPES, TensorSpec, datatype_of
from adlik_proto.inference import open_inference_pb2 as pb
from google.protobuf.message import DecodeError

from adlik_serving.oip.classification import classify
from adlik_serving.oip.request import (
    Answer,
    Array,
    Buffer,
    InferRequest,
    ModelLabel,
    RequestedOutput,
    Signature,
)
from adlik_serving.oip.tensor_bytes import read_tensor, strings_of, write_tensor

# Below this a copy by the C parser costs less than reading the fields here.
SMALL_BYTES = 64 * 1024
MAX_FIELDS = 4096

_RAW_INPUT = pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
_RAW_OUTPUT = pb.ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER
_Contents = pb.InferTensorContents
_TYPED: dict[str, Callable[[_Contents], Sequence[Any]]] = {
    "BOOL": lambda contents: contents.bool_contents,
    "INT8": lambda contents: contents.int_contents,
    "INT16": lambda contents: contents.int_contents,
    "INT32": lambda contents: contents.int_contents,
    "INT64": lambda contents: contents.int64_contents,
    "UINT8": lambda contents: contents.uint_contents,
    "UINT16": lambda contents: contents.uint_contents,
    "UINT32": lambda contents: contents.uint_contents,
    "UINT64": lambda contents: contents.uint64_contents,
    "FP32": lambda contents: contents.fp32_contents,
    "FP64": lambda contents: contents.fp64_contents,
    "BYTES": lambda contents: contents.bytes_contents,
}


def decode(body: Buffer, json_length: int, signature: Signature) -> InferRequest:  # noqa: ARG001 - Codec
    """Returns the request in a serialized inference.ModelInferRequest.

    Raises:
        InvalidRequest: The bytes are no such message.
        InvalidTensor: A tensor does not fit the model or its own shape.
    """
    message, raw = _parse(body)
    if raw and len(raw) != len(message.inputs):
        raise InvalidRequest(
            f"{len(message.inputs)} inputs but {len(raw)} raw_input_contents.",
            cure="Send the contents of all inputs raw, in the order of the inputs, or of none.",
        )
    inputs: dict[str, Array] = {}
    for index, tensor in enumerate(message.inputs):
        shape = tuple(tensor.shape)
        spec = signature.check_input(tensor.name, tensor.datatype, shape, inputs)
        if raw:
            inputs[tensor.name] = read_tensor(spec, shape, raw[index])
        else:
            inputs[tensor.name] = _read_typed(spec, shape, tensor)
    signature.check_complete(inputs)
    outputs = signature.check_outputs([_requested(output) for output in message.outputs])
    return InferRequest(message.id, inputs, outputs)


def _parse(body: Buffer) -> tuple[pb.ModelInferRequest, Sequence[Buffer]]:
    """Returns the message without its raw tensors, and those: views of a large body."""
    try:
        if len(body) <= SMALL_BYTES:
            message = pb.ModelInferRequest.FromString(bytes(body))
            return message, message.raw_input_contents
        small, raw = _split(body)
        return pb.ModelInferRequest.FromString(small), raw
    except DecodeError as error:
        raise InvalidRequest(f"The body is no ModelInferRequest: {error}.") from error


def _split(body: Buffer) -> tuple[bytes, list[memoryview]]:
    """Returns the serialized fields that are not raw tensors, and the raw tensors' views."""
    small: list[Buffer] = []
    raw: list[memoryview] = []
    for count, field in enumerate(wire.fields(body)):
        if count == MAX_FIELDS:
            raise InvalidRequest(f"The message has more than {MAX_FIELDS} fields.")
        if field.wire_type != wire.BYTES:
            raise InvalidRequest(f"Field {field.number} of ModelInferRequest is no text or bytes.")
        if field.number == _RAW_INPUT:
            raw.append(field.view)
        else:
            small += (wire.bytes_head(field.number, len(field.view)), field.view)
    return b"".join(small), raw


def _read_typed(
    spec: TensorSpec, shape: tuple[int, ...], tensor: pb.ModelInferRequest.InferInputTensor
) -> Array:
    """Returns the array that a tensor's typed contents stand for."""
    if "shared_memory_region" in tensor.parameters:
        raise InvalidRequest(
            f"Input '{spec.name}' lies in shared memory, which is not supported.",
            cure="Send the bytes with the request.",
        )
    typed = _TYPED.get(spec.datatype)
    if typed is None:
        raise InvalidTensor(
            f"Input '{spec.name}' is {spec.datatype}, which has no typed contents.",
            cure="Send it as raw_input_contents.",
            tensor=spec.name,
        )
    values = typed(tensor.contents)
    try:
        if spec.datatype == "BYTES":
            return strings_of(spec, values).reshape(shape)
        array = np.fromiter(values, DATATYPES[spec.datatype], count=len(values))
        return array.reshape(shape)
    except (ValueError, OverflowError) as error:
        raise InvalidTensor(
            f"Input '{spec.name}' has {len(values)} elements that do not make {spec.datatype} "
            f"{list(shape)}: {error}.",
            tensor=spec.name,
        ) from error


def _requested(output: pb.ModelInferRequest.InferRequestedOutputTensor) -> RequestedOutput:
    classes = 0
    if output.parameters:
        if "shared_memory_region" in output.parameters:
            raise InvalidRequest(
                f"Output '{output.name}' is wanted in shared memory, which is not supported.",
                cure="Take the bytes from the answer.",
            )
        if "classification" in output.parameters:
            classes = output.parameters["classification"].int64_param
            if classes < 1:
                raise InvalidRequest("The parameter 'classification' must be 1 or more (int64).")
    return RequestedOutput(output.name, classes=classes)


def encode(request: InferRequest, model: ModelLabel, outputs: Mapping[str, Array]) -> Answer:
    """Returns a serialized inference.ModelInferResponse whose tensors are the arrays' own memory.

    Raises:
        InvalidRequest: Classes are wanted of an output that has no scores.
    """
    message = pb.ModelInferResponse(
        model_name=model.name, model_version=model.version, id=request.id
    )
    outputs = classify(outputs, request.outputs)
    buffers: list[Buffer] = [b""]
    for name, _, _ in request.outputs:
        array = outputs[name]
        message.outputs.add(name=name, datatype=datatype_of(array.dtype), shape=array.shape)
        data = write_tensor(array)
        buffers += (wire.bytes_head(_RAW_OUTPUT, len(data)), data)
    buffers[0] = message.SerializeToString()
    return Answer(buffers)
