"""Small ONNX models that the optimizer's tests are run on."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

RNG_SEED = 7


def weight(rng, name, *shape):
    return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32) * 0.3, name)


def batch_norm(rng, name, channels):
    """Returns a BatchNormalization's node from `x` to `y`, and its statistics."""
    values = [rng.uniform(0.5, 1.5, channels), rng.standard_normal(channels)]
    values += [rng.standard_normal(channels), rng.uniform(0.5, 1.5, channels)]
    parts = [
        numpy_helper.from_array(v.astype(np.float32), f"{name}.{i}") for i, v in enumerate(values)
    ]
    return parts, [part.name for part in parts]


def model(nodes, inputs, outputs, weights, opset=17, **options):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, t, s) for n, t, s in inputs],
        [helper.make_tensor_value_info(n, t, s) for n, t, s in outputs],
        weights,
    )
    made = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8, **options
    )
    onnx.checker.check_model(made)
    return made


def residual_cnn(channels=8, groups=1, seed=RNG_SEED):
    """Conv, BatchNormalization and Relu around a shortcut, with habits of exporters."""
    rng = np.random.default_rng(seed)
    bn1, names1 = batch_norm(rng, "bn1", channels)
    bn2, names2 = batch_norm(rng, "bn2", channels)
    weights = [
        weight(rng, "w1", channels, 3, 3, 3),
        weight(rng, "w2", channels, channels // groups, 3, 3),
        weight(rng, "w3", channels, 10),
        weight(rng, "b3", 10),
        weight(rng, "unused", 4),
        *bn1,
        *bn2,
    ]
    n = helper.make_node
    nodes = [
        n(
            "Constant",
            [],
            ["pads"],
            value=numpy_helper.from_array(np.array([0, 0, 1, 1, 0, 0, 1, 1])),
        ),
        n("Pad", ["x", "pads"], ["p"]),
        n("Conv", ["p", "w1"], ["c1"]),
        n("BatchNormalization", ["c1", *names1], ["n1"]),
        n("Relu", ["n1"], ["r1"]),
        n("Identity", ["r1"], ["i1"]),
        n("Conv", ["i1", "w2"], ["c2"], pads=[1, 1, 1, 1], group=groups),
        n("BatchNormalization", ["c2", *names2], ["n2"]),
        n("Add", ["n2", "r1"], ["a"]),
        n("Sqrt", ["a"], ["nobody_reads_this"]),
        n("Transpose", ["a"], ["t1"], perm=[0, 2, 3, 1]),
        n("Transpose", ["t1"], ["t2"], perm=[0, 3, 1, 2]),
        n("GlobalAveragePool", ["t2"], ["g"]),
        n("Flatten", ["g"], ["f"]),
        n("MatMul", ["f", "w3"], ["m"]),
        n("Add", ["m", "b3"], ["y"]),
    ]
    return model(
        nodes,
        [("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [("y", TensorProto.FLOAT, ["n", 10])],
        weights,
    )


def with_if():
    """A branch on the input's sum, each side a subgraph."""
    then = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["same"]), helper.make_node("Relu", ["same"], ["t"])],
        "then",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)],
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["e"])],
        "else",
        [],
        [helper.make_tensor_value_info("e", TensorProto.FLOAT, None)],
    )
    zero = numpy_helper.from_array(np.float32(0), "zero")
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Greater", ["s", "zero"], ["c"]),
        helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    return model(
        nodes, [("x", TensorProto.FLOAT, ["n", 4])], [("y", TensorProto.FLOAT, ["n", 4])], [zero]
    )


def with_custom_operator():
    """An operator of a domain that nobody knows."""
    node = helper.make_node("Fancy", ["x"], ["y"], domain="com.example")
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)
