"""A serving replica of a doubling model on a real link, and a client of it."""

import pytest
from adlik_common.errors import from_proto
from adlik_common.link import LinkServer, RemoteError
from adlik_proto.adlik.link.v1 import link_pb2
from adlik_proto.adlik.model.v1 import model_pb2
from adlik_proto.inference import open_inference_pb2 as pb
from adlik_serving.batcher import Limits
from adlik_serving.loaded import LoadedVariant, Opened
from adlik_serving.servicer import Servicer
from adlik_serving.warmup import WarmUp


def variant_of(model, **limits):
    release = model_pb2.Release(revision=7)
    release.pushed.name, release.pushed.version = "double", 3
    release.compiled.variant = "pushed.onnxruntime-fp32"
    release.compiled.engine, release.compiled.precision = "onnxruntime", "fp32"
    return LoadedVariant(release, Opened(model, WarmUp(32, 10_000_000), 5), Limits(**limits))


class Replica:
    """A servicer on a link, and a client of it."""

    def __init__(self, model, client, **limits):
        self.model, self.client = model, client
        self.loaded = {"double": variant_of(model, **limits)}
        self.failed = {}
        self.server = LinkServer(Servicer(self.loaded, self.failed))

    async def ask(self, body, encoding=link_pb2.ENCODING_PROTOBUF, **head):
        head = link_pb2.InferRequestHead(**{"model": "double", "encoding": encoding, **head})
        reply = await self.client.request(head.SerializeToString(), body)
        return link_pb2.InferResponseHead.FromString(reply.head), bytes(reply.body)

    async def refused(self, *args, **head):
        with pytest.raises(RemoteError) as raised:
            await self.ask(*args, **head)
        return from_proto(link_pb2.ErrorHead.FromString(raised.value.head).error)


def message(array, **fields):
    request = pb.ModelInferRequest(**fields)
    request.inputs.add(name="x", datatype="FP32", shape=array.shape)
    request.raw_input_contents.append(array.tobytes())
    return request.SerializeToString()
