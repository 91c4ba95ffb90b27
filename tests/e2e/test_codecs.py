"""Models of every kind by every way of asking: exactly what ONNX Runtime says, also in company.

The models compute element by element or move elements around, so that nothing is rounded twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import numpy as np
import onnx
import onnxruntime
import pytest
from adlik_proto.inference import open_inference_pb2 as pb
from onnx import TensorProto, helper, numpy_helper

from tests.e2e.transports import DATATYPES, Arrays, Transports, strings
from tests.mesh import QUICK_PLAN, eventually

CLIENTS, ROUNDS = 8, 30
NUMERIC = [name for name in DATATYPES if name not in ("bool", "object", "float16")]
ODD_TEXTS = [
    "",
    "a",
    "ä\U0001f600",
    "\0",
    "a\0b",
    '"',
    "\\",
    "NaN",
    "],[",
    "\u2028",
    " ",
    "x" * 3000,
]


@dataclass(frozen=True)
class Kind:
    """A model and what it is asked.

    Attributes:
        nodes: Its nodes.
        inputs, outputs: Names with ONNX types and sizes; text stands for any size.
        draw: Makes the inputs for a number of rows.
        weights: Constants.
    """

    nodes: list[onnx.NodeProto]
    inputs: list[tuple[str, int, list[int | str]]]
    outputs: list[tuple[str, int, list[int | str]]]
    draw: Callable[[np.random.Generator, int], Arrays]
    weights: tuple[tuple[str, np.ndarray], ...] = ()

    def save(self, path: Path) -> Path:
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info(*value) for value in self.inputs],
            [helper.make_tensor_value_info(*value) for value in self.outputs],
            [numpy_helper.from_array(array, name) for name, array in self.weights],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, path)
        return path


def onnx_type(name: str) -> int:
    if name == "object":
        return TensorProto.STRING
    return helper.np_dtype_to_tensor_dtype(np.dtype(name))


def numbers(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns any bits: the ends of the range, 2**53 + 1, subnormal numbers, NaN and infinities."""
    kind = np.dtype(dtype)
    array = np.frombuffer(rng.bytes(int(np.prod(shape)) * kind.itemsize), kind).copy()
    edges = (
        [np.nan, np.inf, -np.inf, -0.0, np.finfo(kind).tiny / 4, np.finfo(kind).max]
        if kind.kind == "f"
        else [np.iinfo(kind).min, np.iinfo(kind).max, 0]
    )
    if kind.itemsize == 8 and kind.kind != "f":
        edges.append(2**53 + 1)
    if kind.kind == "f":  # bits of NaN other than the usual do not outlive text
        array[np.isnan(array)] = np.nan
    places = rng.integers(0, array.size, len(edges))
    array[places] = np.array(edges, kind)
    return array.reshape(shape)


def texts(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return strings([ODD_TEXTS[at] for at in rng.integers(0, len(ODD_TEXTS), np.prod(shape))], shape)


def identity(
    dtypes: list[str], draw: Callable[[np.random.Generator, str, int], np.ndarray]
) -> Kind:
    return Kind(
        [helper.make_node("Identity", [f"x_{name}"], [f"y_{name}"]) for name in dtypes],
        [(f"x_{name}", onnx_type(name), ["n", 3]) for name in dtypes],
        [(f"y_{name}", onnx_type(name), ["n", 3]) for name in dtypes],
        lambda rng, rows: {f"x_{name}": draw(rng, name, rows) for name in dtypes},
    )


FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
KINDS = {
    "numbers": identity(NUMERIC, lambda rng, name, rows: numbers(rng, name, (rows, 3))),
    "halves": identity(["float16"], lambda rng, name, rows: numbers(rng, name, (rows, 3))),
    "texts": identity(["object"], lambda rng, _, rows: texts(rng, (rows, 3))),
    "negated": Kind(
        [helper.make_node("Not", ["x"], ["y"])],
        [("x", TensorProto.BOOL, ["n", 2])],
        [("y", TensorProto.BOOL, ["n", 2])],
        lambda rng, rows: {"x": rng.random((rows, 2)) < 0.5},
    ),
    "logarithm": Kind(
        [helper.make_node("Log", ["x"], ["y"]), helper.make_node("IsNaN", ["y"], ["undefined"])],
        [("x", FLOAT, ["n", 4])],
        [("y", FLOAT, ["n", 4]), ("undefined", TensorProto.BOOL, ["n", 4])],
        lambda rng, rows: {"x": rng.choice([-1, 0, 1, np.inf], (rows, 4)).astype(np.float32)},
    ),
    "scaled": Kind(
        [
            helper.make_node("Mul", ["x", "factor"], ["y"]),
            helper.make_node("ReduceMax", ["y"], ["largest"], keepdims=0),
        ],
        [("x", FLOAT, ["n"]), ("factor", FLOAT, [])],
        [("y", FLOAT, ["n"]), ("largest", FLOAT, [])],
        lambda rng, rows: {
            "x": rng.standard_normal(rows).astype(np.float32),
            "factor": np.array(rng.standard_normal(), np.float32),
        },
    ),
    "turned": Kind(
        [
            helper.make_node("Transpose", ["x"], ["y"], perm=[0, 3, 1, 2]),
            helper.make_node("ArgMax", ["y"], ["best"], axis=1, keepdims=0),
            helper.make_node("Add", ["x", "one"], ["plus"]),
        ],
        [("x", FLOAT, ["n", 2, "w", 3])],
        [
            ("y", FLOAT, ["n", 3, 2, "w"]),
            ("best", INT64, ["n", 2, "w"]),
            ("plus", FLOAT, ["n", 2, "w", 3]),
        ],
        lambda rng, rows: {
            "x": rng.standard_normal((rows, 2, int(rng.integers(1, 4)), 3)).astype(np.float32)
        },
        (("one", np.array(1, np.float32)),),
    ),
}


@dataclass(frozen=True)
class Served:
    """What is asked, and what is right."""

    transports: Transports
    sessions: dict[str, onnxruntime.InferenceSession]

    def check(self, name: str, way: str, rng: np.random.Generator) -> None:
        """Asks a model once and compares every bit of the answer with the reference's."""
        inputs = KINDS[name].draw(rng, int(rng.integers(1, 5)))
        session = self.sessions[name]
        known = [output.name for output in session.get_outputs()]
        count = int(rng.integers(0, len(known) + 1))
        wanted = [str(output) for output in rng.permutation(known)[:count]]
        found = self.transports.all()[way](name, inputs, wanted)
        assert list(found) == (wanted or known)
        right = dict(zip(known, session.run(known, inputs), strict=True))
        for output, array in found.items():
            assert same(array, np.asarray(right[output])), (name, way, output, inputs)


def same(found: np.ndarray, right: np.ndarray) -> bool:
    if (found.dtype, found.shape) != (right.dtype, right.shape):
        return False
    if found.dtype.kind != "f":
        return bool((found == right).all())
    signs = np.signbit(found) == np.signbit(right)
    return np.array_equal(found, right, equal_nan=True) and bool((signs | np.isnan(right)).all())


@pytest.fixture(scope="module")
def served(mesh, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    sessions = {}
    for name, kind in KINDS.items():
        path = kind.save(folder / f"{name}.onnx")
        sessions[name] = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        mesh.client.push(name, path, plan=QUICK_PLAN)
    for name in KINDS:
        eventually(lambda: mesh.client.model(name).ready_replicas, f"{name} answers", 180)  # noqa: B023
    transports = Transports(mesh.http, mesh.grpc)
    yield Served(transports, sessions)
    transports.close()
    for name in KINDS:
        mesh.client.delete(name)


WAYS = list(Transports.all(object.__new__(Transports)))


# FP16 has no typed contents.
PAIRS = [(name, way) for name in KINDS for way in WAYS if (name, way) != ("halves", "gRPC typed")]


@pytest.mark.parametrize(("name", "way"), PAIRS)
def test_alone(served, name, way):
    rng = np.random.default_rng(17)
    for _ in range(4):
        served.check(name, way, rng)


def test_eight_clients_of_different_requests(served):
    def client(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(ROUNDS):
            for at in rng.permutation(len(PAIRS))[: len(WAYS)]:
                served.check(*PAIRS[at], rng)

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(client, range(CLIENTS)))


def test_a_stream_answers_each_request_in_its_order(mesh, served):
    def requests():
        for number in range(60):
            message = pb.ModelInferRequest(model_name="logarithm", id=str(number))
            shape = [1, 4] if number % 3 else [1, 3]
            message.inputs.add(name="x", datatype="FP32", shape=shape)
            message.raw_input_contents.append(np.full(shape, number, np.float32).tobytes())
            if number % 5 == 0:
                message.inputs[0].contents.fp32_contents.append(1)
            yield message

    with grpc.insecure_channel(mesh.grpc) as channel:
        path = "/inference.GRPCInferenceService/ModelStreamInfer"
        stream = channel.stream_stream(
            path,
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )
        answers = list(stream(requests(), timeout=60))
    assert [answer.infer_response.id for answer in answers] == [str(n) for n in range(60)]
    for number, answer in enumerate(answers):
        assert bool(answer.error_message) == (number % 3 == 0 or number % 5 == 0)
        if not answer.error_message:
            found = np.frombuffer(answer.infer_response.raw_output_contents[0], np.float32)
            right = np.log(np.full(4, number, np.float32))
            np.testing.assert_allclose(found, right, rtol=1e-6)


def test_fp16_has_no_typed_contents(served):
    message = pb.ModelInferRequest(model_name="halves")
    contents = message.inputs.add(name="x_float16", datatype="FP16", shape=[1, 3]).contents
    contents.fp32_contents.extend([1, 2, 3])
    with pytest.raises(grpc.RpcError, match="no typed contents"):
        served.transports._stub.ModelInfer(message)


def test_raw_bytes_of_a_models_one_input_are_its_tensor(mesh, served):
    x = np.array([[1, 0, -1, np.inf], [2, 3, 4, 5]], np.float32)
    answer = httpx.post(
        f"{mesh.http}/v2/models/logarithm/infer",
        content=x.tobytes(),
        headers={"Inference-Header-Content-Length": "0"},
    )
    y, undefined = json.loads(answer.content)["outputs"]
    right = served.sessions["logarithm"].run(None, {"x": x})
    assert same(np.array(y["data"], np.float32).reshape(y["shape"]), right[0])
    assert undefined["data"] == right[1].ravel().tolist()


def test_a_large_request_is_answered_as_a_small_one(served):
    rng = np.random.default_rng(3)
    x = rng.choice([-1, 0, 1, 0.5], (40_000, 4)).astype(np.float32)
    t = texts(rng, (3_000, 3))
    for way, ask in served.transports.all().items():
        right = served.sessions["logarithm"].run(["y"], {"x": x})[0]
        assert same(ask("logarithm", {"x": x}, ["y"])["y"], right), way
        if "gRPC" not in way:  # more than their clients take by default
            found = ask("texts", {"x_object": t}, [])["y_object"]
            assert (found == t).all(), way


def test_a_model_on_its_way_is_not_served_yet(mesh, tmp_path):
    """Until it is, it is told to be on its way; then it is ready, and never was it not found."""
    mesh.client.push("coming", KINDS["turned"].save(tmp_path / "m.onnx"), plan=QUICK_PLAN)
    seen = set()
    while True:
        answer = httpx.get(f"{mesh.http}/v2/models/coming/ready")
        seen.add(answer.status_code)
        if answer.status_code == 200:
            break
        assert answer.json()["code"] == "UNAVAILABLE", answer.text
        assert answer.json()["retryable"]
    assert seen == {200, 503}
    never = httpx.get(f"{mesh.http}/v2/models/coming/versions/9/ready")
    assert (never.status_code, never.json()["code"]) == (404, "NOT_FOUND")
    mesh.client.delete("coming")
    assert httpx.get(f"{mesh.http}/v2/models/coming/ready").status_code == 404
