"""The control plane over gRPC: adlik.control.v1.ControlService."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any, NoReturn

import grpc
import grpc.aio
from adlik_common.errors import AdlikError, Internal, InvalidRequest
from adlik_proto.adlik.control.v1 import control_pb2, control_pb2_grpc

from adlik_gateway.control.operations import Control
from adlik_gateway.control.push import Part

log = logging.getLogger(__name__)

CODE_METADATA = "adlik-code"


class ControlServicer(control_pb2_grpc.ControlServiceServicer):
    """Translates between messages and the control plane, and its errors into gRPC's."""

    def __init__(self, control: Control) -> None:
        self._control = control

    async def PushModel(
        self, request_iterator: AsyncIterator[control_pb2.PushModelRequest], context: Any
    ) -> control_pb2.PushModelResponse:
        """Takes a stream of a header, file headers and chunks."""
        metadata = dict(context.invocation_metadata() or ())
        async with _translated(context):
            return await self._control.push(
                _parts(request_iterator), str(metadata.get("traceparent", ""))
            )

    async def GetModel(
        self, request: control_pb2.GetModelRequest, context: Any
    ) -> control_pb2.GetModelResponse:
        """Returns a model, with all versions or one."""
        async with _translated(context):
            model = self._control.view.model(request.name)
            if request.version:
                record = self._control.view.version(request.name, request.version)
                del model.versions[:]
                model.versions.append(record)
            return control_pb2.GetModelResponse(model=model)

    async def ListModels(
        self, request: control_pb2.ListModelsRequest, context: Any
    ) -> control_pb2.ListModelsResponse:
        """Returns all models."""
        async with _translated(context):
            return control_pb2.ListModelsResponse(models=self._control.view.models())

    async def WatchModels(
        self, request: control_pb2.WatchModelsRequest, context: Any
    ) -> AsyncIterator[control_pb2.WatchModelsResponse]:
        """Streams the state, then every change."""
        async with _translated(context):
            async for news in self._control.watch(request.name):
                yield news

    async def DeleteModel(
        self, request: control_pb2.DeleteModelRequest, context: Any
    ) -> control_pb2.DeleteModelResponse:
        """Deletes a model."""
        async with _translated(context):
            await self._control.delete(request.name)
            return control_pb2.DeleteModelResponse()

    async def ReleaseModel(
        self, request: control_pb2.ReleaseModelRequest, context: Any
    ) -> control_pb2.ReleaseModelResponse:
        """Serves a chosen variant."""
        async with _translated(context):
            release = await self._control.release(request.name, request.version, request.variant)
            return control_pb2.ReleaseModelResponse(release=release)

    async def RollbackModel(
        self, request: control_pb2.RollbackModelRequest, context: Any
    ) -> control_pb2.RollbackModelResponse:
        """Serves again what was served before."""
        async with _translated(context):
            release = await self._control.rollback(request.name)
            return control_pb2.RollbackModelResponse(release=release)

    async def ListJobs(
        self, request: control_pb2.ListJobsRequest, context: Any
    ) -> control_pb2.ListJobsResponse:
        """Returns what waits, runs and was given up."""
        async with _translated(context):
            return await self._control.jobs()

    async def ListReplicas(
        self, request: control_pb2.ListReplicasRequest, context: Any
    ) -> control_pb2.ListReplicasResponse:
        """Returns every running service process."""
        return self._control.replicas()

    async def GetTrace(
        self, request: control_pb2.GetTraceRequest, context: Any
    ) -> control_pb2.GetTraceResponse:
        """Returns a trace."""
        async with _translated(context):
            return control_pb2.GetTraceResponse(trace=await self._control.trace(request))


@contextlib.asynccontextmanager
async def _translated(context: Any) -> AsyncIterator[None]:
    try:
        yield
    except AdlikError as error:
        await abort(context, error)
    except Exception as error:
        log.exception("A call failed")
        await abort(context, Internal(f"{type(error).__name__}.", cure="See the log."))


async def abort(context: Any, error: AdlikError) -> NoReturn:
    """Ends a call with an error's status; its code stands in the trailing metadata."""
    status = grpc.StatusCode[error.grpc_status]
    await context.abort(status, str(error), ((CODE_METADATA, error.code),))
    raise AssertionError("abort does not return")


async def _parts(requests: AsyncIterator[control_pb2.PushModelRequest]) -> AsyncIterator[Part]:
    async for request in requests:
        kind = request.WhichOneof("part")
        if kind is None:
            raise InvalidRequest("A push request is empty.")
        yield getattr(request, kind)
