"""How long a large request keeps its neighbours waiting, by the way in which it is written.

A client asks a tiny model without pause, while another sends 2 million floats or a million strings
to another model of the same replica. Printed are the slowest answer that the first client got, its
median, and the time of the large request; medians of several rounds.

    python -m benchmarks.neighbours [--rounds 3]
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import onnx
from adlik_proto.inference import open_inference_pb2 as pb
from adlik_proto.inference import open_inference_pb2_grpc as rpc
from onnx import TensorProto, helper

from benchmarks.machine import describe
from tests.mesh import QUICK_PLAN, Mesh

FLOATS = np.random.default_rng(0).standard_normal((500_000, 4)).astype(np.float32)
TEXTS = [f"text {number}" for number in range(1_000_000)]
MODELS = {
    "tiny": (TensorProto.FLOAT, ["n", 4]),
    "floats": (TensorProto.FLOAT, ["n", 4]),
    "texts": (TensorProto.STRING, ["n"]),
}
SETTLE_SECONDS = 0.2


def save(path: Path, element: int, shape: list[int | str]) -> Path:
    values = [helper.make_tensor_value_info(name, element, shape) for name in ("x", "y")]
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def json_of(datatype: str, shape: list[int], data: list) -> bytes:
    entry = {"name": "x", "datatype": datatype, "shape": shape, "data": data}
    return json.dumps({"inputs": [entry]}).encode()


class Asked:
    """The large requests, ready to be sent to a mesh."""

    def __init__(self, mesh: Mesh) -> None:
        self.host = mesh.http.removeprefix("http://")
        limits = [(f"grpc.max_{way}_message_length", -1) for way in ("receive", "send")]
        self._stub = rpc.GRPCInferenceServiceStub(grpc.insecure_channel(mesh.grpc, options=limits))
        shape = list(FLOATS.shape)
        self._flat = json_of("FP32", shape, FLOATS.ravel().tolist())
        self._nested = json_of("FP32", shape, FLOATS.tolist())
        self._texts = json_of("BYTES", [len(TEXTS)], TEXTS)
        encoded = [text.encode() for text in TEXTS]
        blob = b"".join(struct.pack("<I", len(text)) + text for text in encoded)
        entry = {"name": "x", "datatype": "BYTES", "shape": [len(TEXTS)]}
        head = {
            "inputs": [{**entry, "parameters": {"binary_data_size": len(blob)}}],
            "parameters": {"binary_data_output": True},
        }
        self._head = json.dumps(head).encode()
        self._binary = self._head + blob
        self._typed_floats = pb.ModelInferRequest(model_name="floats")
        tensor = self._typed_floats.inputs.add(name="x", datatype="FP32", shape=shape)
        tensor.contents.fp32_contents.extend(FLOATS.ravel().tolist())
        self._typed_texts = pb.ModelInferRequest(model_name="texts")
        tensor = self._typed_texts.inputs.add(name="x", datatype="BYTES", shape=[len(TEXTS)])
        tensor.contents.bytes_contents.extend(encoded)

    def ways(self) -> dict[str, Callable[[], object]]:
        length = {"Inference-Header-Content-Length": str(len(self._head))}
        return {
            "nothing": lambda: time.sleep(1),
            "JSON, floats": lambda: self._post("floats", self._flat),
            "JSON, nested floats": lambda: self._post("floats", self._nested),
            "JSON, strings": lambda: self._post("texts", self._texts),
            "HTTP binary, strings": lambda: self._post("texts", self._binary, length),
            "gRPC typed, floats": lambda: self._stub.ModelInfer(self._typed_floats),
            "gRPC typed, strings": lambda: self._stub.ModelInfer(self._typed_texts),
        }

    def _post(self, model: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        connection = http.client.HTTPConnection(self.host, timeout=120)
        connection.request("POST", f"/v2/models/{model}/infer", body, headers or {})
        answer = connection.getresponse()
        assert answer.read()
        assert answer.status == 200
        connection.close()


def neighbours(host: str, large: Callable[[], object]) -> tuple[float, float, float]:
    """Returns the slowest and the median answer beside a large request, and its own time, in s."""
    tiny = json_of("FP32", [1, 4], [1, 2, 3, 4])
    stop, took = threading.Event(), []

    def ask() -> None:
        connection = http.client.HTTPConnection(host, timeout=120)
        while not stop.is_set():
            started = time.perf_counter()
            connection.request("POST", "/v2/models/tiny/infer", tiny)
            connection.getresponse().read()
            took.append(time.perf_counter() - started)
        connection.close()

    asker = threading.Thread(target=ask)
    asker.start()
    time.sleep(SETTLE_SECONDS)
    before, started = len(took), time.perf_counter()
    large()
    seconds = time.perf_counter() - started
    time.sleep(SETTLE_SECONDS)
    stop.set()
    asker.join()
    return max(took[before:]), statistics.median(took[before:]), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    print(describe())
    with tempfile.TemporaryDirectory() as folder, Mesh(Path(folder) / "mesh") as mesh:
        for name, (element, shape) in MODELS.items():
            path = save(Path(folder) / f"{name}.onnx", element, shape)
            mesh.client.push(name, path, plan=QUICK_PLAN)
        for name in MODELS:
            mesh.wait_settled(name)
        asked = Asked(mesh)
        print(f"{'large request':22} {'slowest ms':>10} {'median ms':>10} {'itself s':>9}")
        for way, large in asked.ways().items():
            runs = [neighbours(asked.host, large) for _ in range(rounds)]
            slowest, median, seconds = map(statistics.median, zip(*runs, strict=True))
            print(f"{way:22} {slowest * 1e3:10.1f} {median * 1e3:10.1f} {seconds:9.2f}")


if __name__ == "__main__":
    main()
