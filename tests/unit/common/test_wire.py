"""The in-place reader of protobuf messages, against protobuf's own encoder."""

import contextlib

import pytest
from adlik_common import wire
from adlik_common.errors import InvalidRequest
from adlik_proto.adlik.model.v1 import model_pb2
from google.protobuf.struct_pb2 import Value
from hypothesis import example, given
from hypothesis import strategies as st

INT64 = st.integers(-(2**63), 2**63 - 1)


@given(st.text(), st.binary(), INT64)
def test_fields_are_what_protobuf_wrote(name, blob, version):
    message = model_pb2.PushedModel(name=name, version=version)
    message.source.artifact.digest = blob.hex()
    found = {field.number: field for field in wire.fields(message.SerializeToString())}
    assert (found[1].text if 1 in found else "") == name
    assert (found[2].signed if 2 in found else 0) == version
    assert model_pb2.ModelSource.FromString(found[3].view) == message.source


@given(st.lists(st.text(), max_size=5))
def test_repeated_fields_come_in_the_order_they_were_written(reasons):
    data = model_pb2.Verification(reasons=reasons).SerializeToString()
    assert [field.text for field in wire.fields(data)] == reasons


@given(st.floats(allow_nan=False))
def test_fixed_fields_are_views_of_their_bytes(number):
    (field,) = wire.fields(Value(number_value=number).SerializeToString())
    assert (field.wire_type, len(field.value)) == (wire.FIXED64, 8)


@given(st.binary(max_size=200))
@example(b"\xff" * 11)
@example(b"\x0a\xff\xff\xff\xff\x7f")
def test_any_bytes_are_fields_or_an_invalid_request(data):
    with contextlib.suppress(InvalidRequest):
        for field in wire.fields(data):
            for read in ("view", "text", "signed"):
                with contextlib.suppress(InvalidRequest):
                    getattr(field, read)


@given(st.binary(min_size=1, max_size=50), st.data())
def test_a_cut_off_message_is_never_read_as_whole(blob, data):
    whole = wire.bytes_head(3, len(blob)) + blob
    cut = data.draw(st.integers(1, len(whole) - 1))
    with pytest.raises(InvalidRequest, match="cut off"):
        list(wire.fields(whole[:cut]))


@given(st.integers(0, 2**64 - 1))
def test_varints_come_back(value):
    written = wire.write_varint(value)
    assert wire.read_varint(memoryview(written), 0) == (value, len(written))


@given(st.integers(1, 2**20), st.binary(max_size=300))
def test_a_head_and_its_bytes_are_one_field(number, blob):
    (field,) = wire.fields(wire.bytes_head(number, len(blob)) + blob)
    assert (field.number, field.wire_type, bytes(field.view)) == (number, wire.BYTES, blob)


def test_only_length_delimited_fields_have_bytes():
    """protobuf skips a string in another wire type; a reader that took it would be fooled."""
    fixed = wire.write_varint(1 << 3 | wire.FIXED64) + b"location"
    (field,) = wire.fields(fixed)
    with pytest.raises(InvalidRequest):
        _ = field.text
    (number,) = wire.fields(b"\x08\x01")
    with pytest.raises(InvalidRequest):
        _ = number.view


def test_bytes_are_no_number():
    (field,) = wire.fields(b"\x0a\x01a")
    with pytest.raises(InvalidRequest, match="number was expected"):
        _ = field.signed


@pytest.mark.parametrize("data", [b"\x00\x01", b"\x0b", b"\x0c", b"\x0e\x00", b"\x0f\x00"])
def test_field_zero_and_unknown_wire_types_are_refused(data):
    with pytest.raises(InvalidRequest, match="Not a protobuf message"):
        list(wire.fields(data))
