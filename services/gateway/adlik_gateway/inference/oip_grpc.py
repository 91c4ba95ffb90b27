"""The Open Inference Protocol over gRPC; inference requests and answers pass through as bytes."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, NoReturn

import grpc
import grpc.aio
from adlik_common.errors import AdlikError, Internal, InvalidRequest
from adlik_common.wire import bytes_head, fields
from adlik_proto.adlik.link.v1.link_pb2 import ENCODING_PROTOBUF
from adlik_proto.inference import open_inference_pb2 as oip
from google.protobuf.message import Message

from adlik_gateway.inference.calls import GRPC, Call, parse_version
from adlik_gateway.inference.metadata import Metadata
from adlik_gateway.inference.recording import Recorder
from adlik_gateway.inference.router import Router

log = logging.getLogger(__name__)

SERVICE = "inference.GRPCInferenceService"
MAX_PEEKED_FIELDS = 256
STREAM_WINDOW = 32
_NAME, _VERSION, _ID = 1, 2, 3
_STREAM_RESPONSE = 2

Context = grpc.aio.ServicerContext[Any, Any]


class Peeked(NamedTuple):
    """The fields of a ModelInferRequest that the gateway looks at."""

    model: str
    version: str
    id: str


def options(max_request_bytes: int) -> list[tuple[str, int]]:
    """Returns the gRPC server options that inference needs."""
    return [
        ("grpc.max_receive_message_length", max_request_bytes),
        ("grpc.max_send_message_length", -1),
    ]


def peek(request: bytes) -> Peeked:
    """Reads a serialized ModelInferRequest's model, version and id in place.

    Raises:
        InvalidRequest: The bytes are no such message, or name no model.
    """
    found = {_NAME: "", _VERSION: "", _ID: ""}
    # The bound keeps a message of millions of tiny fields from holding up everybody else.
    for field in itertools.islice(fields(request), MAX_PEEKED_FIELDS):
        if field.number <= _ID:
            found[field.number] = field.text
    if not found[_NAME]:
        raise InvalidRequest(
            "The ModelInferRequest names no model.", cure="Set model_name (field 1)."
        )
    return Peeked(found[_NAME], found[_VERSION], found[_ID])


class OipGrpc:
    """The service's methods.

    Args:
        router: Answers inferences.
        metadata: Answers everything else.
        recorder: Counts requests that are refused here.
    """

    def __init__(self, router: Router, metadata: Metadata, recorder: Recorder) -> None:
        self._router, self._metadata, self._recorder = router, metadata, recorder

    def handler(self) -> grpc.GenericRpcHandler:
        """Returns the service for `add_generic_rpc_handlers`."""
        describe = self._metadata
        methods = {
            "ModelInfer": grpc.unary_unary_rpc_method_handler(self._infer),
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(self._stream),
            "ServerLive": _unary(
                oip.ServerLiveRequest, lambda _: oip.ServerLiveResponse(live=True)
            ),
            "ServerReady": _unary(
                oip.ServerReadyRequest,
                lambda _: oip.ServerReadyResponse(ready=describe.server_ready()),
            ),
            "ModelReady": _unary(
                oip.ModelReadyRequest,
                lambda r: oip.ModelReadyResponse(
                    ready=describe.model_ready(r.name, parse_version(r.version))
                ),
            ),
            "ServerMetadata": _unary(oip.ServerMetadataRequest, lambda _: describe.server()),
            "ModelMetadata": _unary(
                oip.ModelMetadataRequest,
                lambda r: describe.model(r.name, parse_version(r.version)),
            ),
            "ModelConfig": _unary(
                oip.ModelConfigRequest,
                lambda r: oip.ModelConfigResponse(
                    config=describe.config(r.name, parse_version(r.version))
                ),
            ),
            "ModelStatistics": _unary(
                oip.ModelStatisticsRequest,
                lambda r: describe.statistics(r.name, parse_version(r.version)),
            ),
            "RepositoryIndex": _unary(
                oip.RepositoryIndexRequest,
                lambda r: describe.index(r.repository_name, only_ready=r.ready),
            ),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)

    async def _infer(self, request: bytes, context: Context) -> bytes:
        try:
            call = self._call(request, context)
            answer = await self._router.infer(call)
        except Exception as error:  # noqa: BLE001 - the server's edge
            await _abort(context, error)
        if answer.traceparent:
            context.set_trailing_metadata((("traceparent", answer.traceparent),))
        # gRPC takes nothing but bytes: an answer larger than the link's read buffer is copied here.
        return answer.body if isinstance(answer.body, bytes) else bytes(answer.body)

    async def _stream(self, requests: object, context: Context) -> None:
        """Answers a stream's requests in their order, several under way at once."""
        del requests  # read from the context, so that reading and writing are two tasks
        under_way: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue(STREAM_WINDOW)
        async with asyncio.TaskGroup() as group:

            async def read() -> None:
                while (request := await context.read()) is not grpc.aio.EOF:
                    await under_way.put(group.create_task(self._streamed(request, context)))
                await under_way.put(None)

            group.create_task(read())
            while (task := await under_way.get()) is not None:
                await context.write(await task)

    async def _streamed(self, request: bytes, context: Context) -> bytes:
        """Returns the serialized ModelStreamInferResponse of one request, an error in it if so."""
        request_id = ""
        try:
            call = self._call(request, context)
            request_id = peek(request).id
            answer = await self._router.infer(call)
        except Exception as error:  # noqa: BLE001 - the server's edge
            return oip.ModelStreamInferResponse(
                error_message=str(_told(error)),
                infer_response=oip.ModelInferResponse(id=request_id),
            ).SerializeToString()
        head = bytes_head(_STREAM_RESPONSE, len(answer.body))
        return b"".join((head, answer.body))

    def _call(self, request: bytes, context: Context) -> Call:
        """Returns the call that a serialized request makes."""
        try:
            model, version, _ = peek(request)
            number = parse_version(version)
        except AdlikError as error:
            self._recorder.refused(GRPC, error)
            raise
        return Call(
            model=model,
            version=number,
            encoding=ENCODING_PROTOBUF,
            body=(request,),
            protocol=GRPC,
            timeout=context.time_remaining(),
            traceparent=_traceparent(context),
        )


def _traceparent(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == "traceparent":
            return str(value)
    return ""


def _unary(
    request_type: type[Message], answer: Callable[[Any], Message]
) -> grpc.RpcMethodHandler[Any, Any]:
    """Returns a method that answers a message with a message."""

    async def handle(request: Any, context: Context) -> Message:
        try:
            return answer(request)
        except Exception as error:  # noqa: BLE001 - the server's edge
            await _abort(context, error)

    handler: Callable[[Any, Context], Awaitable[Message]] = handle
    return grpc.unary_unary_rpc_method_handler(
        handler,
        request_deserializer=request_type.FromString,
        response_serializer=lambda message: message.SerializeToString(),
    )


def _told(error: Exception) -> AdlikError:
    """Returns the error that the caller is told."""
    if isinstance(error, AdlikError):
        return error
    log.error("a request failed", exc_info=error)
    return Internal(f"{type(error).__name__} in the gateway.", cure="See the gateway's log.")


async def _abort(context: Context, error: Exception) -> NoReturn:
    """Ends the call with the error's status, its words, and its code for programs."""
    told = _told(error)
    await context.abort(grpc.StatusCode[told.grpc_status], str(told), (("adlik-code", told.code),))
    raise AssertionError("abort always raises")
