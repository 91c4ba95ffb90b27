"""Starts the gateway: `python -m adlik_gateway`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import grpc.aio
from adlik_common import addresses, service
from adlik_common.health import serve_http
from adlik_common.service import Context
from adlik_proto.adlik.control.v1 import control_pb2_grpc

from adlik_gateway.catalog.projector import Projector
from adlik_gateway.catalog.view import CatalogView
from adlik_gateway.control import jobs
from adlik_gateway.control.operations import Control
from adlik_gateway.inference import plane
from adlik_gateway.inference.http_protocol import HttpProtocol
from adlik_gateway.rpc.servicer import ControlServicer
from adlik_gateway.settings import GatewaySettings
from adlik_gateway.web.app import make_app


@contextlib.asynccontextmanager
async def start(context: Context) -> AsyncIterator[None]:
    """Sets the gateway up; takes its servers down before the links to the replicas."""
    settings: GatewaySettings = context.settings
    view = CatalogView(context.state)
    context.background(view.follow_models(), "catalog view")
    context.background(view.follow_releases(), "release view")
    context.background(_follow_replicas(context, view), "replica view")
    await view.wait_ready()

    projector = Projector(context.bus, context.state)
    await projector.announce_forgotten()
    context.background(projector.run_catalog(), "consumer catalog")
    context.background(projector.run_release(), "consumer release")
    context.background(jobs.export_metrics(context.bus), "queue metrics")

    control = Control(context, view)
    data_plane = plane.build(context, settings, view.why_unserved)
    server = grpc.aio.server(options=data_plane.grpc_options)
    control_pb2_grpc.add_ControlServiceServicer_to_server(  # type: ignore[no-untyped-call]
        ControlServicer(control), server
    )
    data_plane.add_to_grpc(server)
    server.add_insecure_port(addresses.joined(settings.grpc_host, settings.grpc_port))
    app = make_app(context, control, data_plane.http_app)
    async with serve_http(
        app,
        settings.http_host,
        settings.http_port,
        http=HttpProtocol,
        ws="none",
        proxy_headers=False,
        # Above the idle time of load balancers, which must be the ones to hang up.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
    ):
        await server.start()
        try:
            yield
        finally:
            view.dismiss_watchers()
            await server.stop(settings.drain_seconds)
    await data_plane.close()


async def _follow_replicas(context: Context, view: CatalogView) -> None:
    async for change in context.state.replicas.watch():
        if change.key:
            view.replica_changed(change)


if __name__ == "__main__":
    service.run("gateway", GatewaySettings(), start)
