"""Small ONNX models with known answers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


def dense(rows="n", *, inner=16, outer=10, op="Relu", domain="") -> tuple[onnx.ModelProto, dict]:
    """y = op(x @ weight + bias), and beside it the row sums of x."""
    random = np.random.default_rng(5)
    weights = {
        "weight": random.standard_normal((inner, outer)).astype(np.float32),
        "bias": random.standard_normal(outer).astype(np.float32),
    }
    axes = numpy_helper.from_array(np.array([1], np.int64), "axes")
    nodes = [
        helper.make_node("Gemm", ["x", "weight", "bias"], ["dense"]),
        helper.make_node(op, ["dense"], ["y"], domain=domain, name="last"),
        helper.make_node("ReduceSum", ["x", "axes"], ["total"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "dense",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, inner])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, outer]),
            helper.make_tensor_value_info("total", TensorProto.FLOAT, [rows]),
        ],
        [numpy_helper.from_array(array, name) for name, array in weights.items()] + [axes],
    )
    opsets = [helper.make_opsetid("", 17)]
    if domain:
        opsets.append(helper.make_opsetid(domain, 1))
    return helper.make_model(graph, opset_imports=opsets, ir_version=8), weights


@pytest.fixture
def save(tmp_path):
    def write(**options):
        model, weights = dense(**options)
        path = tmp_path / "model.onnx"
        onnx.save(model, path)
        return path, weights

    return write
