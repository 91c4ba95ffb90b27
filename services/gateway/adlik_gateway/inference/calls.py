"""An inference on its way through the gateway: what is asked, and what is answered."""

from __future__ import annotations

from typing import NamedTuple

from adlik_common.errors import InvalidRequest
from adlik_common.link import Buffer
from adlik_proto.adlik.link.v1.link_pb2 import Encoding, InferResponseHead

GRPC, HTTP = "grpc", "http"


class Call(NamedTuple):
    """An inference request; the body is passed on as it is.

    Attributes:
        model: The model's name.
        version: Its version; 0: whatever is released.
        encoding: How the body, and so the answer, is written.
        body: The body's bytes, in as many pieces as it came.
        protocol: GRPC or HTTP: how it came.
        json_length: Bytes of the body that are JSON; 0: all of it.
        timeout: Seconds that the caller will wait; None: it did not say.
        traceparent: The caller's W3C trace context; "": none.
    """

    model: str
    version: int
    encoding: Encoding.ValueType
    body: tuple[Buffer, ...]
    protocol: str
    json_length: int = 0
    timeout: float | None = None
    traceparent: str = ""


class Answer(NamedTuple):
    """An inference's answer.

    Attributes:
        head: What the replica says of it.
        body: The answer's bytes, in the encoding of the request.
        traceparent: Trace context of the gateway's span; "" where the request was not traced.
    """

    head: InferResponseHead
    body: Buffer
    traceparent: str


def size(buffer: Buffer) -> int:
    """Returns the number of bytes in a buffer."""
    return buffer.nbytes if isinstance(buffer, memoryview) else len(buffer)


def parse_version(text: str) -> int:
    """Returns the version that the protocol's text names, 0 for ""."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InvalidRequest(
            f"'{text[:40]}' is no version: versions are whole numbers.",
            cure="Leave the version out to ask for what is released.",
        )
    return int(text)
