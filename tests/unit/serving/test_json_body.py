"""JSON bodies: numbers, raw tensors behind the JSON, and hostile input."""

import json

import numpy as np
import orjson
import pytest
from adlik_common.errors import AdlikError, InvalidRequest, InvalidTensor
from adlik_common.tensors import DATATYPES, TensorSpec
from adlik_serving.oip import json_body
from adlik_serving.oip.request import InferRequest, ModelLabel, RequestedOutput, Signature
from hypothesis import given
from hypothesis import strategies as st
from random_tensors import arrays, expected_raw

LABEL = ModelLabel("m", "3")
IMAGE = Signature.of([TensorSpec("x", "FP32", (-1, 2))], [TensorSpec("y", "FP32", (-1, 2))])
X = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2.5]}


def decode(message, signature=IMAGE, binary=b""):
    text = json.dumps(message).encode()
    return json_body.decode(text + binary, len(text) if binary else 0, signature)


def encode(outputs, *wanted, request_id=""):
    answer = json_body.encode(InferRequest(request_id, {}, wanted), LABEL, outputs)
    body = b"".join(bytes(part) for part in answer.buffers)
    end = answer.json_length or len(body)
    return orjson.loads(body[:end]), body[end:]


def text_of(outputs, *wanted):
    """Returns an answer's body, which strict readers of JSON may refuse."""
    answer = json_body.encode(InferRequest("", {}, wanted), LABEL, outputs)
    return b"".join(bytes(part) for part in answer.buffers)


def one(datatype, shape):
    return Signature.of([TensorSpec("x", datatype, shape)], [])


@given(st.lists(arrays(), min_size=1, max_size=3), st.text(max_size=8))
def test_raw_tensors_behind_the_json_arrive_and_return_unchanged(tensors, request_id):
    named = {f"t{index}": tensor for index, tensor in enumerate(tensors)}
    specs = [TensorSpec(name, kind, (-1,) * array.ndim) for name, (kind, array) in named.items()]
    entries = [
        {
            "name": name,
            "datatype": kind,
            "shape": list(array.shape),
            "parameters": {"binary_data_size": len(expected_raw(array))},
        }
        for name, (kind, array) in named.items()
    ]
    binary = b"".join(expected_raw(array) for _, array in named.values())
    text = orjson.dumps(
        {"id": request_id, "inputs": entries, "parameters": {"binary_data_output": True}}
    )
    request = json_body.decode(text + binary, len(text), Signature.of(specs, specs))
    for name, (_, array) in named.items():
        assert request.inputs[name].dtype == array.dtype
        assert expected_raw(request.inputs[name]) == expected_raw(array)

    answer = json_body.encode(request, LABEL, request.inputs)
    body = b"".join(bytes(part) for part in answer.buffers)
    head = orjson.loads(body[: answer.json_length])
    assert body[answer.json_length :] == binary
    assert head.get("id", "") == request_id
    assert head["outputs"] == entries


@given(arrays(("BOOL", "UINT8", "INT8", "UINT32", "INT64", "UINT64", "FP32", "FP64")))
def test_numbers_arrive_and_return_exactly(tensor):
    datatype, array = tensor
    array = np.nan_to_num(array) if array.dtype.kind == "f" else array
    entry = {"name": "x", "datatype": datatype, "shape": array.shape, "data": array.tolist()}
    request = decode({"inputs": [entry]}, one(datatype, (-1,) * array.ndim))
    assert request.inputs["x"].dtype == array.dtype
    assert np.array_equal(request.inputs["x"], array)

    head, _ = encode({"x": array}, RequestedOutput("x"))
    back = np.array(head["outputs"][0]["data"], array.dtype).reshape(head["outputs"][0]["shape"])
    assert np.array_equal(back, array)


def test_strings_arrive_and_return_with_their_nulls():
    entry = {"name": "x", "datatype": "BYTES", "shape": [2, 1], "data": [["a\0"], ["é"]]}
    array = decode({"inputs": [entry]}, one("BYTES", (2, 1))).inputs["x"]
    assert array.tolist() == [["a\0"], ["é"]]
    assert encode({"y": array}, RequestedOutput("y"))[0]["outputs"][0]["data"] == ["a\0", "é"]


def test_an_answer_states_model_version_and_id():
    head, binary = encode({"y": np.ones((1, 2), np.float32)}, RequestedOutput("y"), request_id="7")
    output = {"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 1.0]}
    assert head == {"model_name": "m", "model_version": "3", "id": "7", "outputs": [output]}
    assert binary == b""


@pytest.mark.parametrize(
    ("parameters", "output_parameters", "binary"),
    [
        ({}, {}, False),
        ({"binary_data_output": True}, {}, True),
        ({"binary_data_output": True}, {"binary_data": False}, False),
        ({}, {"binary_data": True}, True),
    ],
)
def test_each_output_may_choose_its_form(parameters, output_parameters, binary):
    wanted = [{"name": "y", "parameters": output_parameters}]
    request = decode({"inputs": [X], "parameters": parameters, "outputs": wanted})
    assert request.outputs == (RequestedOutput("y", binary),)


def test_classes_come_with_value_and_index_best_first():
    wanted = [{"name": "y", "parameters": {"classification": 2}}]
    request = decode({"inputs": [X], "outputs": wanted})
    head, _ = encode({"y": np.array([[0.5, 3, 1]], np.float32)}, *request.outputs)
    assert head["outputs"][0] == {
        "name": "y",
        "datatype": "BYTES",
        "shape": [1, 2],
        "data": ["3.000000:1", "1.000000:2"],
    }


def test_text_can_not_be_classified():
    with pytest.raises(InvalidRequest, match="no scores"):
        encode({"y": np.array([b"a"], np.object_)}, RequestedOutput("y", classes=1))


def test_fp16_stands_in_json_as_its_exact_value():
    half = np.array([0.1, 65504, 6e-8, np.nan], np.float16)
    text = text_of({"y": half}, RequestedOutput("y"))
    data = json.loads(text)["outputs"][0]["data"]
    entry = {"name": "x", "datatype": "FP16", "shape": [4], "data": data}
    back = decode({"inputs": [entry]}, one("FP16", (4,))).inputs["x"]
    assert back.dtype == np.float16
    assert np.array_equal(back, half, equal_nan=True)
    assert encode({"y": half}, RequestedOutput("y", binary=True))[1] == half.tobytes()


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64"])
def test_what_is_not_finite_is_told_apart_and_may_be_sent_back(datatype):
    array = np.array([np.nan, np.inf, -np.inf, -0.0, 0.5], DATATYPES[datatype])
    text = text_of({"y": array}, RequestedOutput("y"))
    assert b'"data":[NaN,Infinity,-Infinity,-0.0,0.5]' in text
    data = json.loads(text)["outputs"][0]["data"]
    entry = {"name": "x", "datatype": datatype, "shape": [5], "data": data}
    back = decode({"inputs": [entry]}, one(datatype, (5,))).inputs["x"]
    assert back.tobytes() == array.tobytes() or np.isnan(back[0])
    assert back[1:].tobytes() == array[1:].tobytes()


def test_names_of_what_is_not_finite_may_stand_in_quotes():
    entry = {**X, "data": ["NaN", "-Infinity"]}
    array = decode({"inputs": [entry]}).inputs["x"]
    assert np.isnan(array[0, 0])
    assert np.isneginf(array[0, 1])


@pytest.mark.parametrize("datatype", ["INT8", "UINT64", "BOOL", "BYTES"])
@pytest.mark.parametrize("name", ["NaN", "Infinity", "-Infinity"])
def test_only_floats_may_be_not_finite(datatype, name):
    text = f'{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":[1],"data":[{name}]}}]}}'
    with pytest.raises(AdlikError):
        json_body.decode(text.encode(), 0, one(datatype, (1,)))


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1e39", "-1e39"])
def test_a_number_out_of_range_is_refused_rather_than_infinite(number):
    text = f'{{"inputs":[{{"name":"x","datatype":"FP32","shape":[1,2],"data":[{number},1]}}]}}'
    with pytest.raises(AdlikError):
        json_body.decode(text.encode(), 0, IMAGE)


@pytest.mark.parametrize("null", ["id", "parameters", "outputs"])
def test_null_means_not_set(null):
    request = decode({"inputs": [{**X, "parameters": None}], null: None})
    assert request.id == ""
    assert [output.name for output in request.outputs] == ["y"]


def test_null_in_an_outputs_parameters_means_not_set():
    parameters = {"binary_data": None, "classification": None}
    wanted = [{"name": "y", "parameters": parameters}]
    request = decode({"inputs": [X], "outputs": wanted})
    assert request.outputs == (RequestedOutput("y"),)
    wanted = [{"name": "y", "parameters": None}]
    assert decode({"inputs": [X], "outputs": wanted}).outputs == (RequestedOutput("y"),)


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([2, 2], [[1, 2], [3, 4]]),
        ([2, 2], [1, 2, 3, 4]),
        ([2, 2], [[[1], [2]], [[3], [4]]]),
        ([1, 2, 2], [[1, 2], [3, 4]]),
        ([2, 2, 1], [[1, 2], [3, 4]]),
        ([2, 2, 2], [[1, 2, 3, 4], [5, 6, 7, 8]]),
        ([2, 2, 2], [[1, 2], [3, 4], [5, 6], [7, 8]]),
        ([], 5),
        ([], [5]),
        ([0, 4], []),
        ([2, 0], [[], []]),
    ],
)
def test_lists_end_where_axes_do(shape, data):
    entry = {"name": "x", "datatype": "INT32", "shape": shape, "data": data}
    array = decode({"inputs": [entry]}, one("INT32", (-1,) * len(shape))).inputs["x"]
    assert array.shape == tuple(shape)
    assert array.ravel().tolist() == np.ravel(data).tolist()


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([2, 2], [[1, 2, 3], [4]]),
        ([2, 2], [[1, 2], 3, 4]),
        ([2, 2], [1, [2, 3], 4]),
        ([2, 2], [[[[[[1]]]], 2], [3, 4]]),
        ([2, 3], [[1, 2], [3, 4], [5, 6]]),
        ([2, 2], [[1, 2], [3, 4], []]),
        ([4], [[1, 2], [3, 4], 5]),
        ([1], [[]]),
        ([0], [1]),
    ],
)
def test_lists_of_other_lengths_are_refused(shape, data):
    entry = {"name": "x", "datatype": "INT32", "shape": shape, "data": data}
    with pytest.raises(InvalidTensor):
        decode({"inputs": [entry]}, one("INT32", (-1,) * len(shape)))


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        (np.array([2**53, 2**53 + 1, 1]), ["9007199254740993:1", "9007199254740992:0"]),
        (np.array([-(2**63), 2**63 - 1, 0]), ["9223372036854775807:1", "0:2"]),
        (np.array([1, 2**64 - 1, 2**64 - 2], np.uint64), [f"{2**64 - 1}:1", f"{2**64 - 2}:2"]),
        (np.array([200, 7, 255], np.uint8), ["255:2", "200:0"]),
        (np.array([0.5, 0.5, 0.25], np.float16), ["0.500000:0", "0.500000:1"]),
        (np.array([np.nan, -np.inf, 1], np.float32), ["1.000000:2", "-inf:1"]),
        (np.array([1e-9, 2e-9, 0], np.float32), ["0.000000002:1", "0.000000001:0"]),
    ],
)
def test_classes_are_ranked_and_written_exactly(scores, best):
    head, _ = encode({"y": scores}, RequestedOutput("y", classes=2))
    assert head["outputs"][0]["data"] == best


@pytest.mark.parametrize("scores", [np.array([True]), np.zeros((0, 3)), np.float32(1)])
def test_what_has_no_ranks_can_not_be_classified(scores):
    with pytest.raises(InvalidRequest, match="no scores"):
        encode({"y": np.asarray(scores)}, RequestedOutput("y", classes=1))


def test_bytes_that_are_no_text_have_no_json_form():
    with pytest.raises(InvalidRequest, match="UTF-8"):
        encode({"y": np.array([b"\xff"], np.object_)}, RequestedOutput("y"))


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("FP32", ["1"]),
        ("FP32", [None]),
        ("FP32", [True]),
        ("FP32", [1e300]),
        ("FP32", 1),
        ("FP32", [[1], 2]),
        ("FP32", {"a": 1}),
        ("INT8", [128]),
        ("UINT8", [-1]),
        ("INT64", [2**63]),
        ("INT32", [1.0]),
        ("BOOL", [1]),
        ("BYTES", [1]),
    ],
)
def test_data_of_another_type_is_refused(datatype, data):
    shape = [2] if data == [[1], 2] else [1]
    entry = {"name": "x", "datatype": datatype, "shape": shape, "data": data}
    if data == 1:  # a bare number is no list, but makes a scalar
        entry["shape"] = [2]
    with pytest.raises(InvalidTensor, match=datatype):
        decode({"inputs": [entry]}, one(datatype, tuple(entry["shape"])))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ([], "The body is no JSON object"),
        ({}, "'inputs' is missing"),
        ({"inputs": {}}, "no list"),
        ({"inputs": [1]}, "An entry of inputs is no JSON object"),
        ({"inputs": [{}]}, "'name' is missing"),
        ({"inputs": [{**X, "name": 1}]}, "no string"),
        ({"inputs": [{**X, "shape": [1.0, 2]}]}, "whole numbers"),
        ({"inputs": [{**X, "shape": [True, 2]}]}, "whole numbers"),
        ({"inputs": [{**X, "shape": [-1, 2]}]}, r"shape \[-1, 2\]"),
        ({"inputs": [{**X, "shape": [10**18, 2]}]}, "there are 2 elements"),
        ({"inputs": [{**X, "shape": [1] * 5000}]}, "shape"),
        ({"inputs": [X, X]}, "given twice"),
        ({"inputs": [{**X, "name": "w"}]}, "takes 'x'"),
        ({"inputs": []}, "Missing input 'x'"),
        ({"inputs": [{**X, "parameters": {"binary_data_size": 8}}]}, "binary_data_size"),
        ({"inputs": [X], "outputs": [{"name": "z"}]}, "gives 'y'"),
        ({"inputs": [X], "id": 5}, "'id' of the request is no string"),
        ({"inputs": [X], "parameters": {"binary_data_output": 1}}, "no boolean"),
        (
            {"inputs": [X], "outputs": [{"name": "y", "parameters": {"classification": 0}}]},
            "1 or more",
        ),
    ],
)
def test_a_wrong_request_is_refused_in_words(message, words):
    with pytest.raises(AdlikError, match=words):
        decode(message)


@pytest.mark.parametrize("size", [-1, 7, 9, 16, 10**30])
def test_raw_bytes_must_be_as_many_as_said_and_as_the_shape_needs(size):
    entry = {**X, "parameters": {"binary_data_size": size}}
    del entry["data"]
    with pytest.raises(AdlikError):
        decode({"inputs": [entry]}, IMAGE, b"12345678")


def test_bytes_that_belong_to_no_input_are_refused():
    with pytest.raises(InvalidRequest, match="belong to no input"):
        decode({"inputs": [X]}, IMAGE, b"extra")


@pytest.mark.parametrize("length", [-1, 10**12])
def test_a_json_length_outside_the_body_is_refused(length):
    with pytest.raises(InvalidRequest, match="JSON"):
        json_body.decode(b"{}", length, IMAGE)


@pytest.mark.parametrize("depth", [40, 5000])
def test_deep_nesting_is_refused(depth):
    data = b"[" * depth + b"]" * depth
    body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":' + data + b"}]}"
    with pytest.raises(AdlikError):
        json_body.decode(body, 0, IMAGE)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
keys = st.sampled_from(["name", "datatype", "shape", "data", "parameters", "extra"])


@given(st.dictionaries(keys, json_values), st.binary(max_size=10))
def test_random_values_in_any_place_are_refused_and_never_crash(entry, binary):
    try:
        request = decode({"inputs": [{**X, **entry}]}, IMAGE, binary)
    except (InvalidRequest, InvalidTensor):
        return
    assert request.inputs["x"].shape[1:] == (2,)


@given(st.binary(max_size=60), st.integers(-5, 80))
def test_garbage_is_refused_and_never_crashes(junk, length):
    with pytest.raises((InvalidRequest, InvalidTensor)):
        json_body.decode(junk, length, IMAGE)


@pytest.mark.parametrize("parameter", ["shared_memory_region", "sequence_id"])
def test_what_asks_for_more_than_there_is_is_refused(parameter):
    parameters = {parameter: "a"}
    for message in (
        {"inputs": [X], "parameters": parameters},
        {"inputs": [{**X, "parameters": parameters}]},
        {"inputs": [X], "outputs": [{"name": "y", "parameters": parameters}]},
    ):
        with pytest.raises(InvalidRequest, match=r"shared memory|sequence"):
            decode(message)
    decode({"inputs": [X], "parameters": {parameter: None, "my_own": "x"}})
    decode({"inputs": [X], "parameters": {"sequence_id": 0}})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("NaN", np.nan), ("Infinity", np.inf), ("-Infinity", -np.inf), ("-0", -0.0), ("-0.5", -0.5)],
)
def test_a_scalar_may_stand_alone(text, wanted):
    body = f'{{"inputs":[{{"name":"x","datatype":"FP32","shape":[],"data" : {text} }}]}}'
    array = json_body.decode(body.encode(), 0, one("FP32", ())).inputs["x"]
    assert array.shape == ()
    assert array.tobytes() == np.float32(wanted).tobytes()


@pytest.mark.parametrize("datatype", ["BYTES", "INT8", "BOOL"])
@pytest.mark.parametrize("text", ["NaN", "-Infinity", "Infinity5", "NaN.1"])
def test_a_scalar_that_is_no_number_stands_for_nothing_else(datatype, text):
    body = f'{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":[],"data":{text}}}]}}'
    with pytest.raises(AdlikError):
        json_body.decode(body.encode(), 0, one(datatype, ()))


def test_minus_zero_is_kept_in_lists():
    body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[[-0, 1e-0]]}]}'
    array = json_body.decode(body, 0, IMAGE).inputs["x"]
    assert np.signbit(array).tolist() == [[True, False]]
    body = b'{"inputs":[{"name":"x","datatype":"INT8","shape":[2],"data":[-0, 1]}]}'
    assert json_body.decode(body, 0, one("INT8", (2,))).inputs["x"].tolist() == [0, 1]
