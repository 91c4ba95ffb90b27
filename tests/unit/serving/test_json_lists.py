"""Lists read in pieces: as a parser of JSON reads them, wherever the pieces are cut."""

import json
import math

import numpy as np
import pytest
from adlik_common.errors import AdlikError, InvalidRequest, InvalidTensor
from adlik_common.tensors import TensorSpec
from adlik_serving.oip import json_body, json_lists
from adlik_serving.oip.request import Signature
from hypothesis import given, settings
from hypothesis import strategies as st

NUMBERS = st.one_of(
    st.integers(-(2**53), 2**53), st.floats(), st.sampled_from([-0.0, 1e-300, math.inf, math.nan])
)
TEXTS = st.text(max_size=6) | st.sampled_from(['"data":[1]', "],[", "\\", '\\"', "NaN", "\x7f,"])
SPACES = st.sampled_from(["", " ", "\n\t", "  "])


@st.composite
def nested(draw, elements):
    """Draws a shape of three axes, and evenly nested lists of them all or flat ones."""
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    count = math.prod(shape)
    data = draw(st.lists(elements, min_size=count, max_size=count))
    if draw(st.booleans()):
        for size in reversed(shape[1:]):
            data = [data[at : at + size] for at in range(0, len(data), size)]
    return shape, data


@st.composite
def written(draw, value):
    """Writes JSON with odd white space."""
    if not isinstance(value, list):
        return json.dumps(value, ensure_ascii=draw(st.booleans()))
    items = [draw(SPACES) + draw(written(item)) + draw(SPACES) for item in value]
    return "[" + ",".join(items) + "]"


def read(datatype, shape, text):
    """Reads a list's text as the data of an input, in pieces however small it is."""
    whole = memoryview(f'{{"data" : {text}, "more": 1}}'.encode())
    rest, (found,) = json_lists.cut_lists(whole)
    assert json.loads(rest)["data"] == {json_lists.PLACEHOLDER: 0}
    spec = TensorSpec("x", datatype, (-1,) * len(shape))
    return json_lists.read_list(spec, shape, found)


def flattened(data):
    return [x for item in data for x in flattened(item)] if isinstance(data, list) else [data]


@pytest.fixture(params=[1, 3, 17, 128 * 1024])
def window(request, monkeypatch):
    monkeypatch.setattr(json_lists, "FIRST_WINDOW_BYTES", request.param)
    monkeypatch.setattr(json_lists, "WINDOW_BYTES", request.param)


@pytest.mark.parametrize("size", [1, 5, 64])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_numbers_are_read_as_a_parser_reads_them(size, data):
    shape, values = data.draw(nested(NUMBERS))
    text = data.draw(written(values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lists, "FIRST_WINDOW_BYTES", size)
        patch.setattr(json_lists, "WINDOW_BYTES", size)
        found = read("FP64", shape, text)
    expected = np.array(flattened(json.loads(text)), np.float64).reshape(shape)
    assert np.array_equal(found, expected, equal_nan=True)
    assert np.array_equal(np.signbit(found), np.signbit(expected))


@pytest.mark.parametrize("size", [1, 5, 64])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_strings_are_read_as_a_parser_reads_them(size, data):
    shape, values = data.draw(nested(TEXTS))
    text = data.draw(written(values))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lists, "FIRST_WINDOW_BYTES", size)
        patch.setattr(json_lists, "WINDOW_BYTES", size)
        found = read("BYTES", shape, text)
    assert found.ravel().tolist() == flattened(json.loads(text))
    assert found.shape == tuple(shape)


@pytest.mark.parametrize(
    "text",
    [
        "[1,2,]", "[,1,2]", "[1,,2]", "[1 2]", "[[1,]2]", "[[1][,2]]", "[[1],[,2]]", "[[1]2]",
        "[1[2]]", "[1,2", '[1,"2', '["1","2"]', "[1,x]", "[1,--Infinity]", "[1,+Infinity]",
        "[1,NaNN]", "[1,-NaN]", "[01,2]", "[1,2\x01]", "[1,{}]", "[1,tru]", "[1,null]", "[true,1]",
        "[[1],[2],[]]", "[[],[1,2]]", "[1,2,3]", "[1]", "[[1,2],[3]]", "[1,.5]", "[1,1e]",
    ],
)  # fmt: skip
def test_what_is_no_list_of_two_numbers_is_refused(window, text):
    with pytest.raises(AdlikError):
        read("FP32", [2], text)


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ([2, 2], "[[1,2,3],[4]]"),
        ([2, 2], "[[1,2],3,4]"),
        ([2, 2], "[1,[2,3],4]"),
        ([2, 3], "[[1,2],[3,4],[5,6]]"),
        ([2, 2, 2], "[[[1,2],[3,4]],[[5,6]],[[7,8]]]"),
        ([2, 2, 2], "[[[1,2]],[[3,4],[5,6]],[[7,8]]]"),
        ([4], "[[[1],[2],[3]],[[4]]]"),
        ([0], "[[1]]"),
        ([0, 2], "[[1,2]]"),
    ],
)
def test_uneven_lists_are_refused(window, shape, text):
    with pytest.raises(InvalidTensor):
        read("FP32", shape, text)


def test_a_shape_that_is_larger_than_its_data_needs_no_memory():
    with pytest.raises(InvalidTensor, match="fewer than"):
        read("FP32", [1 << 45], "[1,2]")


def test_empty_lists_make_an_empty_tensor(window):
    assert read("FP32", [0, 4], "[]").shape == (0, 4)
    assert read("FP32", [2, 0], "[[ ] ,[]]").shape == (2, 0)


def test_only_lists_behind_the_word_data_are_cut_out(window):
    text = rb'{"id":"\"data\":[1]","data":[1,"]"],"x\"data":[2],"p":{"data":[3]},"data ":[4]}'
    rest, found = json_lists.cut_lists(memoryview(text))
    assert [bytes(text[one.start : one.end]) for one in found] == [b'[1,"]"]', b"[3]"]
    assert json.loads(rest) == {
        "id": '"data":[1]',
        "data": {json_lists.PLACEHOLDER: 0},
        'x"data': [2],
        "p": {"data": {json_lists.PLACEHOLDER: 1}},
        "data ": [4],
    }


@pytest.mark.parametrize("text", ['{"data":[1', '{"data":["a]}', '{"data":[[1]'])
def test_a_list_without_an_end_is_refused(window, text):
    with pytest.raises(InvalidRequest, match="does not end"):
        json_lists.cut_lists(memoryview(text.encode()))


def test_a_large_text_beside_the_lists_is_refused():
    text = b'{"id":"' + b"x" * json_lists.MAX_SMALL_BYTES + b'"}'
    with pytest.raises(InvalidRequest, match="outside of its lists"):
        json_lists.cut_lists(memoryview(text))


@pytest.mark.parametrize("rows", [2, 60_000])
def test_large_and_small_bodies_are_read_the_same(rows):
    signature = Signature.of(
        [TensorSpec("x", "FP32", (-1, 3)), TensorSpec("t", "BYTES", (-1,))], []
    )
    x = np.random.default_rng(7).standard_normal((rows, 3)).astype(np.float32)
    texts = [f'"{at}", \\' for at in range(rows)]
    message = {
        "id": "7",
        "inputs": [
            {"name": "x", "shape": [rows, 3], "datatype": "FP32", "data": x.tolist()},
            {"name": "t", "shape": [rows], "datatype": "BYTES", "data": texts},
        ],
    }
    request = json_body.decode(json.dumps(message).encode(), 0, signature)
    assert np.array_equal(request.inputs["x"], x)
    assert request.inputs["t"].tolist() == texts
    assert request.id == "7"


def test_no_parser_is_given_more_than_a_window_at_once(monkeypatch):
    """What holds the interpreter's lock, and so the event loop, is bounded."""
    sizes = []
    loads = json_lists.orjson.loads

    class Spy:
        JSONDecodeError = json_lists.orjson.JSONDecodeError

        @staticmethod
        def loads(text):
            sizes.append(len(text))
            return loads(text)

    monkeypatch.setattr(json_lists, "orjson", Spy)
    numbers = list(range(300_000))
    assert read("INT32", [300_000], json.dumps(numbers)).tolist() == numbers
    texts = [str(number) for number in numbers]
    assert read("BYTES", [300_000], json.dumps(texts)).tolist() == texts
    assert len(sizes) > 30
    assert max(sizes) < 2 * json_lists.WINDOW_BYTES
