"""Bodies that are raw bytes of one input: its shape follows from their number, or is asked for."""

import numpy as np
import pytest
from adlik_common.errors import AdlikError
from adlik_common.tensors import TensorSpec
from adlik_serving.oip import tensor_body
from adlik_serving.oip.request import Signature

OUTPUT = TensorSpec("y", "FP32", (-1,))


def decode(body, datatype, *shape):
    signature = Signature.of([TensorSpec("x", datatype, shape)], [OUTPUT])
    return tensor_body.decode(body, 0, signature)


@pytest.mark.parametrize(
    ("datatype", "model", "count", "shape"),
    [
        ("FP32", (-1, 4), 4, (1, 4)),
        ("FP32", (-1, 4), 12, (3, 4)),
        ("INT64", (2, 3), 6, (2, 3)),
        ("FP16", (1, -1), 5, (1, 5)),
        ("UINT8", (), 1, ()),
    ],
)
def test_the_shape_follows_from_the_bytes(datatype, model, count, shape):
    dtype = {"FP32": "f4", "INT64": "i8", "FP16": "f2", "UINT8": "u1"}[datatype]
    values = np.arange(count).astype(dtype)
    request = decode(values.tobytes(), datatype, *model)
    assert request.inputs["x"].shape == shape
    assert request.inputs["x"].tobytes() == values.tobytes()
    assert [output.name for output in request.outputs] == ["y"]


@pytest.mark.parametrize("shape", [(1,), (-1, 1), ()])
def test_a_string_is_the_whole_body(shape):
    request = decode("ä\0".encode(), "BYTES", *shape)
    assert request.inputs["x"].ravel().tolist() == ["ä\0"]
    assert request.inputs["x"].ndim == len(shape)


@pytest.mark.parametrize(
    ("body", "datatype", "shape", "words"),
    [
        (b"", "FP32", (-1, 4), "empty"),
        (b"\0" * 15, "FP32", (-1, 4), "not a multiple of 16"),
        (b"\0" * 16, "FP32", (-1, -1), "more than one size is open"),
        (b"\0" * 32, "FP32", (1, 4), "has 32 bytes"),
        (b"\2", "BOOL", (-1,), "other than 0 and 1"),
        (b"a", "BYTES", (2,), "more than the one string"),
        (b"\xff", "BYTES", (-1,), "UTF-8"),
        (b"\0", "FP32", (0, 4), "not a multiple of 0"),
    ],
)
def test_bytes_that_make_no_tensor_are_refused(body, datatype, shape, words):
    with pytest.raises(AdlikError, match=words):
        decode(body, datatype, *shape)


@pytest.mark.parametrize("inputs", [0, 2])
def test_a_model_of_several_inputs_needs_json(inputs):
    specs = [TensorSpec(f"x{number}", "FP32", (-1,)) for number in range(inputs)]
    with pytest.raises(AdlikError, match=f"the model has {inputs}"):
        tensor_body.decode(b"\0" * 4, 0, Signature.of(specs, [OUTPUT]))
