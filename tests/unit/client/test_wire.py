"""Between the mesh's JSON and the client's records."""

import dataclasses
import inspect
import json
import math
from datetime import UTC, datetime

import pytest
from adlik import plans, records
from adlik.records import Change, Model, ModelVersion, Trace, VariantState
from adlik.wire import from_json, to_json
from adlik_proto.adlik.control.v1 import control_pb2
from adlik_proto.adlik.model.v1 import model_pb2
from adlik_proto.adlik.trace.v1 import trace_pb2
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

MESSAGES = {
    name: getattr(module, name)
    for module in (control_pb2, model_pb2, trace_pb2)
    for name in module.DESCRIPTOR.message_types_by_name
}
NAMED_OTHERWISE = {
    "Pushed": "PushModelResponse",
    "Change": "WatchModelsResponse",
    "Consumer": "ConsumerStatus",
    "Jobs": "ListJobsResponse",
}
# What the client has no use for.
NOT_READ = {
    ("ModelVersion", "finished"), ("ModelVersion", "traceparent"),
    ("Limits", "min_cosine"), ("Limits", "min_top1_agreement"),
}  # fmt: skip
YEAR_2000 = datetime.fromisoformat("2000-01-01")
RECORDS = [
    c for m in (plans, records) for _, c in inspect.getmembers(m, dataclasses.is_dataclass)
    if c.__module__ == m.__name__
]  # fmt: skip


def as_json(message, *, defaults):
    text = json_format.MessageToJson(
        message,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=defaults,
    )
    return json.loads(text)


@pytest.mark.parametrize("cls", RECORDS, ids=lambda cls: cls.__name__)
def test_every_record_has_the_fields_of_its_message(cls):
    message = MESSAGES[NAMED_OTHERWISE.get(cls.__name__, cls.__name__)]
    wanted = set(message.DESCRIPTOR.fields_by_name)
    wanted -= {field for name, field in NOT_READ if name == cls.__name__}
    assert {field.name for field in dataclasses.fields(cls)} == wanted


@given(
    size=st.integers(0, 2**63 - 1),
    speedup=st.floats(),
    agreement=st.none() | st.floats(0, 1),
    state=st.sampled_from(list(VariantState)),
    details=st.dictionaries(st.text(), st.text()),
    defaults=st.booleans(),
)
def test_a_version_is_read_as_it_was_written(size, speedup, agreement, state, details, defaults):
    message = model_pb2.ModelVersion(settled=True)
    message.pushed.source.artifact.size_bytes = size
    message.pushed.signature.inputs.add(name="x", shape=[-1, 3])
    variant = message.variants.add(state=model_pb2.VariantState.Value(state.value))
    variant.verification.speedup = speedup
    variant.verification.reasons.append("Fast.")
    if agreement is not None:
        variant.verification.fidelity.top1_agreement = agreement
    message.failures.add(stage="compiler").error.details.update(details)
    found = from_json(ModelVersion, as_json(message, defaults=defaults))
    assert found.settled
    assert found.pushed.source.artifact.size_bytes == size
    assert found.pushed.signature.inputs[0].shape == (-1, 3)
    check = found.variants[0].verification
    assert check.speedup == speedup or math.isnan(speedup)
    assert (check.fidelity.top1_agreement, check.reasons) == (agreement, ("Fast.",))
    assert found.variants[0].state is state
    assert found.failures[0].error.details == details
    json.dumps(to_json(found), allow_nan=False)


@given(st.datetimes(timezones=st.just(UTC), min_value=YEAR_2000), st.integers(0, 999))
def test_times_are_read_to_the_microsecond(time, nanoseconds):
    message = control_pb2.WatchModelsResponse(event="ModelPushed")
    message.time.FromDatetime(time)
    message.time.nanos += nanoseconds
    found = from_json(Change, as_json(message, defaults=False))
    assert found.time == time
    assert datetime.fromisoformat(to_json(found)["time"]) == found.time


def test_nothing_said_means_the_default():
    assert from_json(Model, {}) == Model()
    assert from_json(Model, {}).release is None
    assert from_json(ModelVersion, {"variants": [{}]}).variants[0].verification is None


def test_what_a_newer_server_adds_is_ignored():
    body = {"name": "m", "colour": "red", "versions": [{"variants": [{"state": "NEW_STATE"}]}]}
    found = from_json(Model, body)
    assert found.name == "m"
    assert found.versions[0].variants[0].state is VariantState.UNSPECIFIED


def test_releases_remember_their_predecessors():
    body = {"revision": "2", "history": [{"revision": "1"}]}
    assert from_json(records.Release, body).history[0].revision == 1


def test_a_trace_keeps_its_nanoseconds():
    span = {"start_unix_nano": str(2**61 + 1), "attributes": {"a": "b"}}
    (found,) = from_json(Trace, {"spans": [span]}).spans
    assert (found.start_unix_nano, found.attributes) == (2**61 + 1, {"a": "b"})


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (VariantState.RELEASED, "released"),
        (float("nan"), None),
        (float("-inf"), None),
        ((1, 2), [1, 2]),
        ({1: 0.5}, {"1": 0.5}),
    ],
)
def test_values_become_plain_json(value, wanted):
    assert to_json(value) == wanted


def test_a_model_finds_its_versions_by_number():
    body = {"versions": [{"pushed": {"version": "2"}}, {"pushed": {"version": "1"}}]}
    model = from_json(Model, body)
    assert model.version().pushed.version == 2
    assert model.version(1).pushed.version == 1
    assert model.version(3) is None
