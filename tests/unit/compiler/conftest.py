"""A small classifier as an ONNX file, plain or with its weights beside it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


def classifier(op: str = "Relu", domain: str = "", scale: float = 1.0) -> onnx.ModelProto:
    """scores = op(x @ weight), [n, 16] to [n, 10]."""
    random = np.random.default_rng(11)
    weight = scale * random.standard_normal((16, 10)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "weight"], ["raw"]),
            helper.make_node(op, ["raw"], ["scores"], domain=domain, name="last"),
        ],
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 16])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(weight.astype(np.float32), "weight")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.ops", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.fixture
def save(tmp_path):
    def write(name: str = "model.onnx", external: str = "", **options):
        path = tmp_path / name
        model = classifier(**options)
        if external:
            onnx.save_model(
                model, path, save_as_external_data=True, location=external, size_threshold=0
            )
        else:
            onnx.save(model, path)
        return path

    return write
