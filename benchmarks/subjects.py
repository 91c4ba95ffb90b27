"""The models that serving is measured with, and the requests that ask for them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from adlik import oip
from adlik_proto.inference import open_inference_pb2 as pb
from onnx import TensorProto, helper, numpy_helper

from examples import mobilenet, photos


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to measure with: its file, its one input, and samples to calibrate and verify."""

    name: str
    path: Path
    inputs: dict[str, np.ndarray]
    samples: Path


def make_mlp(folder: Path) -> Subject:
    """Two dense layers: [batch, 16] → 32 → [batch, 10]; asked with four rows."""
    rng = np.random.default_rng(20)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32) / 4, name)

    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["input", "w1", "b1"], ["hidden"]),
            helper.make_node("Relu", ["hidden"], ["active"]),
            helper.make_node("Gemm", ["active", "w2", "b2"], ["output"]),
        ],
        "mlp",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 16])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 10])],
        [weight("w1", 16, 32), weight("b1", 32), weight("w2", 32, 10), weight("b2", 10)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, folder / "mlp.onnx")
    np.savez(folder / "mlp.npz", input=rng.standard_normal((64, 16)).astype(np.float32))
    inputs = {"input": rng.standard_normal((4, 16)).astype(np.float32)}
    return Subject("mlp", folder / "mlp.onnx", inputs, folder / "mlp.npz")


def make_tokens(folder: Path) -> Subject:
    """A layer of attention over tokens: [batch, tokens] → [batch, tokens, 32], both sizes open."""
    rng = np.random.default_rng(21)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32) / 8, name)

    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["x"]),
            helper.make_node("MatMul", ["x", "wq"], ["q"]),
            helper.make_node("MatMul", ["x", "wk"], ["k"]),
            helper.make_node("MatMul", ["x", "wv"], ["v"]),
            helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
            helper.make_node("MatMul", ["q", "kt"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["shares"], axis=-1),
            helper.make_node("MatMul", ["shares", "v"], ["mixed"]),
            helper.make_node("Add", ["x", "mixed"], ["sum"]),
            helper.make_node("LayerNormalization", ["sum", "scale"], ["output"]),
        ],
        "tokens",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "tokens"])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", "tokens", 32])],
        [weight("table", 100, 32), *(weight(name, 32, 32) for name in ("wq", "wk", "wv")),
         numpy_helper.from_array(np.ones(32, np.float32), "scale")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, folder / "tokens.onnx")
    inputs = {"ids": rng.integers(0, 100, (2, 9))}
    np.savez(folder / "tokens.npz", ids=rng.integers(0, 100, (64, 9)))
    return Subject("tokens", folder / "tokens.onnx", inputs, folder / "tokens.npz")


def make_mobilenet(folder: Path) -> Subject:
    mobilenet.export(folder / "mobilenet.onnx")
    photos.write_samples(folder / "mobilenet.npz")
    with np.load(folder / "mobilenet.npz") as samples:
        inputs = {"input": samples["input"][:1]}
    return Subject("mobilenet", folder / "mobilenet.onnx", inputs, folder / "mobilenet.npz")


@dataclass(frozen=True, slots=True)
class Bodies:
    """One request in every encoding, as files.

    Attributes:
        inputs: The arrays (.npz).
        binary: HTTP body with binary tensors.
        json_length: Bytes of `binary` that are JSON.
        text: HTTP body that is JSON alone.
        message: Serialized ModelInferRequest with raw contents.
    """

    inputs: Path
    binary: Path
    json_length: int
    text: Path
    message: Path


def write_bodies(subject: Subject, served: str, folder: Path) -> Bodies:
    """Writes the requests that ask for a model under the name it is served by."""
    folder.mkdir(parents=True)
    body, json_length = oip.encode(subject.inputs)
    bodies = Bodies(
        folder / "inputs.npz", folder / "binary", json_length, folder / "json", folder / "message"
    )
    message = pb.ModelInferRequest(model_name=served)
    listed = []
    for name, array in subject.inputs.items():
        tensor = {"name": name, "datatype": "FP32", "shape": list(array.shape)}
        message.inputs.add(**tensor)
        message.raw_input_contents.append(array.tobytes())
        listed.append({**tensor, "data": array.ravel().tolist()})
    np.savez(bodies.inputs, **subject.inputs)
    bodies.binary.write_bytes(body)
    bodies.text.write_text(json.dumps({"inputs": listed}))
    bodies.message.write_bytes(message.SerializeToString())
    return bodies
