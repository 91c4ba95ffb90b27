"""Bodies that are one tensor's bytes and nothing else: raw binary requests, answered by JSON."""

from __future__ import annotations

import math

from adlik_common.errors import InvalidRequest, InvalidTensor
from adlik_common.tensors import DATATYPES, TensorSpec

from adlik_serving.oip.json_body import encode, encoding_work
from adlik_serving.oip.request import Array, Buffer, InferRequest, Signature
from adlik_serving.oip.tensor_bytes import read_tensor, string_array

__all__ = ["decode", "decoding_work", "encode", "encoding_work"]


def decode(body: Buffer, json_length: int, signature: Signature) -> InferRequest:  # noqa: ARG001 - Codec
    """Returns the request that the bytes of a model's one input make.

    Raises:
        InvalidRequest: The model has several inputs, or none.
        InvalidTensor: The bytes do not tell the tensor's shape, or do not make it.
    """
    if len(signature.inputs) != 1:
        raise InvalidRequest(
            f"The body is raw bytes of one input; the model has {len(signature.inputs)}.",
            cure="Send JSON before the tensors, and its length as Inference-Header-Content-Length.",
        )
    (spec,) = signature.inputs.values()
    if not len(body):
        raise InvalidTensor(
            f"The body is empty; it should be the raw bytes of input '{spec.name}'.",
            tensor=spec.name,
        )
    return InferRequest("", {spec.name: _read(spec, body)}, signature.all_outputs)


def decoding_work(body: Buffer, json_length: int, signature: Signature) -> int:  # noqa: ARG001 - Codec
    """Returns how many bytes of a body have to be looked at one by one."""
    return len(body) if signature.scanned else 0


def _read(spec: TensorSpec, body: Buffer) -> Array:
    """Returns the tensor; one axis of the model's may be open, its size follows from the bytes."""
    if spec.datatype == "BYTES":
        shape = [1 if size == -1 else size for size in spec.shape]
        if math.prod(shape) != 1:
            raise _unclear(spec, f"shape {list(spec.shape)} has more than the one string of a body")
        return string_array(spec, [body]).reshape(shape)
    if spec.shape.count(-1) > 1:
        raise _unclear(spec, f"of shape {list(spec.shape)} more than one size is open")
    known = [size for size in spec.shape if size != -1]
    step = math.prod(known) * DATATYPES[spec.datatype].itemsize
    if not step or len(body) % step:
        raise _unclear(spec, f"{len(body)} bytes are not a multiple of {step}")
    shape = [len(body) // step if size == -1 else size for size in spec.shape]
    return read_tensor(spec, shape, body)


def _unclear(spec: TensorSpec, reason: str) -> InvalidTensor:
    return InvalidTensor(
        f"The raw bytes do not tell the shape of input '{spec.name}': {reason}.",
        cure="Send JSON with the shape before the bytes, and its length as "
        "Inference-Header-Content-Length.",
        tensor=spec.name,
    )
