"""Folds an event into a version's record; the same event twice changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adlik_proto.adlik.events.v1 import events_pb2
from adlik_proto.adlik.model.v1 import model_pb2
from google.protobuf.message import Message

Record = model_pb2.ModelVersion


def fold(record: Record, event: Message) -> Record:
    """Returns the record with an event's fact in it; events may come late and more than once.

    Args:
        record: What was known; it is changed in place.
        event: A message of adlik.events.v1 about the record's version.
    """
    _FOLDS[type(event)](record, event)
    return record


def _optimized(record: Record, event: events_pb2.ModelOptimized) -> None:
    if all(known.recipe != event.optimized.recipe for known in record.optimized):
        record.optimized.append(event.optimized)


def _variant(record: Record, compiled: model_pb2.CompiledModel) -> model_pb2.Variant:
    for variant in record.variants:
        if variant.compiled.variant == compiled.variant:
            return variant
    variant = record.variants.add(compiled=compiled, state=model_pb2.VARIANT_STATE_COMPILED)
    variant.updated_at.GetCurrentTime()
    return variant


def _compiled(record: Record, event: events_pb2.ModelCompiled) -> None:
    _variant(record, event.compiled)


def _verified(record: Record, event: events_pb2.ModelVerified) -> None:
    """Keeps the better of a variant's artifacts: one that was tuned is verified a second time.

    The newer would not do: events come in any order.
    """
    variant = _variant(record, event.compiled)
    if variant.HasField("verification") and _merit(variant) >= _merit(event):
        return
    variant.compiled.CopyFrom(event.compiled)
    variant.verification.CopyFrom(event.verification)
    accepted = event.verification.accepted
    variant.state = (
        model_pb2.VARIANT_STATE_VERIFIED if accepted else model_pb2.VARIANT_STATE_REJECTED
    )
    variant.updated_at.GetCurrentTime()


def _merit(verified: model_pb2.Variant | events_pb2.ModelVerified) -> tuple[bool, float, str]:
    """What one artifact of a variant is preferred to another for; the digest only ends ties."""
    check = verified.verification
    return check.accepted, check.speedup, verified.compiled.artifact.digest


def _released(record: Record, event: events_pb2.ModelReleased) -> None:
    if not record.HasField("first_released_at"):
        record.first_released_at.CopyFrom(event.release.released_at)


def _deployed(record: Record, _: events_pb2.ModelDeployed) -> None:
    if not record.HasField("first_deployed_at"):
        record.first_deployed_at.GetCurrentTime()


def _finished(record: Record, event: events_pb2.StageFinished) -> None:
    new = event.finished
    if all((f.stage, f.subject) != (new.stage, new.subject) for f in record.finished):
        record.finished.append(new)


def _failed(record: Record, event: events_pb2.StageFailed) -> None:
    new = event.failure
    if all((f.stage, f.subject) != (new.stage, new.subject) for f in record.failures):
        record.failures.append(new)


_FOLDS: dict[type[Message], Callable[[Record, Any], None]] = {
    events_pb2.ModelPushed: lambda _record, _event: None,
    events_pb2.ModelOptimized: _optimized,
    events_pb2.ModelCompiled: _compiled,
    events_pb2.ModelVerified: _verified,
    events_pb2.ModelReleased: _released,
    events_pb2.ModelDeployed: _deployed,
    events_pb2.StageFinished: _finished,
    events_pb2.StageFailed: _failed,
}

FOLDED = tuple(_FOLDS)
"""Types of events that change a record."""


_FOLLOWING = {"optimizer": "compiler", "compiler": "verifier"}


def settled(record: Record) -> bool:
    """Whether every stage has finished or failed, so that nothing more will come."""
    waiting = {("optimizer", ""), ("compiler", "")}
    ended: set[tuple[str, str]] = set()
    for failure in record.failures:
        ended.add((failure.stage, failure.subject))
    for finished in record.finished:
        ended.add((finished.stage, finished.subject))
        if finished.stage == "verifier":
            waiting.add(("release", finished.subject))
        elif following := _FOLLOWING.get(finished.stage):
            waiting |= {(following, output) for output in finished.outputs}
    return waiting <= ended


def version_of(event: Any) -> tuple[str, int]:
    """Returns the name and version that an event is about."""
    pushed = event.release.pushed if isinstance(event, events_pb2.ModelReleased) else event.pushed
    return pushed.name, pushed.version
