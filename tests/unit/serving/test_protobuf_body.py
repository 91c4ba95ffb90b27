"""gRPC bodies: what is sent is what the model gets, and hostile bytes end in typed errors."""

import numpy as np
import pytest
from adlik_common.errors import AdlikError, InvalidRequest, InvalidTensor
from adlik_common.tensors import DATATYPES, TensorSpec
from adlik_proto.inference import open_inference_pb2 as pb
from adlik_serving.oip import protobuf_body
from adlik_serving.oip.request import ModelLabel, Signature
from hypothesis import given
from hypothesis import strategies as st
from random_tensors import arrays, expected_raw

LABEL = ModelLabel("m", "3")
IMAGE = Signature.of([TensorSpec("x", "FP32", (-1, 3))], [TensorSpec("y", "FP32", (-1, 2))])


def request_of(arrays_by_name, **fields):
    message = pb.ModelInferRequest(model_name="m", **fields)
    for name, (datatype, array) in arrays_by_name.items():
        message.inputs.add(name=name, datatype=datatype, shape=array.shape)
        message.raw_input_contents.append(expected_raw(array))
    return message


def decode(message, signature=IMAGE):
    return protobuf_body.decode(message.SerializeToString(), 0, signature)


def joined(answer):
    return b"".join(bytes(part) for part in answer.buffers)


@given(st.lists(arrays(), min_size=1, max_size=3), st.text(max_size=8), st.booleans())
def test_raw_tensors_of_every_datatype_arrive_and_return_unchanged(tensors, request_id, large):
    # A long parameter pushes the body over the limit up to which it is parsed as a whole.
    named = {f"t{index}": tensor for index, tensor in enumerate(tensors)}
    specs = [TensorSpec(name, kind, (-1,) * array.ndim) for name, (kind, array) in named.items()]
    message = request_of(named, id=request_id)
    if large:
        message.parameters["padding"].string_param = "p" * protobuf_body.SMALL_BYTES
    signature = Signature.of(specs, specs)
    request = decode(message, signature)
    assert request.id == request_id
    for name, (_, array) in named.items():
        assert request.inputs[name].dtype == array.dtype
        assert request.inputs[name].shape == array.shape
        assert expected_raw(request.inputs[name]) == expected_raw(array)

    body = joined(protobuf_body.encode(request, LABEL, request.inputs))
    response = pb.ModelInferResponse.FromString(body)
    assert (response.model_name, response.model_version, response.id) == ("m", "3", request_id)
    for output, raw, (name, (kind, array)) in zip(
        response.outputs, response.raw_output_contents, named.items(), strict=True
    ):
        assert (output.name, output.datatype, tuple(output.shape)) == (name, kind, array.shape)
        assert raw == expected_raw(array)


@pytest.mark.parametrize(
    ("datatype", "field", "values"),
    [
        ("BOOL", "bool_contents", [True, False]),
        ("INT8", "int_contents", [-128, 127]),
        ("INT16", "int_contents", [-32768, 32767]),
        ("INT32", "int_contents", [-(2**31), 2**31 - 1]),
        ("INT64", "int64_contents", [-(2**63), 2**63 - 1]),
        ("UINT8", "uint_contents", [0, 255]),
        ("UINT16", "uint_contents", [0, 65535]),
        ("UINT32", "uint_contents", [0, 2**32 - 1]),
        ("UINT64", "uint64_contents", [0, 2**64 - 1]),
        ("FP32", "fp32_contents", [1.5, -2.25]),
        ("FP64", "fp64_contents", [0.1, 1e300]),
    ],
)
def test_typed_contents_become_the_array(datatype, field, values):
    signature = Signature.of([TensorSpec("x", datatype, (2, 1))], [TensorSpec("y", "FP32", (1,))])
    message = pb.ModelInferRequest()
    tensor = message.inputs.add(name="x", datatype=datatype, shape=[2, 1])
    getattr(tensor.contents, field).extend(values)
    array = decode(message, signature).inputs["x"]
    assert array.dtype == DATATYPES[datatype]
    assert array.shape == (2, 1)
    assert array.reshape(-1).tolist() == values


def test_strings_become_text_and_must_be():
    signature = Signature.of([TensorSpec("x", "BYTES", (2,))], [])
    message = pb.ModelInferRequest()
    contents = message.inputs.add(name="x", datatype="BYTES", shape=[2]).contents
    contents.bytes_contents.extend(["é".encode(), b"a"])
    assert decode(message, signature).inputs["x"].tolist() == ["é", "a"]
    contents.bytes_contents[1] = b"\xff"
    with pytest.raises(InvalidTensor, match="UTF-8"):
        decode(message, signature)


def test_typed_contents_out_of_the_datatypes_range_are_refused():
    signature = Signature.of([TensorSpec("x", "INT8", (1,))], [])
    message = pb.ModelInferRequest()
    message.inputs.add(name="x", datatype="INT8", shape=[1]).contents.int_contents.append(200)
    with pytest.raises(InvalidTensor, match="INT8"):
        decode(message, signature)


def test_fp16_has_no_typed_contents():
    signature = Signature.of([TensorSpec("x", "FP16", (1,))], [])
    message = pb.ModelInferRequest()
    message.inputs.add(name="x", datatype="FP16", shape=[1])
    with pytest.raises(InvalidTensor, match="raw_input_contents"):
        decode(message, signature)


def test_the_memory_of_a_large_tensor_is_the_bodys_own():
    array = np.arange(60_000, dtype=np.float32).reshape(-1, 3)
    body = bytearray(request_of({"x": ("FP32", array)}).SerializeToString())
    # Lay the body so that its tensor, which ends it, is aligned.
    memory = np.empty(len(body) + 8, np.uint8)
    start = (-(memory.ctypes.data + len(body))) % 8
    aligned = memory[start : start + len(body)]
    aligned[:] = np.frombuffer(body, np.uint8)
    decoded = protobuf_body.decode(aligned.data, 0, IMAGE).inputs["x"]
    assert np.shares_memory(decoded, memory)
    assert np.array_equal(decoded, array)


def test_the_memory_of_an_answer_is_the_outputs_own():
    request = decode(request_of({"x": ("FP32", np.ones((1, 3), np.float32))}))
    output = np.ones((1, 2), np.float32)
    parts = protobuf_body.encode(request, LABEL, {"y": output}).buffers
    assert np.shares_memory(np.frombuffer(parts[-1], np.uint8), output)


@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (lambda m: m.inputs[0].ClearField("name"), "INVALID_TENSOR", "takes 'x'"),
        (lambda m: setattr(m.inputs[0], "name", "wrong"), "INVALID_TENSOR", "no input 'wrong'"),
        (lambda m: setattr(m.inputs[0], "datatype", "FP64"), "INVALID_TENSOR", "takes FP32"),
        (lambda m: setattr(m.inputs[0], "datatype", "BF16"), "INVALID_TENSOR", "Send it as FP32"),
        (lambda m: m.inputs[0].shape.append(1), "INVALID_TENSOR", r"takes \[-1, 3\]"),
        (lambda m: m.inputs[0].shape.__setitem__(0, -2), "INVALID_TENSOR", r"\[-2, 3\]"),
        (lambda m: m.inputs[0].shape.__setitem__(0, 2**62), "INVALID_TENSOR", "24 bytes"),
        (lambda m: m.inputs[0].shape.__setitem__(0, 0), "INVALID_TENSOR", "has 0"),
        (lambda m: m.inputs[0].shape.__setitem__(0, 3), "INVALID_TENSOR", "has 36"),
        (lambda m: m.inputs.append(m.inputs[0]), "INVALID_REQUEST", "2 inputs but 1"),
        (lambda m: m.raw_input_contents.append(b""), "INVALID_REQUEST", "1 inputs but 2"),
        (lambda m: m.ClearField("raw_input_contents"), "INVALID_TENSOR", "0 elements"),
        (lambda m: m.ClearField("inputs"), "INVALID_REQUEST", "0 inputs"),
        (lambda m: m.outputs.add(name="z"), "INVALID_TENSOR", "no output 'z'; it gives 'y'"),
        (
            lambda m: (m.outputs.add(name="y"), m.outputs.add(name="y")),
            "INVALID_TENSOR",
            "asked for twice",
        ),
    ],
)
def test_a_wrong_request_is_refused_in_words(change, code, words):
    message = request_of({"x": ("FP32", np.ones((2, 3), np.float32))})
    change(message)
    with pytest.raises(AdlikError, match=words) as raised:
        decode(message)
    assert raised.value.code == code


def test_an_input_given_twice_and_a_missing_one_are_named():
    two = Signature.of(
        [TensorSpec("a", "FP32", (1,)), TensorSpec("b", "FP32", (1,))],
        [TensorSpec("y", "FP32", ())],
    )
    one = np.ones(1, np.float32)
    with pytest.raises(InvalidTensor, match="Missing input 'b'"):
        decode(request_of({"a": ("FP32", one)}), two)
    twice = request_of({"a": ("FP32", one)})
    twice.inputs.append(twice.inputs[0])
    twice.raw_input_contents.append(twice.raw_input_contents[0])
    with pytest.raises(InvalidTensor, match="'a' is given twice"):
        decode(twice, two)


def test_shared_memory_is_refused():
    message = pb.ModelInferRequest()
    tensor = message.inputs.add(name="x", datatype="FP32", shape=[1, 3])
    tensor.parameters["shared_memory_region"].string_param = "/secret"
    with pytest.raises(InvalidRequest, match="shared memory"):
        decode(message)


def test_too_many_fields_are_refused_before_they_cost_time():
    body = bytes([0x0A, 0]) * (protobuf_body.SMALL_BYTES + 1)
    with pytest.raises(InvalidRequest, match="fields"):
        protobuf_body.decode(body, 0, IMAGE)


@given(st.binary(max_size=300), st.integers(0, 400), st.booleans())
def test_garbage_is_refused_and_never_crashes(junk, cut, large):
    body = request_of({"x": ("FP32", np.ones((2, 3), np.float32))}).SerializeToString()
    hostile = body[:cut] + junk
    if large:
        hostile += bytes(protobuf_body.SMALL_BYTES)
    try:
        request = protobuf_body.decode(hostile, 0, IMAGE)
    except (InvalidRequest, InvalidTensor):
        return
    assert request.inputs["x"].shape[1:] == (3,)


def test_classes_of_an_output_come_as_strings():
    message = request_of({"x": ("FP32", np.ones((2, 3), np.float32))})
    message.outputs.add(name="y").parameters["classification"].int64_param = 5
    request = decode(message)
    scores = np.array([[0.25, 0.5], [2, -1]], np.float32)
    response = pb.ModelInferResponse.FromString(
        joined(protobuf_body.encode(request, LABEL, {"y": scores}))
    )
    assert (response.outputs[0].datatype, list(response.outputs[0].shape)) == ("BYTES", [2, 2])
    words = [b"0.500000:1", b"0.250000:0", b"2.000000:0", b"-1.000000:1"]
    assert response.raw_output_contents[0] == expected_raw(np.array(words, np.object_))


def test_a_sequence_is_refused_and_other_parameters_do_no_harm():
    message = request_of({"x": ("FP32", np.ones((2, 3), np.float32))})
    message.parameters["my_own"].string_param = "x"
    message.parameters["sequence_id"].int64_param = 0
    protobuf_body.decode(message.SerializeToString(), 0, IMAGE)
    message.parameters["sequence_id"].int64_param = 7
    with pytest.raises(AdlikError, match="sequence"):
        protobuf_body.decode(message.SerializeToString(), 0, IMAGE)
