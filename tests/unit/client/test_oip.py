"""Bodies of the inference protocol: what is encoded is what a server reads, and back."""

import json

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


@pytest.mark.parametrize("dtype", ["complex64", ">f4", "datetime64[s]"])
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
