"""The gateway's share of the events: folds them into the catalog and releases what passed."""

from __future__ import annotations

from typing import Any

from adlik_common import names, spans, telemetry
from adlik_common.bus import Bus, Delivery
from adlik_common.state import State
from adlik_proto.adlik.events.v1 import events_pb2
from adlik_proto.adlik.model.v1 import model_pb2

from adlik_gateway.catalog import releases
from adlik_gateway.catalog.fold import FOLDED, fold, version_of


class Projector:
    """Handles events for the durable consumers `catalog` and `release`."""

    def __init__(self, bus: Bus, state: State) -> None:
        self._bus, self._state = bus, state

    async def run_catalog(self) -> None:
        """Folds every event into its version's record, until the service drains."""
        await self._bus.consume("catalog", dict.fromkeys(FOLDED, self._fold))

    async def run_release(self) -> None:
        """Decides after every verification, until the service drains."""
        await self._bus.consume("release", {events_pb2.ModelVerified: self._release})

    async def _fold(self, event: Any, _: Delivery) -> None:
        await self._folded(event)

    async def _folded(self, event: Any) -> model_pb2.ModelVersion | None:
        """Returns the record with the event in it, None where the version was deleted."""

        def change(record: model_pb2.ModelVersion | None) -> model_pb2.ModelVersion | None:
            return fold(record, event) if record is not None else None

        return await self._state.models.modify(names.version_key(*version_of(event)), change)

    async def _release(self, event: events_pb2.ModelVerified, _: Delivery) -> list[str]:
        # The catalog's consumer may not have come to this event yet; folding twice does no harm.
        record = await self._folded(event)
        if record is None:
            return []
        with telemetry.tracer().start_as_current_span(
            spans.RELEASE,
            attributes={spans.MODEL: event.pushed.name, spans.VERSION: event.pushed.version},
        ) as span:

            def change(current: model_pb2.Release | None) -> model_pb2.Release | None:
                new = releases.decide(record, current)
                if new is not None:
                    new.traceparent = telemetry.inject()
                return new

            key = names.token(event.pushed.name)
            standing = await self._state.releases.modify(key, change)
            if await self._state.models.get(names.version_key(*version_of(event))) is None:
                await self._state.releases.delete(key)  # the model was deleted meanwhile
                return []
            if standing is None or _served(standing) != _served(event):
                span.set_attribute(spans.REASON, "what is served stays")
                return []
            span.set_attribute(spans.VARIANT, standing.compiled.variant)
            span.set_attribute(spans.REVISION, standing.revision)
            span.set_attribute(spans.REASON, standing.reason)
            # Also where an earlier attempt had written the release and then stopped.
            await self._bus.publish(events_pb2.ModelReleased(release=standing))
        return []

    async def announce_forgotten(self) -> None:
        """Publishes pushes again whose gateway stopped between storing and announcing them."""
        for record in (await self._state.models.entries()).values():
            if not (record.finished or record.failures):
                await self._bus.publish(
                    events_pb2.ModelPushed(pushed=record.pushed), traceparent=record.traceparent
                )


def _served(fact: model_pb2.Release | events_pb2.ModelVerified) -> tuple[int, tuple[str, str]]:
    return fact.pushed.version, releases.artifact_of(fact.compiled)
