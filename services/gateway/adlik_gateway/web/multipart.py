"""Turns a multipart upload into a push's parts while it arrives, holding no file whole."""

from __future__ import annotations

from collections.abc import AsyncIterator

from adlik_common.errors import Cancelled, InvalidRequest
from adlik_proto.adlik.control.v1 import control_pb2
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from adlik_gateway.control.push import Part
from adlik_gateway.inference.http_compression import inflated
from adlik_gateway.upload.plans import MAX_JSON_BYTES, parse_plan

File = control_pb2.FileHeader
_ROLES = {"model": File.ROLE_MODEL, "samples": File.ROLE_SAMPLES, "external": File.ROLE_EXTERNAL}
_PLAN = "plan"


async def push_parts(request: Request, name: str) -> AsyncIterator[Part]:
    """Yields the header, then each file's header and chunks.

    Raises:
        InvalidRequest: The body is not multipart/form-data, is cut off, or has unknown parts.
        InvalidPlan: The part `plan` can't be read.
        Cancelled: The client went away.
    """
    header = control_pb2.PushHeader(name=name)
    announced = False
    plan = b""
    async for part in _form(request):
        if isinstance(part, bytes) and not announced:
            plan += part
            if len(plan) > MAX_JSON_BYTES:
                raise InvalidRequest("The part 'plan' is too large.")
            continue
        if isinstance(part, File) and part.name == _PLAN and part.role == File.ROLE_UNSPECIFIED:
            if announced:
                raise InvalidRequest("The part 'plan' must come before the files.")
            continue
        if not announced:
            announced = True
            if plan:
                header.plan.CopyFrom(parse_plan(plan))
            yield header
        yield part
    if not announced:
        yield header


def decoded(request: Request) -> AsyncIterator[bytes]:
    """Yields a request's body as it was before its Content-Encoding."""
    header = request.headers.get("content-encoding", "").encode("latin-1")
    return inflated(request.stream(), header)


async def _form(request: Request) -> AsyncIterator[File | bytes]:
    """Yields a header per part (the plan's has no role) and the bytes behind it."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise InvalidRequest(
            "A push is sent as multipart/form-data.",
            cure="Use `adlik push`, or curl with -F for each part.",
        )
    reader = _Reader()
    parser = MultipartParser(options[b"boundary"], reader.callbacks())  # type: ignore[arg-type]
    try:
        async for chunk in decoded(request):
            parser.write(chunk)
            for item in reader.take():
                yield item
        parser.finalize()
    except MultipartParseError as error:
        raise InvalidRequest(f"The multipart body can't be read: {error}.") from error
    except ClientDisconnect as error:
        raise Cancelled("The client went away during the upload.", cure="Push again.") from error
    if not reader.ended:
        raise InvalidRequest("The upload was cut off.", cure="Push again.")


class _Reader:
    """Collects what the parser finds in one chunk of the body."""

    def __init__(self) -> None:
        self._found: list[File | bytes] = []
        self._field = self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self.ended = False

    def callbacks(self) -> dict[str, object]:
        """Returns the parser's callbacks."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._data,
            "on_end": self._end,
        }

    def take(self) -> list[File | bytes]:
        """Returns and forgets what was found."""
        found, self._found = self._found, []
        return found

    def _begin(self) -> None:
        self._headers = {}

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field = self._value = b""

    def _headers_finished(self) -> None:
        disposition = self._headers.get(b"content-disposition", b"")
        _, options = parse_options_header(disposition)
        part = options.get(b"name", b"").decode("utf-8", "replace")
        if part == _PLAN:
            self._found.append(File(name=_PLAN))
        elif part in _ROLES:
            filename = options.get(b"filename", b"").decode("utf-8", "replace")
            self._found.append(File(role=_ROLES[part], name=filename))
        else:
            raise InvalidRequest(
                f"A push has no part '{part[:40]}'.", cure=f"Send {[_PLAN, *_ROLES]}."
            )

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._found.append(data[start:end])

    def _end(self) -> None:
        self.ended = True
