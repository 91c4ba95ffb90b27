"""Puts the data plane's parts together and keeps its table up to date."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import TypeVar

import grpc.aio
from adlik_common.service import Context
from adlik_common.state import Change
from google.protobuf.message import Message

from adlik_gateway.inference import oip_grpc
from adlik_gateway.inference.metadata import Metadata
from adlik_gateway.inference.oip_grpc import OipGrpc
from adlik_gateway.inference.oip_http import OipHttp
from adlik_gateway.inference.recording import Recorder
from adlik_gateway.inference.replicas import ReplicaTable
from adlik_gateway.inference.router import Router
from adlik_gateway.inference.sampling import TraceSampler
from adlik_gateway.inference.statistics import Statistics
from adlik_gateway.settings import GatewaySettings

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class DataPlane:
    """The parts that the gateway's servers need.

    Attributes:
        http_app: ASGI application for /v2 and everything under it.
        table: Which replica holds what.
        router: Answers inferences.
        metadata: Answers questions about models.
        grpc_options: Options to make the gRPC server with.
    """

    http_app: OipHttp
    table: ReplicaTable
    router: Router
    metadata: Metadata
    grpc_options: list[tuple[str, int]]
    _grpc: OipGrpc

    def add_to_grpc(self, server: grpc.aio.Server) -> None:
        """Adds inference.GRPCInferenceService to a server."""
        server.add_generic_rpc_handlers((self._grpc.handler(),))

    async def close(self) -> None:
        """Closes the links; call it after the servers have drained."""
        await self.table.close()


def build(context: Context, settings: GatewaySettings) -> DataPlane:
    """Returns a data plane that follows the mesh's state."""
    plane = assemble(ReplicaTable(), settings)
    table, state = plane.table, context.state
    context.background(_follow(state.replicas.watch(), table.apply), "replica table")
    context.background(_follow(state.releases.watch(), table.apply_release), "release table")
    return plane


def assemble(table: ReplicaTable, settings: GatewaySettings) -> DataPlane:
    """Returns a data plane over a table that somebody else keeps up to date."""
    statistics = Statistics()
    recorder = Recorder(table, statistics, TraceSampler(settings.trace_inferences_per_second))
    router = Router(
        table,
        recorder,
        attempts=settings.infer_attempts,
        wait_seconds=settings.replica_wait_seconds,
        timeout_seconds=settings.infer_timeout_seconds,
    )
    metadata = Metadata(table, statistics)
    limit = settings.max_request_bytes
    return DataPlane(
        http_app=OipHttp(router, metadata, recorder, max_request_bytes=limit),
        table=table,
        router=router,
        metadata=metadata,
        grpc_options=oip_grpc.options(limit),
        _grpc=OipGrpc(router, metadata, recorder),
    )


async def _follow(
    changes: AsyncIterator[Change[M]], apply: Callable[[str, M | None], None]
) -> None:
    async for key, value in changes:
        apply(key, value)
