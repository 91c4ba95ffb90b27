"""What users ask of the gateway: list, watch, delete, release, roll back, trace."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from adlik_common import names, telemetry
from adlik_common.errors import InvalidRequest, NotFound
from adlik_common.service import Context
from adlik_proto.adlik.control.v1 import control_pb2
from adlik_proto.adlik.events.v1 import events_pb2
from adlik_proto.adlik.model.v1 import model_pb2
from adlik_proto.adlik.trace.v1 import trace_pb2

from adlik_gateway.catalog import releases
from adlik_gateway.catalog.view import CatalogView
from adlik_gateway.control import jobs, traces
from adlik_gateway.control.push import Pusher


class Control:
    """The control plane; both transports call it and translate its errors."""

    def __init__(self, context: Context, view: CatalogView) -> None:
        self._context, self.view = context, view
        self.push = Pusher(context, view).push

    def watch(self, name: str) -> AsyncIterator[control_pb2.WatchModelsResponse]:
        """Yields the current state, then every change; "" watches all models."""
        if name:
            names.check_model_name(name)
        return self._news(name)

    async def _news(self, name: str) -> AsyncIterator[control_pb2.WatchModelsResponse]:
        with self.view.watching() as notices:
            for model in self.view.models():
                if name in ("", model.name):
                    yield _news("Snapshot", model)
            async for notice in notices:
                if name not in ("", notice.name):
                    continue
                try:
                    model = self.view.model(notice.name)
                except NotFound:
                    model = control_pb2.Model(name=notice.name)
                yield _news(notice.event, model)

    async def delete(self, name: str) -> None:
        """Takes a model and all its versions away; replicas unload it."""
        model = self.view.model(name)
        key = names.token(name)

        def forget(head: model_pb2.ModelHead | None) -> model_pb2.ModelHead | None:
            if head is not None:
                head.versions.clear()
            return head

        await self._context.state.heads.modify(key, forget)
        numbers = [record.pushed.version for record in model.versions]
        for number in numbers:
            await self._context.state.models.delete(names.version_key(name, number))
        # After the records: a release that is being decided looks for its record once written.
        await self._context.state.releases.delete(key)
        await self._context.bus.publish(events_pb2.ModelDeleted(name=name, versions=numbers))

    async def release(self, name: str, version: int, variant: str) -> model_pb2.Release:
        """Serves a variant that a person chose; raises `InvalidRequest` where it may not be."""
        record = self.view.version(name, version)
        chosen = {v.compiled.variant: v for v in record.variants}.get(variant)
        if chosen is None:
            known = ", ".join(v.compiled.variant for v in record.variants)
            raise NotFound(f"'{name}' has no variant '{variant}'.", cure=f"It has {known}.")
        if not chosen.verification.accepted:
            raise InvalidRequest(
                f"'{variant}' may not be released: {chosen.note.rstrip('.')}.",
                cure="Push the model with a plan whose limits allow it.",
            )

        def change(current: model_pb2.Release | None) -> model_pb2.Release:
            new = releases.release(record, chosen, current, "chosen by hand", pinned=True)
            new.traceparent = telemetry.inject()
            return new

        return await self._put(name, change)

    async def rollback(self, name: str) -> model_pb2.Release:
        """Serves again what was served before; raises `InvalidRequest` where nothing was."""
        self.view.model(name)

        def change(current: model_pb2.Release | None) -> model_pb2.Release:
            new = releases.rolled_back(current) if current is not None else None
            if new is None:
                raise InvalidRequest(
                    f"'{name}' has no earlier release.",
                    cure="Choose a variant with `adlik release`.",
                )
            new.traceparent = telemetry.inject()
            return new

        return await self._put(name, change)

    async def jobs(self) -> control_pb2.ListJobsResponse:
        """Returns what waits, runs and was given up."""
        return await jobs.list_jobs(self._context.bus)

    def replicas(self) -> control_pb2.ListReplicasResponse:
        """Returns every running service process."""
        ordered = sorted(self.view.replicas.items())
        return control_pb2.ListReplicasResponse(replicas=[replica for _, replica in ordered])

    async def trace(self, request: control_pb2.GetTraceRequest) -> trace_pb2.Trace:
        """Returns a trace by its id, of a model's newest push, or of the newest inference."""
        kind = request.WhichOneof("which")
        if kind == "trace_id":
            trace_id = request.trace_id
        elif kind == "model":
            trace_id = self.view.version(request.model, 0).trace_id
        elif kind == "last_inference":
            trace_id = await traces.last_inference(self._context.bus)
        else:
            raise InvalidRequest("Which trace?", cure="Give an id, a model, or last=inference.")
        return await traces.read_trace(self._context.bus, trace_id)

    async def _put(
        self, name: str, change: Callable[[model_pb2.Release | None], model_pb2.Release | None]
    ) -> model_pb2.Release:
        release = await self._context.state.releases.modify(names.token(name), change)
        assert release is not None
        await self._context.bus.publish(events_pb2.ModelReleased(release=release))
        return release


def _news(event: str, model: control_pb2.Model) -> control_pb2.WatchModelsResponse:
    news = control_pb2.WatchModelsResponse(event=event, model=model)
    news.time.GetCurrentTime()
    return news
