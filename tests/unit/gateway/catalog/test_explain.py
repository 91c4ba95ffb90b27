"""Each variant is told whether it is served, and why or why not."""

import pytest
from adlik_gateway.catalog.explain import explained
from adlik_gateway.catalog.releases import release
from adlik_proto.adlik.model.v1 import model_pb2


@pytest.fixture
def record():
    record = model_pb2.ModelVersion()
    record.pushed.name, record.pushed.version = "m", 2
    for name, speedup, accepted in (("slow", 1.0, True), ("fast", 3.0, True), ("bad", 4.0, False)):
        variant = record.variants.add(state=model_pb2.VARIANT_STATE_VERIFIED)
        variant.compiled.variant = name
        variant.verification.speedup, variant.verification.accepted = speedup, accepted
        variant.verification.reasons.append(f"{name} because.")
    record.variants.add(state=model_pb2.VARIANT_STATE_COMPILED).compiled.variant = "new"
    return record


def notes(record, current):
    return {v.compiled.variant: v.note for v in explained(record, current).variants}


def test_before_a_release_each_variant_waits_or_was_rejected(record):
    found = notes(record, None)
    assert found["fast"] == found["slow"] == "passed; about to be released"
    assert found["bad"] == "rejected: bad because."
    assert found["new"] == "waits for verification"


def test_the_served_variant_and_the_reason_are_named(record):
    current = release(record, record.variants[1], None, "the fastest")
    copy = explained(record, current)
    released = [v for v in copy.variants if v.state == model_pb2.VARIANT_STATE_RELEASED]
    assert [(v.compiled.variant, v.note) for v in released] == [("fast", "released: the fastest")]
    slow = "passed, not the fastest: 1.00x against 3.00x of fast"
    assert notes(record, current)["slow"] == slow
    record.variants[0].verification.fidelity.r2 = 1.0
    assert notes(record, current)["slow"] == (
        f"{slow}; on the Pareto front of speed, size and fidelity"
    )
    assert notes(record, current)["bad"].startswith("rejected")


def test_bytes_that_were_tuned_and_not_released_are_told_from_those_that_are_served(record):
    current = release(record, record.variants[1], None, "the fastest")
    record.variants[1].compiled.artifact.digest = "sha256:tuned"
    record.variants[1].verification.speedup = 3.01
    assert notes(record, current)["fast"] == (
        "released: the fastest; tuned since to 3.01x, not enough to replace it"
    )


def test_a_choice_by_hand_is_named(record):
    current = release(record, record.variants[0], None, "chosen by hand", pinned=True)
    assert notes(record, current)["fast"] == "passed; slow was chosen by hand"


def test_of_another_version_that_version_is_named(record):
    current = release(record, record.variants[0], None, "")
    current.pushed.version = 7
    assert notes(record, current)["slow"] == "passed; version 7 is served"


def test_the_record_itself_is_not_changed(record):
    before = record.SerializeToString()
    explained(record, release(record, record.variants[0], None, ""))
    assert record.SerializeToString() == before
