"""Puts the data plane's parts together and keeps its table up to date."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import grpc.aio
from adlik_common.names import untoken
from adlik_common.service import Context
from adlik_common.state import Change
from adlik_proto.adlik.control.v1 import control_pb2
from adlik_proto.adlik.model.v1.model_pb2 import Release
from google.protobuf.message import Message

from adlik_gateway import metrics
from adlik_gateway.inference import oip_grpc
from adlik_gateway.inference.grpc_health import GrpcHealth
from adlik_gateway.inference.metadata import Metadata
from adlik_gateway.inference.oip_grpc import OipGrpc
from adlik_gateway.inference.oip_http import OipHttp
from adlik_gateway.inference.recording import Recorder
from adlik_gateway.inference.replicas import ReplicaTable, Unserved
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
        statistics: What was asked so far.
        grpc_options: Options to make the gRPC server with.
    """

    http_app: OipHttp
    table: ReplicaTable
    router: Router
    metadata: Metadata
    statistics: Statistics
    grpc_options: list[tuple[str, int]]
    _grpc: OipGrpc
    _health: GrpcHealth

    def add_to_grpc(self, server: grpc.aio.Server) -> None:
        """Adds inference.GRPCInferenceService and grpc.health.v1.Health to a server."""
        server.add_generic_rpc_handlers((self._grpc.handler(), self._health.handler()))

    def apply_release(self, key: str, release: Release | None) -> None:
        """Takes a change of the release bucket; forgets what is told of a model that is gone."""
        self.table.apply_release(key, release)
        if release is not None:
            name = release.pushed.name
            self.statistics.keep(name, {release.pushed.version, *self.table.versions(name)})
        elif key:
            self.statistics.keep(untoken(key), ())
            metrics.forget(untoken(key))

    async def close(self) -> None:
        """Closes the links; call it after the servers have drained."""
        await self.table.close()


def build(context: Context, settings: GatewaySettings, unserved: Unserved) -> DataPlane:
    """Returns a data plane that follows the mesh's state; `unserved` is as the table's."""
    plane = assemble(ReplicaTable(unserved), settings, context.stopping.is_set)
    state = context.state
    context.background(_follow(state.replicas.watch(), plane.table.apply), "replica table")
    context.background(_follow(state.releases.watch(), plane.apply_release), "release table")
    return plane


def assemble(
    table: ReplicaTable, settings: GatewaySettings, stopping: Callable[[], bool] = lambda: False
) -> DataPlane:
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
    ready: Mapping[str, Callable[[], bool]] = {
        "": metadata.server_ready,
        oip_grpc.SERVICE: metadata.server_ready,
        control_pb2.DESCRIPTOR.services_by_name["ControlService"].full_name: lambda: True,
    }
    return DataPlane(
        http_app=OipHttp(router, metadata, recorder, max_request_bytes=limit),
        table=table,
        router=router,
        metadata=metadata,
        statistics=statistics,
        grpc_options=oip_grpc.options(limit),
        _grpc=OipGrpc(router, metadata, recorder),
        _health=GrpcHealth(ready, table.changed, stopping),
    )


async def _follow(
    changes: AsyncIterator[Change[M]], apply: Callable[[str, M | None], None]
) -> None:
    async for key, value in changes:
        apply(key, value)
