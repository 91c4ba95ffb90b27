"""Answers over HTTP: JSON of messages and of errors."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import orjson
from adlik_common.errors import AdlikError, Internal, InvalidRequest
from adlik_common.link import Buffer
from google.protobuf.message import Message

log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = b"1"
_JSON = (b"content-type", b"application/json")


class HttpAnswer(NamedTuple):
    """A response that is sent whole."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: Buffer


def json_answer(content: object, status: int = 200) -> HttpAnswer:
    """Returns an answer of JSON; `plain` makes a message into content."""
    return HttpAnswer(status, [_JSON], orjson.dumps(content))


def error_answer(error: BaseException) -> HttpAnswer:
    """Returns the answer for an error; one outside the tree is logged and told as INTERNAL."""
    if not isinstance(error, AdlikError):
        log.error("a request failed", exc_info=error)
        error = Internal(f"{type(error).__name__} in the gateway.", cure="See the gateway's log.")
    answer = json_answer(
        {
            "error": str(error),
            "code": error.code,
            "message": error.message,
            "cure": error.cure,
            "retryable": error.retryable,
            "details": error.details,
        },
        error.http_status,
    )
    if error.http_status in (429, 503):
        answer.headers.append((b"retry-after", RETRY_AFTER_SECONDS))
    return answer


def method_answer(allowed: str) -> HttpAnswer:
    """Returns the answer to a method that a path does not have."""
    error = InvalidRequest("The path does not have this method.", cure=f"Use {allowed}.")
    answer = error_answer(error)._replace(status=405)
    answer.headers.append((b"allow", allowed.encode()))
    return answer


def plain(message: Message) -> dict[str, Any]:
    """Returns a message's fields as JSON content, defaults too, 64-bit numbers as numbers.

    The protocol's clients read numbers; protobuf's own JSON mapping writes int64 as strings.
    """
    content: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        if field.has_presence and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        content[field.name] = (
            [_plain_value(field, item) for item in value]
            if field.is_repeated
            else _plain_value(field, value)
        )
    return content


def _plain_value(field: Any, value: Any) -> Any:
    if field.message_type is not None:
        return plain(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value
