"""Models in parts: plans and ONNX Runtime in turns."""

import numpy as np
import onnx
import onnxruntime
import pytest
from adlik_kernels import InvalidOperand, UnsupportedGraph, load_model
from onnx import helper

FLOAT = onnx.TensorProto.FLOAT


def expected(path, inputs):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


def check(path, inputs, batches=(1,)):
    model = load_model(path, batches)
    found, want = model(inputs), expected(path, inputs)
    assert list(found) == list(want)
    for name, array in want.items():
        assert found[name].shape == array.shape
        np.testing.assert_allclose(found[name], array, rtol=2e-4, atol=2e-5)
    return model


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


def test_an_unknown_operator_runs_between_two_plans(path, builder):
    model = builder((6, 9, 8))
    model.conv(6, 12, 3)
    model.node("Relu")
    model.node("LRN", size=3)
    model.conv(12, 5, 1)
    model.node("GlobalAveragePool")
    model.node("Flatten")
    model.save(path)
    for batch in (1, 3):
        x = model.rng.standard_normal((batch, 6, 9, 8)).astype(np.float32)
        loaded = check(path, {"x": x})
    engines = [part.engine for part in loaded.parts]
    assert engines == ["kernels", "onnxruntime", "kernels"]
    assert loaded.parts[1].operators == {"LRN": 1}
    assert "LRN" in loaded.parts[1].reasons["LRN"]
    assert 0.8 < loaded.share < 0.9


def test_what_no_plan_knows_runs_on_onnx_runtime_alone(path, builder):
    model = builder((4, 6, 6))
    model.node("LRN", size=3)
    model.node("Relu")
    model.save(path)
    loaded = check(path, {"x": model.rng.standard_normal((2, 4, 6, 6)).astype(np.float32)})
    assert [part.engine for part in loaded.parts] == ["onnxruntime"]
    assert loaded.parts[0].reasons["Relu"] == "too little for a call"
    assert loaded.share == 0.0


def test_several_inputs_and_outputs(path, builder):
    model = builder((20,))
    left = model.node("Gemm", "x", model.weight(20, 12))
    right = model.node("Gemm", "y", model.weight(7, 12), model.weight(12))
    total = model.node("Add", left, right)
    model.node("Relu")
    model.node("Gemm", model.last, model.weight(12, 3))
    model.save(path)
    proto = onnx.load(path)
    info = helper.make_tensor_value_info
    proto.graph.input.append(info("y", FLOAT, ["n", 7]))
    proto.graph.output.append(info(total, FLOAT, ["n", 12]))
    onnx.save(proto, path)
    inputs = {
        "x": model.rng.standard_normal((5, 20)).astype(np.float32),
        "y": model.rng.standard_normal((5, 7)).astype(np.float32),
    }
    loaded = check(path, inputs)
    assert [part.engine for part in loaded.parts] == ["kernels"]
    with pytest.raises(InvalidOperand, match="missing"):
        loaded({"x": inputs["x"]})
    with pytest.raises(InvalidOperand, match="shape"):
        loaded({**inputs, "y": inputs["y"][:2]})
    with pytest.raises(InvalidOperand, match="dtype"):
        loaded({**inputs, "x": inputs["x"].astype(np.float64)})


def test_a_value_may_leave_in_the_middle(path, builder):
    model = builder((3, 8, 8))
    middle = model.conv(3, 6, 3)
    model.node("Relu")
    model.conv(6, 4, 3)
    model.save(path)
    proto = onnx.load(path)
    proto.graph.output.append(helper.make_tensor_value_info(middle, FLOAT, None))
    onnx.save(proto, path)
    check(path, {"x": model.rng.standard_normal((2, 3, 8, 8)).astype(np.float32)})


@pytest.mark.parametrize("content", [None, b"", b"no model", b"\x08\x07garbage"])
def test_what_is_no_model_is_refused_in_words(path, content):
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnsupportedGraph, match=r"can't be read|no output"):
        load_model(path)
