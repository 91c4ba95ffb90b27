"""Looks at the work in the event stream: what waits, what runs, what was given up."""

from __future__ import annotations

import asyncio
import contextlib

from adlik_common import events
from adlik_common.bus import Bus
from adlik_common.names import untoken
from adlik_proto.adlik.control.v1 import control_pb2
from google.protobuf.message import DecodeError
from nats.errors import Error as NatsError
from nats.js import api
from nats.js import errors as js_errors
from prometheus_client import Gauge

CONSUMERS = ("optimizer", "compiler", "verifier", "release", "catalog")
MAX_DEAD_LETTERS = 50
POLL_SECONDS = 5.0

WAITING = Gauge("adlik_events_waiting", "Events that nobody has taken yet.", ["consumer"])
RUNNING = Gauge("adlik_events_running", "Events that are being handled.", ["consumer"])
DEAD = Gauge("adlik_dead_letters", "Events that were given up.")


async def list_jobs(bus: Bus) -> control_pb2.ListJobsResponse:
    """Returns the state of every durable consumer and the newest dead letters."""
    response = control_pb2.ListJobsResponse()
    for name in CONSUMERS:
        with contextlib.suppress(js_errors.NotFoundError):
            info = await bus.jetstream.consumer_info(events.STREAM, name)
            response.consumers.add(
                name=name,
                waiting=info.num_pending or 0,
                running=info.num_ack_pending or 0,
                redelivered=info.num_redelivered or 0,
            )
    state = (await bus.jetstream.stream_info(events.DEAD_STREAM)).state
    first = max(state.first_seq, state.last_seq - MAX_DEAD_LETTERS + 1, 1)
    for sequence in range(state.last_seq, first - 1, -1):
        with contextlib.suppress(js_errors.NotFoundError):
            message = await bus.jetstream.get_msg(events.DEAD_STREAM, sequence)
            response.dead_letters.append(_dead_letter(message))
    return response


async def export_metrics(bus: Bus) -> None:
    """Keeps the gauges of the queues up to date, for ever."""
    while True:
        with contextlib.suppress(NatsError, TimeoutError, OSError):
            for name in CONSUMERS:
                with contextlib.suppress(js_errors.NotFoundError):
                    info = await bus.jetstream.consumer_info(events.STREAM, name)
                    WAITING.labels(name).set(info.num_pending or 0)
                    RUNNING.labels(name).set(info.num_ack_pending or 0)
            DEAD.set((await bus.jetstream.stream_info(events.DEAD_STREAM)).state.messages)
        await asyncio.sleep(POLL_SECONDS)


def _dead_letter(message: api.RawStreamMsg) -> control_pb2.DeadLetter:
    headers = message.headers or {}
    letter = control_pb2.DeadLetter(
        consumer=headers.get("adlik-consumer", ""),
        event=headers.get("ce-type", "").rpartition(".")[2],
        model=untoken((message.subject or "").rpartition(".")[2]),
    )
    letter.error.code = headers.get("adlik-error-code", "")
    letter.error.message = headers.get("adlik-error", "")
    with contextlib.suppress(ValueError):
        letter.time.FromJsonString(headers.get("ce-time", ""))
    with contextlib.suppress(KeyError, DecodeError, AttributeError):
        event = events.parse(headers["ce-type"], message.data or b"")
        letter.version = event.pushed.version  # type: ignore[attr-defined]
    return letter
