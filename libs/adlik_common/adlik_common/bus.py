"""The NATS connection: publishes facts and hands them to durable consumers, at least once.

Events are CloudEvents in binary mode: attributes in `ce-*` headers, the protobuf message as data.
An event is acknowledged after its handler has returned; while a handler runs the bus tells NATS
so. A retryable error is tried again, with a pause, up to the limit; any other error, and the last
try, puts the event on the dead-letter stream and publishes `StageFailed`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import nats
from adlik_proto.adlik.events.v1 import events_pb2
from adlik_proto.adlik.model.v1 import model_pb2
from google.protobuf.message import DecodeError, Message
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext, api
from opentelemetry import trace
from prometheus_client import Counter, Histogram

from adlik_common import events, spans, telemetry
from adlik_common.errors import AdlikError, Internal, Unavailable, to_proto
from adlik_common.settings import ServiceSettings

log = logging.getLogger(__name__)

ACK_WAIT_SECONDS = 10.0
HEARTBEAT_SECONDS = 3.0
PUBLISH_PATIENCE_SECONDS = 60.0
MAX_RETRY_PAUSE_SECONDS = 30.0

HANDLED = Histogram(
    "adlik_event_seconds",
    "Time to handle an event.",
    ["consumer", "event", "outcome"],
    buckets=(0.005, 0.02, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600),
)
PUBLISHED = Counter("adlik_events_published_total", "Events published.", ["event"])

Handler = Callable[[Any, "Delivery"], Awaitable[Sequence[str] | None]]


@dataclass(frozen=True, slots=True)
class Delivery:
    """How an event reached its handler.

    Attributes:
        attempt: 1 for the first delivery of this event.
        last: No further attempt will be made.
    """

    attempt: int
    last: bool


@dataclass(slots=True)
class Bus:
    """Publishes and consumes events on one connection; make it with `connect`.

    Attributes:
        epoch: Counts the connections to NATS.
        draining: Set once no new event may be taken.
        last_fetch: Time of the last word from NATS by consumer, of the monotonic clock.
        untraced: Durable consumers whose work is bookkeeping and tells no story.
    """

    client: Client
    jetstream: JetStreamContext
    settings: ServiceSettings
    source: str
    epoch: int = 0
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    last_fetch: dict[str, float] = field(default_factory=dict)
    untraced: frozenset[str] = frozenset({"catalog"})

    async def publish(self, event: Message, *, traceparent: str | None = None) -> None:
        """Publishes a fact and returns once it is stored.

        The id is the same for the same fact, so that publishing again within the stream's
        de-duplication window does nothing.

        Args:
            event: A message of adlik.events.v1.
            traceparent: W3C trace context to carry; the current span's by default.

        Raises:
            Unavailable: The bus could not be reached for a minute.
        """
        headers = {
            "Nats-Msg-Id": events.event_id(event),
            "ce-specversion": "1.0",
            "ce-id": events.event_id(event),
            "ce-source": self.source,
            "ce-type": events.type_name(event),
            "ce-time": datetime.now(UTC).isoformat(),
            "content-type": "application/protobuf",
        }
        context = traceparent or telemetry.inject()
        if context:
            headers["traceparent"] = context
        await self.store(events.subject(event), event.SerializeToString(), headers)
        PUBLISHED.labels(type(event).__name__).inc()

    async def store(self, subject: str, data: bytes, headers: dict[str, str]) -> None:
        """Puts a message in the stream of its subject, however long NATS is away (a minute)."""
        give_up = time.monotonic() + PUBLISH_PATIENCE_SECONDS
        while True:
            try:
                await self.jetstream.publish(subject, data, timeout=5, headers=headers)
            except (NatsError, TimeoutError, OSError) as error:
                if time.monotonic() > give_up:
                    raise Unavailable(
                        "The message bus does not answer.", cure="Check that NATS is running."
                    ) from error
                await asyncio.sleep(0.25)
            else:
                return

    async def fail(
        self, pushed: model_pb2.PushedModel, stage: str, subject: str, error: BaseException
    ) -> None:
        """Publishes that a stage gave up on a recipe, target or event."""
        failure = model_pb2.Failure(stage=stage, subject=subject, error=to_proto(error))
        failure.failed_at.GetCurrentTime()
        await self.publish(events_pb2.StageFailed(pushed=pushed, failure=failure))

    async def consume(self, durable: str, handlers: Mapping[type[Message], Handler]) -> None:
        """Handles events one after another until the service drains.

        Args:
            durable: Name of the durable consumer, after the job it does; processes that use the
                same name share the work.
            handlers: What to do with each type of event. A handler may be called again with the
                same event and must then come to the same result. A list that it returns (recipes,
                variants: what later stages will work on) is published as `StageFinished`.
        """
        config = api.ConsumerConfig(
            durable_name=durable,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_SECONDS,
            filter_subjects=[events.subject_filter(event_type) for event_type in handlers],
            max_ack_pending=1024,
        )
        by_name = {t.DESCRIPTOR.full_name: (t, handler) for t, handler in handlers.items()}
        while not self.draining.is_set():
            try:
                await self.jetstream.add_consumer(events.STREAM, config)
                await self._fetch_until_reconnect(durable, by_name)
            except (NatsError, TimeoutError, OSError) as error:
                log.warning("consumer %s: %s; binding again", durable, error or type(error))
                await asyncio.sleep(0.5)

    async def _fetch_until_reconnect(
        self, durable: str, handlers: dict[str, tuple[type[Message], Handler]]
    ) -> None:
        # A pull subscription may stay silent after the server has restarted, so each
        # connection gets a new one.
        epoch = self.epoch
        subscription = await self.jetstream.pull_subscribe_bind(
            consumer=durable, stream=events.STREAM
        )
        with contextlib.suppress(NatsError):
            while not self.draining.is_set() and self.epoch == epoch:
                fetch = asyncio.create_task(subscription.fetch(1, timeout=5))
                drain = asyncio.create_task(self.draining.wait())
                await asyncio.wait({fetch, drain}, return_when=asyncio.FIRST_COMPLETED)
                drain.cancel()
                if not fetch.done():
                    fetch.cancel()
                    break
                self.last_fetch[durable] = time.monotonic()
                try:
                    messages = fetch.result()
                except TimeoutError:
                    continue
                for message in messages:
                    await self._handle(durable, handlers, message)
            await subscription.unsubscribe()

    async def _handle(
        self, durable: str, handlers: dict[str, tuple[type[Message], Handler]], message: Msg
    ) -> None:
        headers = message.headers or {}
        attempt = message.metadata.num_delivered or 1
        kind = headers.get("ce-type", "")
        name = kind.rpartition(".")[2]
        started = time.perf_counter()
        outcome = "ok"
        try:
            event_type, handler = handlers[kind]
            event = event_type.FromString(message.data)
        except (KeyError, DecodeError) as error:
            log.exception("consumer %s: unreadable event %r", durable, kind)
            await self._bury(durable, message, Internal(f"Unreadable event: {error}"))
            return
        last = attempt >= self.settings.max_attempts
        with self._span(durable, name, attempt, headers.get("traceparent", "")) as span:
            try:
                if attempt > self.settings.max_attempts:
                    raise Internal(  # noqa: TRY301 - buried like any other failure
                        f"Given up after {attempt - 1} attempts that ended without a word.",
                        cure="The worker was killed each time: look at its memory and its log.",
                    )
                with self._heartbeats(message):
                    outputs = await handler(event, Delivery(attempt, last))
                    if outputs is not None:
                        await self._finish(durable, event, outputs)
                await message.ack()
            except asyncio.CancelledError:
                with contextlib.suppress(NatsError):
                    await message.nak()
                raise
            except Exception as error:  # noqa: BLE001 - the outermost edge of a handler
                outcome = error.code if isinstance(error, AdlikError) else "INTERNAL"
                telemetry.record_error(span, error)
                await self._failed(durable, event, message, error, attempt)
        HANDLED.labels(durable, name, outcome).observe(time.perf_counter() - started)

    def _span(
        self, durable: str, event: str, attempt: int, traceparent: str
    ) -> AbstractContextManager[trace.Span]:
        context = telemetry.context_from(traceparent)
        if durable in self.untraced:
            return trace.use_span(trace.get_current_span(context))
        return telemetry.tracer().start_as_current_span(
            f"{durable} {spans.PROCESS}",
            context=context,
            kind=trace.SpanKind.CONSUMER,
            attributes={spans.EVENT: event, spans.ATTEMPT: attempt},
        )

    async def _finish(self, stage: str, event: Any, outputs: Sequence[str]) -> None:
        finished = model_pb2.FinishedStage(
            stage=stage, subject=events.describe(event), outputs=outputs
        )
        await self.publish(events_pb2.StageFinished(pushed=event.pushed, finished=finished))

    async def _failed(
        self, durable: str, event: Any, message: Msg, error: Exception, attempt: int
    ) -> None:
        # An error from outside the tree is a fault nobody foresaw: it may pass, so try again.
        retryable = error.retryable if isinstance(error, AdlikError) else True
        log.warning("consumer %s, attempt %d: %s", durable, attempt, error, exc_info=retryable)
        if retryable and attempt < self.settings.max_attempts:
            await message.nak(delay=min(0.5 * 2**attempt, MAX_RETRY_PAUSE_SECONDS))
            return
        await self._bury(durable, message, error)
        if hasattr(event, "pushed") and not isinstance(event, events_pb2.StageFailed):
            await self.fail(event.pushed, durable, events.describe(event), error)

    async def _bury(self, durable: str, message: Msg, error: Exception) -> None:
        """Keeps a copy of an event that nobody could handle, with the reason, and ends it."""
        said = to_proto(error)
        headers = {
            **(message.headers or {}),
            "Nats-Msg-Id": f"dead-{durable}-{message.metadata.sequence.stream}",
            "adlik-consumer": durable,
            "adlik-error-code": said.code,
            "adlik-error": " ".join(said.message.split()),
        }
        model = message.subject.rpartition(".")[2]
        await self.store(f"{events.DEAD_PREFIX}.{durable}.{model}", message.data, headers)
        await message.term()

    @contextlib.contextmanager
    def _heartbeats(self, message: Msg) -> Iterator[None]:
        """Tells NATS that the work goes on, so that it is not given to somebody else."""

        async def beat() -> None:
            while True:
                await asyncio.sleep(HEARTBEAT_SECONDS)
                with contextlib.suppress(NatsError):
                    await message.in_progress()

        task = asyncio.create_task(beat())
        try:
            yield
        finally:
            task.cancel()

    async def close(self) -> None:
        """Flushes and ends the connection."""
        with contextlib.suppress(NatsError, TimeoutError, OSError):
            await asyncio.wait_for(self.client.flush(), 2)
        with contextlib.suppress(NatsError, OSError):
            await self.client.close()


async def connect(settings: ServiceSettings, source: str) -> Bus:
    """Connects, waiting for NATS as long as it takes, and makes the streams where they are missing.

    Args:
        settings: Servers and limits.
        source: Who publishes, e.g. "adlik/compiler/ab12".
    """
    bus: Bus | None = None

    async def reconnected() -> None:
        log.warning("connected to NATS again")
        if bus is not None:
            bus.epoch += 1

    async def disconnected() -> None:
        log.warning("lost NATS; trying to reach it again")

    async def failed(error: Exception) -> None:
        # Several a second while NATS is away; that it is was said once.
        log.debug("NATS: %s", error or type(error).__name__)

    client = Client()
    while True:
        try:
            await client.connect(
                settings.nats_url.split(","),
                name=source,
                reconnected_cb=reconnected,
                disconnected_cb=disconnected,
                error_cb=failed,
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.2,
                connect_timeout=2,
                ping_interval=5,
            )
            break
        except (NatsError, OSError, TimeoutError) as error:
            log.warning("NATS at %s: %s; trying again", settings.nats_url, error)
            await asyncio.sleep(0.3)
    jetstream = client.jetstream(timeout=5)
    bus = Bus(client, jetstream, settings, source)
    await _ensure_streams(bus)
    return bus


async def _ensure_streams(bus: Bus) -> None:
    settings = bus.settings
    for name, subjects, size in (
        (events.STREAM, f"{events.PREFIX}.>", settings.events_max_bytes),
        (events.DEAD_STREAM, f"{events.DEAD_PREFIX}.>", settings.events_max_bytes // 10),
        (telemetry.STREAM, f"{telemetry.PREFIX}.>", settings.traces_max_bytes),
    ):
        config = api.StreamConfig(
            name=name,
            subjects=[subjects],
            max_bytes=size,
            discard=api.DiscardPolicy.OLD,
            num_replicas=settings.nats_replicas,
            duplicate_window=120,
        )
        while True:
            try:
                await bus.jetstream.add_stream(config)
            except nats.js.errors.BadRequestError:  # exists with other limits: bring it up to date
                await bus.jetstream.update_stream(config)
            except (NatsError, TimeoutError) as error:  # JetStream is still starting
                log.warning("stream %s: %s; trying again", name, error or type(error).__name__)
                await asyncio.sleep(0.3)
                continue
            break
