"""The one table of events: message type, subject and identity. No service spells a subject."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from adlik_proto.adlik.events.v1 import events_pb2
from google.protobuf.message import Message

from adlik_common.names import token

STREAM = "ADLIK_EVENTS"
DEAD_STREAM = "ADLIK_DEAD_LETTERS"
PREFIX = "adlik.v1.model"
DEAD_PREFIX = "adlik.v1.dead"

Identity = Callable[[Any], tuple[str, ...]]


def _of_version(*path: str) -> Identity:
    """Identity by model, version and the values at the given attribute paths."""

    def identity(event: Any) -> tuple[str, ...]:
        values = []
        for attributes in path:
            value = event
            for attribute in attributes.split("."):
                value = getattr(value, attribute)
            values.append(str(value))
        return (event.pushed.name, str(event.pushed.version), *values)

    return identity


# Message type: (the fact as it stands in the subject, what makes two events the same event).
_TABLE: dict[type[Message], tuple[str, Identity]] = {
    events_pb2.ModelPushed: ("pushed", _of_version()),
    events_pb2.ModelOptimized: ("optimized", _of_version("optimized.recipe")),
    events_pb2.ModelCompiled: ("compiled", _of_version("compiled.variant")),
    events_pb2.ModelVerified: ("verified", _of_version("compiled.variant")),
    events_pb2.ModelReleased: (
        "released",
        lambda e: (e.release.pushed.name, str(e.release.revision)),
    ),
    events_pb2.ModelDeployed: ("deployed", _of_version("variant", "replica", "revision")),
    events_pb2.ModelDeleted: ("deleted", lambda e: (e.name, *map(str, e.versions))),
    events_pb2.StageFinished: ("finished", _of_version("finished.stage", "finished.subject")),
    events_pb2.StageFailed: ("failed", _of_version("failure.stage", "failure.subject")),
}

_OF_BYTES = (events_pb2.ModelCompiled, events_pb2.ModelVerified)
"""Facts about an artifact: a variant that was tuned since is compiled and verified anew."""

_BY_TYPE = {message.DESCRIPTOR.full_name: message for message in _TABLE}


def subject(event: Message) -> str:
    """Returns the subject an event is published on: adlik.v1.model.<fact>.<model>."""
    fact, identity = _TABLE[type(event)]
    return f"{PREFIX}.{fact}.{token(identity(event)[0])}"


def subject_filter(event_type: type[Message]) -> str:
    """Returns the subject that matches events of one type, of any model."""
    return f"{PREFIX}.{_TABLE[event_type][0]}.*"


def event_id(event: Message) -> str:
    """Returns the same id whenever the same fact is published, by whichever process."""
    fact, identity = _TABLE[type(event)]
    told = [fact, *identity(event)]
    if isinstance(event, _OF_BYTES):
        told.append(event.compiled.artifact.digest)
    return hashlib.sha256("\0".join(told).encode()).hexdigest()[:32]


def type_name(event: Message) -> str:
    """Returns the CloudEvents type, e.g. "adlik.events.v1.ModelPushed"."""
    return str(event.DESCRIPTOR.full_name)


def parse(type_: str, data: bytes) -> Message:
    """Returns the event of a CloudEvents type; raises KeyError or protobuf's DecodeError."""
    return _BY_TYPE[type_].FromString(data)


def describe(event: Any) -> str:
    """Returns what an event is about within its version: recipe, variant or nothing."""
    return "/".join(_TABLE[type(event)][1](event)[2:])
