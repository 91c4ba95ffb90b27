"""Reads the event stream of a mesh, as it lies in NATS."""

from __future__ import annotations

from dataclasses import dataclass

import nats
from adlik_common import events
from google.protobuf.message import Message


@dataclass(frozen=True)
class Fact:
    """One stored event.

    Attributes:
        id: The CloudEvents id: the same for the same fact.
        source: Who published it, e.g. "adlik/compiler/ab12".
        event: The message.
    """

    id: str
    source: str
    event: Message

    @property
    def kind(self) -> str:
        return type(self.event).__name__


async def stored_facts(nats_url: str) -> list[Fact]:
    """Returns all events of the stream, in their order."""
    client = await nats.connect(nats_url)
    try:
        jetstream = client.jetstream()
        state = (await jetstream.stream_info(events.STREAM)).state
        found = []
        for sequence in range(state.first_seq, state.last_seq + 1):
            message = await jetstream.get_msg(events.STREAM, sequence)
            headers = message.headers
            event = events.parse(headers["ce-type"], message.data)
            found.append(Fact(headers["ce-id"], headers["ce-source"], event))
        return found
    finally:
        await client.close()
