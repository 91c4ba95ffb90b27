"""Small ONNX models, and variants of them that are wrong in one way each."""

from __future__ import annotations

import numpy as np
import onnx
from adlik_proof.gather import Effort
from onnx import TensorProto, helper, numpy_helper

NODE = helper.make_node
EFFORT = Effort(threads=1, search_seconds=60.0, seconds=60.0)
F, I64, TEXT = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING


def model(nodes, inputs, outputs, weights=(), opset=17):
    """Inputs and outputs are (name, type, dims); weights arrays by name."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*value) for value in inputs],
        [helper.make_tensor_value_info(*value) for value in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in dict(weights).items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def normal(*shape, seed=1, scale=1.0):
    random = np.random.default_rng(seed)
    return (scale * random.standard_normal(shape)).astype(np.float32)


def mlp(last="Softmax"):
    """[batch, 16] to [batch, 10]."""
    weights = {"w0": normal(16, 32), "b0": normal(32), "w1": normal(32, 10, seed=2)}
    nodes = [
        NODE("Gemm", ["x", "w0", "b0"], ["h"]),
        NODE("Relu", ["h"], ["r"]),
        NODE("MatMul", ["r", "w1"], ["z"]),
        NODE(last, ["z"], ["y"]),
    ]
    return model(nodes, [("x", F, ["batch", 16])], [("y", F, ["batch", 10])], weights)


def saved(made: onnx.ModelProto, folder, name="model.onnx"):
    path = folder / name
    onnx.save(made, path)
    return path
