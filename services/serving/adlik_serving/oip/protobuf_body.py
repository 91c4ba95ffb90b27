"""The protocol's gRPC messages, read and written in place: tensor bytes are never parsed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from adlik_common import wire
from adlik_common.errors import InvalidRequest
from adlik_common.tensors import datatype_of
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
    check_parameters,
)
from adlik_serving.oip.tensor_bytes import read_tensor, write_tensor
from adlik_serving.oip.typed_contents import TypedContents, read_typed

SMALL_BYTES = 64 * 1024
MAX_FIELDS = 4096

_RAW_INPUT = pb.ModelInferRequest.RAW_INPUT_CONTENTS_FIELD_NUMBER
_RAW_OUTPUT = pb.ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER
_INPUTS = pb.ModelInferRequest.INPUTS_FIELD_NUMBER
_CONTENTS = pb.ModelInferRequest.InferInputTensor.CONTENTS_FIELD_NUMBER


class _Body(NamedTuple):
    """A request's message and its tensors: of a large body views, which its message is without.

    Attributes:
        message: The message.
        contents: Of each input of a large body, the InferTensorContents that merge into its own.
        raw: The raw input contents.
    """

    message: pb.ModelInferRequest
    contents: Sequence[TypedContents]
    raw: Sequence[Buffer]


def decode(body: Buffer, json_length: int, signature: Signature) -> InferRequest:  # noqa: ARG001 - Codec
    """Returns the request in a serialized inference.ModelInferRequest.

    Raises:
        InvalidRequest: The bytes are no such message.
        InvalidTensor: A tensor does not fit the model or its own shape.
    """
    try:
        message, contents, raw = _parse(body)
        _check(message.parameters, "request")
        inputs = _read_inputs(message, contents, raw, signature)
    except DecodeError as error:
        raise InvalidRequest(f"The body is no ModelInferRequest: {error}.") from error
    outputs = signature.check_outputs([_requested(output) for output in message.outputs])
    return InferRequest(message.id, inputs, outputs)


def decoding_work(body: Buffer, json_length: int, signature: Signature) -> int:  # noqa: ARG001 - Codec
    """Returns how many bytes of a body have to be looked at one by one."""
    if len(body) <= SMALL_BYTES or signature.scanned:
        return len(body)
    try:
        raw = sum(len(field.view) for field in _fields(body) if field.number == _RAW_INPUT)
    except InvalidRequest:
        raw = 0  # told by `decode`
    return len(body) - raw


def _parse(body: Buffer) -> _Body:
    """Returns the parts of a body."""
    if len(body) > SMALL_BYTES:
        return _split(body)
    message = pb.ModelInferRequest.FromString(bytes(body))
    return _Body(message, (), message.raw_input_contents)


def _split(body: Buffer) -> _Body:
    """Returns the parts of a body; what it has of tensors is neither parsed nor copied."""
    small: list[Buffer] = []
    contents: list[TypedContents] = []
    raw: list[memoryview] = []
    for field in _fields(body):
        if field.wire_type != wire.BYTES:
            raise InvalidRequest(f"Field {field.number} of ModelInferRequest is no text or bytes.")
        if field.number == _RAW_INPUT:
            raw.append(field.view)
            continue
        kept: Buffer = field.view
        if field.number == _INPUTS:
            kept, typed = _split_input(field.view)
            contents.append(TypedContents.cut(typed))
        small += (wire.bytes_head(field.number, len(kept)), kept)
    return _Body(pb.ModelInferRequest.FromString(b"".join(small)), contents, raw)


def _split_input(tensor: memoryview) -> tuple[bytes, list[memoryview]]:
    """Returns a serialized InferInputTensor without its contents, and these."""
    kept: list[Buffer] = []
    contents: list[memoryview] = []
    for field in _fields(tensor):
        if field.number == _CONTENTS:
            contents.append(field.view)
        elif field.wire_type == wire.BYTES:
            kept += (wire.bytes_head(field.number, len(field.view)), field.view)
        elif isinstance(field.value, int):  # of a shape that is not packed
            kept.append(wire.write_varint(field.number << 3) + wire.write_varint(field.value))
    return b"".join(kept), contents


def _fields(message: Buffer) -> Iterator[wire.Field]:
    for count, field in enumerate(wire.fields(message)):
        if count == MAX_FIELDS:
            raise InvalidRequest(f"The message has more than {MAX_FIELDS} fields.")
        yield field


def _read_inputs(
    message: pb.ModelInferRequest,
    contents: Sequence[TypedContents],
    raw: Sequence[Buffer],
    signature: Signature,
) -> dict[str, Array]:
    """Returns the input arrays."""
    if raw and len(raw) != len(message.inputs):
        raise InvalidRequest(
            f"{len(message.inputs)} inputs but {len(raw)} raw_input_contents.",
            cure="Send the contents of all inputs raw, in the order of the inputs, or of none.",
        )
    inputs: dict[str, Array] = {}
    for index, tensor in enumerate(message.inputs):
        _check(tensor.parameters, f"input '{tensor.name}'")
        shape = tuple(tensor.shape)
        spec = signature.check_input(tensor.name, tensor.datatype, shape, inputs)
        typed = contents[index] if contents else TypedContents.of(tensor)
        if not raw:
            inputs[tensor.name] = read_typed(spec, shape, typed)
            continue
        if typed.size:
            raise InvalidRequest(
                f"Input '{tensor.name}' has typed contents beside raw_input_contents.",
                cure="Send the contents of all inputs raw, or of all of them typed.",
            )
        inputs[tensor.name] = read_tensor(spec, shape, raw[index])
    signature.check_complete(inputs)
    return inputs


def _requested(output: pb.ModelInferRequest.InferRequestedOutputTensor) -> RequestedOutput:
    classes = 0
    if output.parameters:
        _check(output.parameters, f"output '{output.name}'")
        if "classification" in output.parameters:
            classes = output.parameters["classification"].int64_param
            if classes < 1:
                raise InvalidRequest("The parameter 'classification' must be 1 or more (int64).")
    return RequestedOutput(output.name, classes=classes)


def _check(parameters: Mapping[str, pb.InferParameter], where: str) -> None:
    if parameters:
        plain = {
            name: getattr(value, value.WhichOneof("parameter_choice") or "bool_param")
            for name, value in parameters.items()
        }
        check_parameters(plain, where)


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


def encoding_work(request: InferRequest, outputs: Mapping[str, Array]) -> int:
    """Returns how many elements of the outputs have to be written one by one."""
    return sum(
        outputs[name].size
        for name, _, classes in request.outputs
        if classes or outputs[name].dtype == np.object_
    )
