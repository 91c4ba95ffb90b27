"""Typed contents of gRPC requests: exact, in one field, and read in pieces where they are many."""

import numpy as np
import pytest
from adlik_common.errors import AdlikError, InvalidRequest, InvalidTensor
from adlik_common.tensors import DATATYPES, TensorSpec
from adlik_proto.inference import open_inference_pb2 as pb
from adlik_serving.oip import protobuf_body, typed_contents
from adlik_serving.oip.request import Signature
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

FIELDS = typed_contents._FIELDS
NUMBERS = {
    "int_contents": st.integers(-(2**31), 2**31 - 1),
    "int64_contents": st.integers(-(2**63), 2**63 - 1),
    "uint_contents": st.integers(0, 2**32 - 1),
    "uint64_contents": st.integers(0, 2**64 - 1),
    "bool_contents": st.booleans(),
    "fp32_contents": st.floats(width=32, allow_nan=False),
    "fp64_contents": st.floats(allow_nan=False),
    "bytes_contents": st.binary(max_size=300),
}


def decode(datatype, shape, change, raw=()):
    message = pb.ModelInferRequest(model_name="m", raw_input_contents=raw)
    change(message.inputs.add(name="x", datatype=datatype, shape=shape).contents)
    signature = Signature.of([TensorSpec("x", datatype, (-1,) * len(shape))], [])
    return protobuf_body.decode(message.SerializeToString(), 0, signature).inputs["x"]


@given(st.data())
def test_pieces_merge_into_what_was_cut(data):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typed_contents, "PIECE_BYTES", 8 * data.draw(st.integers(1, 8)))
        whole = pb.InferTensorContents()
        for field, elements in NUMBERS.items():
            getattr(whole, field).extend(data.draw(st.lists(elements, max_size=40)))
        serialized = memoryview(whole.SerializeToString())
        pieces = [bytes(piece) for piece in typed_contents.cut(serialized)]
    merged = pb.InferTensorContents()
    for piece in pieces:
        merged.MergeFrom(pb.InferTensorContents.FromString(piece))
    assert merged == whole


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_means_the_same_in_pieces(garbage):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typed_contents, "PIECE_BYTES", 16)
        merged = pb.InferTensorContents()
        try:
            for piece in typed_contents.cut(memoryview(garbage)):
                merged.MergeFrom(pb.InferTensorContents.FromString(bytes(piece)))
        except (InvalidRequest, DecodeError):
            return
    whole = pb.InferTensorContents.FromString(garbage)
    whole.DiscardUnknownFields()
    merged.DiscardUnknownFields()
    assert merged == whole


@pytest.mark.parametrize("count", [3, 100_000])
@pytest.mark.parametrize("datatype", FIELDS)
def test_every_datatype_is_read_exactly(datatype, count):
    dtype = DATATYPES[datatype]
    if datatype == "BYTES":
        values = [f"é{at}" * (at % 70) for at in range(count)]
        array = decode(
            datatype, [count], lambda c: c.bytes_contents.extend(v.encode() for v in values)
        )
        assert array.tolist() == values
        return
    rng = np.random.default_rng(3)
    values = np.frombuffer(rng.bytes(count * dtype.itemsize), dtype)
    values = rng.random(count) < 0.5 if datatype == "BOOL" else np.nan_to_num(values)
    fill = lambda c: getattr(c, FIELDS[datatype]).extend(values.tolist())  # noqa: E731 - an argument
    array = decode(datatype, [1, count], fill)
    assert array.dtype == dtype
    assert array.tobytes() == values.tobytes()


@pytest.mark.parametrize("count", [2, 50_000])
@pytest.mark.parametrize(
    ("datatype", "field", "value"),
    [
        ("INT8", "int_contents", 128),
        ("INT8", "int_contents", -129),
        ("INT16", "int_contents", 2**15),
        ("UINT8", "uint_contents", 256),
        ("UINT16", "uint_contents", 2**16),
        ("FP64", "fp32_contents", 1.0),
        ("FP32", "fp64_contents", 1.0),
        ("INT32", "int64_contents", 1),
        ("UINT8", "int_contents", 1),
        ("BOOL", "int_contents", 1),
        ("BYTES", "bytes_contents", b"\xff"),
        ("FP16", "fp32_contents", 1.0),
    ],
)
def test_what_does_not_fit_the_datatype_is_refused(datatype, field, value, count):
    with pytest.raises(InvalidTensor):
        decode(datatype, [count], lambda c: getattr(c, field).extend([value] * count))


def test_a_second_field_is_refused():
    def both(contents):
        contents.fp32_contents.append(1)
        contents.int_contents.append(1)

    with pytest.raises(InvalidTensor, match="int_contents"):
        decode("FP32", [1], both)


@pytest.mark.parametrize("count", [2, 50_000])
def test_typed_contents_beside_raw_ones_are_refused(count):
    fill = lambda c: c.fp32_contents.extend([1.0] * count)  # noqa: E731 - an argument
    raw = [np.ones(count, np.float32).tobytes()]
    with pytest.raises(InvalidRequest, match="raw"):
        decode("FP32", [count], fill, raw)
    assert decode("FP32", [count], lambda _: None, raw).tolist() == [1.0] * count


@pytest.mark.parametrize("shape", [[], [1, 1]])
def test_a_shape_without_axes_holds_one_element(shape):
    array = decode("INT64", shape, lambda c: c.int64_contents.append(-7))
    assert array.shape == tuple(shape)
    assert array.item() == -7


def test_a_shape_that_is_larger_than_its_contents_needs_no_memory():
    with pytest.raises(AdlikError, match="1 elements"):
        decode("FP32", [1 << 45], lambda c: c.fp32_contents.append(1))


def test_no_parser_is_given_more_than_a_piece_at_once(monkeypatch):
    """What holds the interpreter's lock, and so the event loop, is bounded."""
    sizes = []
    cut = typed_contents.cut

    def spy(contents):
        for piece in cut(contents):
            sizes.append(len(piece))
            yield piece

    monkeypatch.setattr(typed_contents, "cut", spy)
    decode("INT64", [200_000], lambda c: c.int64_contents.extend(range(200_000)))
    decode("BYTES", [200_000], lambda c: c.bytes_contents.extend([b"abc"] * 200_000))
    assert len(sizes) > 40
    assert max(sizes) < 2 * typed_contents.PIECE_BYTES
