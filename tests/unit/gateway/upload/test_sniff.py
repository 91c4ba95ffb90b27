"""Formats are told by their first bytes."""

import io
import pickle  # noqa: TID251 - made to be refused, never read
import zipfile

import onnx
import pytest
from adlik_common.errors import InvalidModel, UnsupportedFormat
from adlik_gateway.upload.sniff import HEAD_BYTES, sniff
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper


def zip_head():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("data.pkl", b"x")
    return out.getvalue()


def test_onnx_is_known_by_what_onnx_writes():
    graph = helper.make_graph([], "g", [], [])
    assert sniff(helper.make_model(graph).SerializeToString()[:HEAD_BYTES]) == "onnx"


@pytest.mark.parametrize("version", range(1, onnx.IR_VERSION + 1))
def test_every_version_of_onnx_is_known(version):
    assert sniff(onnx.ModelProto(ir_version=version).SerializeToString()) == "onnx"


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (zip_head(), "zip"),
        (pickle.dumps({"a": 1}), "pickle"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x1c\x00\x00\x00TFL3\x14\x00", "TFLite"),
        (b"<?xml version='1.0'?>", "XML"),
        (b"\x1f\x8b\x08\x00", "gzip"),
    ],
)
def test_other_formats_are_named_with_a_way_to_go_on(head, name):
    with pytest.raises(UnsupportedFormat, match=name) as caught:
        sniff(head[:HEAD_BYTES])
    assert caught.value.cure


@pytest.mark.parametrize("head", [b"", b"hello", b"\x08", b"\x08\xff", b"\x0a\x05"])
def test_anything_else_is_no_model(head):
    with pytest.raises(InvalidModel):
        sniff(head)


@given(st.binary(max_size=HEAD_BYTES))
def test_any_head_is_onnx_or_refused(head):
    try:
        assert sniff(head) == "onnx"
    except (InvalidModel, UnsupportedFormat):
        return
    assert head[0] == 0x08, "only what begins with ir_version is taken for ONNX"
