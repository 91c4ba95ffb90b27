"""The table of events: complete, and two events have one id only where they are one fact."""

import pytest
from adlik_common import events
from adlik_proto.adlik.events.v1 import events_pb2
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given
from hypothesis import strategies as st

TYPES = [GetMessageClass(d) for d in events_pb2.DESCRIPTOR.message_types_by_name.values()]
# Few values, so that equal facts are drawn often.
NAMES = st.sampled_from(["a", "a1", "a.b"])
WORDS = st.sampled_from(["", "a", "b", "ab"])
NUMBERS = st.sampled_from([1, 2, 11])


@st.composite
def facts(draw):
    """Draws (what happened to what, an event that says so)."""
    cls = draw(st.sampled_from(TYPES))
    name, version = draw(NAMES), draw(NUMBERS)
    event, one, other, number = cls(), draw(WORDS), draw(WORDS), draw(NUMBERS)
    fields = cls.DESCRIPTOR.fields_by_name
    fact = [cls.__name__, name]
    if "pushed" in fields:
        event.pushed.name, event.pushed.version = name, version
        fact.append(version)
    for field, attributes, values in (
        ("optimized", ["recipe"], [one]),
        ("compiled", ["variant"], [one]),
        ("finished", ["stage", "subject"], [one, other]),
        ("failure", ["stage", "subject"], [one, other]),
    ):
        if field in fields:
            for attribute, value in zip(attributes, values, strict=True):
                setattr(getattr(event, field), attribute, value)
            fact += values
    if "compiled" in fields:
        event.compiled.artifact.digest = draw(WORDS)
        fact.append(event.compiled.artifact.digest)
    if cls is events_pb2.ModelReleased:
        event.release.pushed.name, event.release.revision = name, number
        fact.append(number)
    if cls is events_pb2.ModelDeployed:
        event.variant, event.replica, event.revision = one, other, number
        fact += [one, other, number]
    if cls is events_pb2.ModelDeleted:
        event.name = name
        event.versions.extend([version, version + number])
        fact += event.versions
    return tuple(fact), event


@given(facts(), facts())
def test_ids_are_equal_if_and_only_if_the_facts_are(one, other):
    (fact, event), (other_fact, other_event) = one, other
    same = events.event_id(event) == events.event_id(other_event)
    assert same == (fact == other_fact)


@given(facts())
def test_an_event_comes_back_by_its_type_and_lands_on_its_types_subject(drawn):
    (_, name, *_), event = drawn
    assert events.parse(events.type_name(event), event.SerializeToString()) == event
    subject, pattern = events.subject(event), events.subject_filter(type(event))
    assert subject.count(".") == pattern.count(".") == 4
    assert subject.rpartition(".")[0] == pattern.rpartition(".")[0]
    assert subject.rpartition(".")[2] == name.replace(".", "=2E")


def test_every_message_of_the_contract_has_a_subject_of_its_own():
    assert len({events.subject_filter(cls) for cls in TYPES}) == len(TYPES) == 9


def test_what_a_fact_does_not_hang_on_does_not_change_its_id():
    event = events_pb2.ModelVerified()
    event.pushed.name, event.pushed.version = "m", 1
    event.compiled.variant = "clean.openvino-fp32"
    first = events.event_id(event)
    event.verification.speedup = 2.0
    event.pushed.pushed_at.GetCurrentTime()
    assert events.event_id(event) == first
    assert events.describe(event) == "clean.openvino-fp32"


def test_a_variant_that_was_tuned_is_another_fact_about_the_same_subject():
    event = events_pb2.ModelCompiled()
    event.pushed.name, event.pushed.version = "m", 1
    event.compiled.variant = "clean.kernels-fp32"
    event.compiled.artifact.digest = "sha256:1"
    first = events.event_id(event)
    event.compiled.artifact.digest = "sha256:2"
    assert events.event_id(event) != first
    assert events.describe(event) == "clean.kernels-fp32"


def test_unknown_types_and_broken_bytes_raise_what_the_bus_expects():
    with pytest.raises(KeyError):
        events.parse("adlik.events.v1.ModelEaten", b"")
    with pytest.raises(DecodeError):
        events.parse("adlik.events.v1.ModelPushed", b"\xff")


def test_where_one_word_ends_and_the_next_begins_is_part_of_the_fact():
    ids = set()
    for stage, subject in (("ab", "c"), ("a", "bc"), ("abc", ""), ("", "abc")):
        event = events_pb2.StageFinished()
        event.pushed.name, event.pushed.version = "m", 1
        event.finished.stage, event.finished.subject = stage, subject
        ids.add(events.event_id(event))
    assert len(ids) == 4
