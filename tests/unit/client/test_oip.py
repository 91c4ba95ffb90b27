"""Bodies of the inference protocol: what is encoded is what a server reads, and back."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from adlik import oip
from adlik.errors import AdlikError
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

DTYPES = [
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64",
    "float16", "float32", "float64",
]  # fmt: skip
SHAPES = arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
ARRAYS = st.sampled_from(DTYPES).flatmap(lambda dtype: arrays.arrays(dtype, SHAPES))
STRINGS = arrays.arrays(np.object_, SHAPES, elements=st.binary(max_size=9))


def answer(body, length, **json_changes):
    """Returns a request as the answer that repeats its tensors."""
    head = json.loads(body[:length])
    text = json.dumps({"outputs": head["inputs"], **json_changes}).encode()
    return text + body[length:], len(text)


@given(st.dictionaries(st.text(min_size=1), st.one_of(ARRAYS, STRINGS), max_size=3))
def test_arrays_come_back(inputs):
    outputs = oip.decode(*answer(*oip.encode(inputs)))
    assert list(outputs) == list(inputs)
    for name, array in inputs.items():
        assert (outputs[name].dtype, outputs[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(outputs[name], array)


@given(arrays.arrays("float32", (3, 4)))
def test_arrays_in_any_order_of_memory_come_back(array):
    for view in (array.T, array[::2], array[:, ::-1], np.asfortranarray(array)):
        (back,) = oip.decode(*answer(*oip.encode({"x": view}))).values()
        np.testing.assert_array_equal(back, view)


@pytest.mark.parametrize(
    "array", [np.array(["ä", "b"]), np.array([b"\xc3\xa4", b"b"]), np.array(["ä", b"b"], object)]
)
def test_all_kinds_of_strings_are_sent_as_bytes(array):
    body, length = oip.encode({"s": array})
    assert json.loads(body[:length])["inputs"][0]["datatype"] == "BYTES"
    (back,) = oip.decode(*answer(body, length)).values()
    assert list(back) == ["ä".encode(), b"b"]


def test_the_wanted_outputs_are_asked_for_in_binary():
    body, length = oip.encode({"x": np.zeros(1, np.int8)}, ["a", "b"])
    head = json.loads(body[:length])
    assert [o["name"] for o in head["outputs"]] == ["a", "b"]
    assert all(o["parameters"]["binary_data"] for o in head["outputs"])
    body, length = oip.encode({"x": np.zeros(1, np.int8)})
    assert "outputs" not in json.loads(body[:length])


@pytest.mark.parametrize("dtype", ["complex64", "datetime64[s]"])
def test_types_that_cannot_be_sent_are_refused(dtype):
    with pytest.raises(AdlikError, match="can't be sent"):
        oip.encode({"x": np.zeros(2, dtype)})


@pytest.mark.parametrize(
    ("datatype", "data", "wanted"),
    [
        ("FP32", [1.5, 2], np.array([[1.5, 2]], np.float32)),
        ("BOOL", [True, False], np.array([[True, False]])),
        ("BYTES", ["ä", "b"], np.array([["ä", "b"]], object)),
    ],
)
def test_outputs_in_json_are_read(datatype, data, wanted):
    tensor = {"name": "y", "datatype": datatype, "shape": [1, 2], "data": data}
    (found,) = oip.decode(json.dumps({"outputs": [tensor]}).encode(), None).values()
    assert found.dtype == wanted.dtype
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("name", [*DTYPES])
def test_datatypes_have_their_numpy_types(name):
    datatype = json.loads(oip.encode({"x": np.zeros(0, name)})[0])["inputs"][0]["datatype"]
    assert oip.numpy_type(datatype) == np.dtype(name)


def test_strings_have_no_numpy_type():
    assert oip.numpy_type("BYTES") is None


@pytest.mark.parametrize("dtype", [">f4", ">i8", ">u2"])
def test_another_byte_order_is_turned_around(dtype):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    (back,) = oip.decode(*answer(*oip.encode({"x": array}))).values()
    np.testing.assert_array_equal(back, array)


def test_bfloat16_is_sent_as_it_is_and_read_as_float32():
    array = np.array([[1.5, -0.0], [3.140625, np.inf]], ml_dtypes.bfloat16)
    body, length = oip.encode({"x": array})
    assert json.loads(body[:length])["inputs"][0]["datatype"] == "BF16"
    assert body[length:] == array.tobytes()
    (back,) = oip.decode(*answer(body, length)).values()
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, array.astype(np.float32))


@pytest.mark.parametrize("item", [None, 1, 1.5, ["a"], "\ud800"])
def test_what_is_no_string_is_not_made_one(item):
    array = np.empty(1, object)
    array[0] = item
    with pytest.raises(AdlikError, match="string"):
        oip.encode({"x": array})


@pytest.mark.parametrize("cut", [1, 5])
def test_an_answer_that_does_not_fill_its_body_is_no_answer(cut):
    body, length = answer(*oip.encode({"x": np.arange(4, dtype=np.int8), "s": np.array([b"abc"])}))
    for broken in (body[:-cut], body + b"x" * cut):
        with pytest.raises((ValueError, LookupError, struct.error)):
            oip.decode(broken, length)


@pytest.mark.parametrize(
    ("values", "datatype", "wanted"),
    [
        ([[1, 2], [3, 4]], "INT32", np.array([[1, 2], [3, 4]], np.int32)),
        ([1, 2.5], "FP32", np.array([1, 2.5], np.float32)),
        (["NaN", float("inf"), "-Infinity"], "FP64", np.array([np.nan, np.inf, -np.inf])),
        (0.1, "FP16", np.array(0.1, np.float16)),
        ([2**64 - 1], "UINT64", np.array([2**64 - 1], np.uint64)),
        ([True], "BOOL", np.array([True])),
        (["a\0", ""], "BYTES", np.array(["a\0", ""], object)),
        ([], "INT8", np.zeros(0, np.int8)),
        ([[], []], "INT8", np.zeros((2, 0), np.int8)),
        ([1.5], "BF16", np.array([1.5], np.float32)),
    ],
)
def test_values_become_arrays(values, datatype, wanted):
    found = oip.to_array(values, datatype)
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("values", "datatype"),
    [
        ([1.5], "INT64"),
        ([1.0], "INT8"),
        ([300], "UINT8"),
        ([-1], "UINT64"),
        ([True], "INT8"),
        ([1], "BOOL"),
        (["1"], "FP32"),
        ([None], "FP32"),
        ([1e39], "FP32"),
        ([70000], "FP16"),
        ([1], "BYTES"),
        (["NaN"], "INT8"),
        ([[1, 2], [3]], "INT8"),
        ([1, [2]], "INT8"),
    ],
)
def test_values_that_would_be_changed_are_refused(values, datatype):
    with pytest.raises(AdlikError) as raised:
        oip.to_array(values, datatype)
    assert raised.value.code == "INVALID_TENSOR"
