"""What was pushed and is not served: whether it will be, and what it waits for."""

import pytest
from adlik_common.errors import NotFound
from adlik_gateway.catalog.unserved import NotServedYet, why_unserved
from adlik_proto.adlik.model.v1 import model_pb2


def record_of(version, *accepted, settled=False):
    """Returns a version with a variant for each verdict; None: not verified yet."""
    record = model_pb2.ModelVersion(pushed=model_pb2.PushedModel(name="m", version=version))
    for number, verdict in enumerate(accepted):
        variant = record.variants.add()
        variant.compiled.variant = f"variant{number}"
        if verdict is not None:
            variant.verification.accepted = verdict
            variant.verification.reasons.append("It is wrong.")
    if settled:
        for stage in ("optimizer", "compiler"):
            record.finished.add(stage=stage)
    return record


def why(*records, version=0, served=0):
    release = model_pb2.Release(pushed=model_pb2.PushedModel(name="m", version=served))
    versions = {record.pushed.version: record for record in records}
    return why_unserved(versions, release if served else None, version)


@pytest.mark.parametrize(
    ("accepted", "words"),
    [
        ((), "is being compiled"),
        ((None, None), "2 of 2 variants are being verified"),
        ((False, None), "1 of 2 variants are being verified"),
        ((True,), "its release is being decided"),
        ((False,), "further variants are being made"),
    ],
)
def test_what_is_on_its_way_is_not_served_yet(accepted, words):
    error = why(record_of(1, *accepted))
    assert isinstance(error, NotServedYet)
    assert (error.code, error.http_status, error.retryable) == ("UNAVAILABLE", 503, True)
    assert "Version 1 of model 'm' is not served yet" in error.message
    assert words in error.message
    assert "`adlik watch m`" in error.cure


def test_a_newer_version_is_not_served_yet_while_an_older_one_is():
    records = record_of(1, True, settled=True), record_of(2, None)
    assert isinstance(why(*records, version=2, served=1), NotServedYet)


def test_between_the_last_verdict_and_the_release_it_is_not_served_yet():
    assert isinstance(why(record_of(1, True, settled=True)), NotServedYet)


def test_the_newest_version_on_its_way_is_named():
    records = record_of(1, False, settled=True), record_of(3), record_of(2)
    assert "Version 3" in why(*records).message


def test_what_was_rejected_will_not_be_served():
    error = why(record_of(1, False, settled=True))
    assert isinstance(error, NotFound)
    assert "variant0 was rejected. It is wrong." in error.message
    assert "`adlik show m`" in error.cure


def test_what_a_stage_refused_will_not_be_served():
    record = record_of(1, settled=True)
    record.failures.add(stage="compiler").error.message = "It has no such operator."
    error = why(record)
    assert isinstance(error, NotFound)
    assert "It has no such operator." in error.message


def test_an_older_version_is_not_served_any_more():
    records = record_of(1, True, settled=True), record_of(2, True, settled=True)
    error = why(*records, version=1, served=2)
    assert isinstance(error, NotFound)
    assert "not served any more; version 2 is" in error.message


def test_a_newer_version_that_was_not_chosen_is_not_served_now():
    records = record_of(1, True, settled=True), record_of(2, True, settled=True)
    assert "not served now; version 1 is" in why(*records, version=2, served=1).message


@pytest.mark.parametrize("version", [0, 7])
def test_of_what_was_not_pushed_nothing_is_said(version):
    assert why(version=version) is None
    if version:
        assert why(record_of(1), version=version) is None
