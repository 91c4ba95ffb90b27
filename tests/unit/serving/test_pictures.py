"""Pictures over a real link: classes and boxes come back, wrong ones are refused, spans left."""

import asyncio
import json
import re

import numpy as np
import pytest
from adlik_common import spans, telemetry
from adlik_common.errors import from_proto
from adlik_common.link import LinkClient, LinkServer, RemoteError
from adlik_common.pipelines import resolve
from adlik_proto.adlik.link.v1 import link_pb2
from adlik_proto.adlik.model.v1 import model_pb2
from adlik_proto.inference import open_inference_pb2 as pb
from adlik_serving.batcher import Limits
from adlik_serving.loaded import LoadedVariant, Opened
from adlik_serving.pipeline import MAX_SIDE, Pipeline
from adlik_serving.servicer import Servicer
from adlik_serving.warmup import WarmUp
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from picturing import Detector, Means

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
RED = np.full((5, 7, 3), (255, 0, 0), np.uint8)
CLASSES = model_pb2.Pipeline(image={}, classes={"output": "logits", "top": 2})
BOXES = model_pb2.Pipeline(image={}, detect={})


def variant_of(name, model, plan):
    release = model_pb2.Release(revision=7)
    release.pushed.name, release.pushed.version = name, 3
    release.compiled.variant = "pushed.onnxruntime-fp32"
    release.compiled.engine, release.compiled.precision = "onnxruntime", "fp32"
    pipeline = Pipeline(resolve(plan, model.inputs, model.outputs))
    return LoadedVariant(release, Opened(model, WarmUp(32, 10_000_000), 5, pipeline), Limits())


class Replica:
    """A servicer of a classifier and a detector on a link, and a client of it."""

    def __init__(self, client):
        self.client, self.model = client, Means()
        self.loaded = {
            "means": variant_of("means", self.model, CLASSES),
            "boxes": variant_of("boxes", Detector([(32, 32, 16, 16, 0.9, 1)]), BOXES),
        }
        self.server = LinkServer(Servicer(self.loaded, {}))

    async def ask(self, body, model="means", encoding=link_pb2.ENCODING_PROTOBUF, **head):
        head = link_pb2.InferRequestHead(model=model, encoding=encoding, **head)
        reply = await self.client.request(head.SerializeToString(), body)
        return link_pb2.InferResponseHead.FromString(reply.head), bytes(reply.body)

    async def refused(self, *args, **head):
        with pytest.raises(RemoteError) as raised:
            await self.ask(*args, **head)
        return from_proto(link_pb2.ErrorHead.FromString(raised.value.head).error)


@pytest.fixture
async def replica(tmp_path):
    address = f"unix://{tmp_path}/l.sock"
    replica = Replica(LinkClient(address))
    await replica.server.start(address)
    yield replica
    await replica.client.close()
    await replica.server.stop(1)
    for variant in replica.loaded.values():
        await variant.retire()


def message(array, name="input", datatype="UINT8", shape=None):
    request = pb.ModelInferRequest()
    request.inputs.add(name=name, datatype=datatype, shape=shape or array.shape)
    request.raw_input_contents.append(array.tobytes())
    return request.SerializeToString()


TYPES = {"FP32": np.float32, "INT64": np.int64, "INT32": np.int32}


def tensors(body):
    response = pb.ModelInferResponse.FromString(body)
    return {
        output.name: np.frombuffer(raw, TYPES[output.datatype]).reshape(output.shape)
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


async def test_a_picture_is_answered_with_its_classes(replica):
    head, body = await replica.ask(message(RED))
    found = tensors(body)
    assert list(found) == ["scores", "labels"]
    assert found["labels"].tolist() == [0, 1]
    np.testing.assert_allclose(found["scores"], np.exp([10, 0]) / (np.exp(10) + 2), rtol=1e-4)
    assert (head.rows, head.batch_size) == (1, 1)
    assert min(head.input_ns, head.infer_ns, head.output_ns) > 0


async def test_a_picture_is_answered_with_its_boxes(replica):
    _, body = await replica.ask(message(RED, "images"), "boxes")
    found = tensors(body)
    width, height = 7 / 64, 5 / 64
    np.testing.assert_allclose(
        found["boxes"], [[24 * width, 24 * height, 40 * width, 40 * height]], rtol=1e-5
    )
    assert found["classes"].tolist() == [1]


async def test_a_picture_in_json_is_answered_in_json(replica):
    entry = {"name": "input", "datatype": "UINT8", "shape": [1, 2, 3]}
    entry["data"] = [[[0, 255, 0], [0, 255, 0]]]
    body = json.dumps({"inputs": [entry], "outputs": [{"name": "labels"}]}).encode()
    _, answer = await replica.ask(body, encoding=link_pb2.ENCODING_JSON)
    (output,) = json.loads(answer)["outputs"]
    assert output == {"name": "labels", "datatype": "INT64", "shape": [2], "data": [1, 0]}


async def test_many_pictures_of_other_sizes_run_together(replica):
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 3, 40)
    pictures = [np.zeros((3 + n, 50 - n, 3), np.uint8) for n in range(40)]
    for picture, kind in zip(pictures, kinds, strict=True):
        picture[..., kind] = 200
    answers = await asyncio.gather(*(replica.ask(message(picture)) for picture in pictures))
    assert [tensors(body)["labels"][0] for _, body in answers] == kinds.tolist()
    assert len(replica.model.runs) < len(pictures)


LONG = np.zeros((MAX_SIDE + 1, 1, 3), np.uint8)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (message(RED.astype(np.float32), datatype="FP32"), "takes UINT8"),
        (message(RED[None]), r"takes \[-1, -1, 3\]"),
        (message(RED[..., :2]), r"takes \[-1, -1, 3\]"),
        (message(RED[..., 0]), r"takes \[-1, -1, 3\]"),
        (message(RED[:0]), "no element"),
        (message(RED, shape=(5, 8, 3)), "has 105 bytes"),
        (message(RED, "picture"), "no input 'picture'"),
        (message(LONG), "rows"),
        (b"", "Missing input"),
    ],
)
async def test_what_is_no_such_picture_is_refused_and_the_next_one_is_taken(replica, body, said):
    error = await replica.refused(body)
    assert error.code == "INVALID_TENSOR"
    assert re.search(said, error.message)
    await replica.ask(message(RED))


async def test_the_replicas_entry_tells_what_clients_send_and_get(replica):
    entry = replica.loaded["means"].describe()
    (taken,) = entry.signature.inputs
    assert (taken.name, taken.datatype, list(taken.shape)) == ("input", "UINT8", [-1, -1, 3])
    given = [(s.name, s.datatype, list(s.shape)) for s in entry.signature.outputs]
    assert given == [("scores", "FP32", [2]), ("labels", "INT64", [2])]
    assert entry.max_batch_size == 0


async def test_a_traced_picture_leaves_the_spans_of_its_pipeline(replica, monkeypatch):
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "tracer", lambda: provider.get_tracer("test"))
    await replica.ask(message(RED), traceparent=TRACE)
    found = {span.name: span for span in exporter.get_finished_spans()}
    parts = [spans.QUEUE, spans.PREPROCESS, spans.EXECUTE, spans.POSTPROCESS]
    assert set(found) == {spans.SERVING_INFER, *parts}
    assert dict(found[spans.PREPROCESS].attributes) == {
        spans.PICTURE_ROWS: 5, spans.PICTURE_COLUMNS: 7,
    }  # fmt: skip
    whole = found[spans.SERVING_INFER]
    times = [t for name in parts for t in (found[name].start_time, found[name].end_time)]
    assert times == sorted(times)
    assert whole.start_time <= times[0]
    assert times[-1] <= whole.end_time
