"""A real replica, NATS, engines and link: releases put by hand become answers."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

import numpy as np
import onnx
import openvino
import pytest
from adlik_common import bundle, bus, names
from adlik_common.artifacts import open_store
from adlik_common.errors import from_proto
from adlik_common.link import LinkClient, LinkLost, RemoteError
from adlik_common.state import open_state
from adlik_proto.adlik.control.v1 import control_pb2
from adlik_proto.adlik.events.v1 import events_pb2
from adlik_proto.adlik.link.v1 import link_pb2
from adlik_proto.adlik.model.v1 import model_pb2
from adlik_proto.inference import open_inference_pb2 as pb
from onnx import TensorProto, helper

X = np.arange(8, dtype=np.float32).reshape(2, 4)


def scaling_model(factor):
    """An ONNX model that multiplies its rows by a factor."""
    shape = ["n", 4]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        "scaling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [helper.make_tensor("factor", TensorProto.FLOAT, [], [factor])],
    )
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10)


class Mesh:
    """What the gateway and the compiler would do, by hand."""

    def __init__(self, settings, folder, connection, state, store):
        self.settings, self.folder = settings, folder
        self.bus, self.state, self.store = connection, state, store
        self.revision = 0
        self.deployed = []
        self.clients = []
        self.processes = []

    async def release(self, name, path, *, version=1, engine="onnxruntime", media_type=None):
        """Puts a file into the store and releases it."""
        self.revision += 1
        ref = await self.store.put_file(path, media_type or "application/x-onnx")
        release = model_pb2.Release(revision=self.revision)
        release.pushed.name, release.pushed.version = name, version
        release.compiled.variant = f"pushed.{engine}-fp32"
        release.compiled.engine, release.compiled.precision = engine, "fp32"
        release.compiled.artifact.CopyFrom(ref)
        release.serving.independent_rows = True  # as the compiler has proved
        await self.state.releases.put(names.token(name), release)

    def onnx_file(self, factor):
        path = self.folder / f"{factor}.onnx"
        onnx.save(scaling_model(factor), path)
        return path

    async def start(self):
        """Starts a replica as a process of its own."""
        settings = self.settings
        added = {
            "ADLIK_NATS_URL": settings.nats_url,
            "ADLIK_ARTIFACTS_URL": settings.artifacts_url,
            "ADLIK_CACHE_DIR": str(settings.cache_dir),
            "ADLIK_RUNTIME_DIR": str(self.folder / "run"),
            "ADLIK_HEARTBEAT_SECONDS": str(settings.heartbeat_seconds),
            "ADLIK_ENGINE_THREADS": "1",
        }
        process = await asyncio.create_subprocess_exec(
            "env", *(f"{k}={v}" for k, v in added.items()), sys.executable, "-m", "adlik_serving"
        )
        self.processes.append(process)
        return process

    async def replica(self, condition) -> control_pb2.Replica:
        """Returns the first entry of the replica table that meets a condition."""
        async with asyncio.timeout(30):
            while True:
                for replica in (await self.state.replicas.entries()).values():
                    if replica.service == "serving" and condition(replica):
                        return replica
                await asyncio.sleep(0.02)

    async def serving(self, name, version=1, engine="onnxruntime"):
        """Returns a client of a replica that serves this, and its entry."""

        def served(replica):
            return any(
                (loaded.name, loaded.version, loaded.engine) == (name, version, engine)
                for loaded in replica.loaded
            )

        replica = await self.replica(served)
        client = LinkClient(replica.link)
        self.clients.append(client)
        return client, replica

    async def collect(self, event, _delivery):
        self.deployed.append((event.pushed.name, event.pushed.version, event.variant))


async def infer(client, name, array=X, version=0):
    """Returns the version that answered and its output."""
    message = pb.ModelInferRequest(model_name=name)
    message.inputs.add(name="x", datatype="FP32", shape=array.shape)
    message.raw_input_contents.append(array.tobytes())
    head = link_pb2.InferRequestHead(
        model=name, version=version, encoding=link_pb2.ENCODING_PROTOBUF
    )
    reply = await client.request(head.SerializeToString(), message.SerializeToString())
    response = pb.ModelInferResponse.FromString(bytes(reply.body))
    output = np.frombuffer(response.raw_output_contents[0], np.float32).reshape(array.shape)
    return int(response.model_version), output


async def refusal(client, name):
    with pytest.raises(RemoteError) as raised:
        await infer(client, name)
    return from_proto(link_pb2.ErrorHead.FromString(raised.value.head).error)


@pytest.fixture
async def mesh(settings, tmp_path):
    connection = await bus.connect(settings, "test")
    mesh = Mesh(
        settings,
        tmp_path,
        connection,
        await open_state(connection),
        await open_store(settings, connection),
    )
    yield mesh
    for client in mesh.clients:
        await client.close()
    for process in mesh.processes:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    await connection.close()


async def test_a_release_is_served_and_the_next_takes_over_without_a_lost_request(mesh):
    handlers = {events_pb2.ModelDeployed: mesh.collect}
    following = asyncio.create_task(mesh.bus.consume("catalog", handlers))
    await mesh.start()
    await mesh.release("scale", mesh.onnx_file(2))
    client, replica = await mesh.serving("scale")
    (loaded,) = replica.loaded
    assert loaded.max_batch_size == 32
    assert [tuple(spec.shape) for spec in loaded.signature.inputs] == [(-1, 4)]
    assert replica.engines["onnxruntime"] == ""

    seen, done = [], asyncio.Event()

    async def user():
        own = []
        while not done.is_set():
            version, output = await infer(client, "scale")
            assert np.array_equal(output, X * (1 + version))
            own.append(version)
            seen.append(version)
        assert own == sorted(own)  # of two users' requests, the older one may be answered later

    users = [asyncio.create_task(user()) for _ in range(4)]
    await mesh.release("scale", mesh.onnx_file(3), version=2)
    await mesh.serving("scale", version=2)
    while seen.count(2) < 20:
        await asyncio.sleep(0.01)
    done.set()
    await asyncio.gather(*users)
    assert set(seen) == {1, 2}

    await mesh.state.releases.delete(names.token("scale"))
    await mesh.replica(lambda replica: not replica.loaded)
    assert (await refusal(client, "scale")).code == "NOT_FOUND"
    async with asyncio.timeout(10):
        while len(mesh.deployed) < 2:
            await asyncio.sleep(0.02)
    variant = "pushed.onnxruntime-fp32"
    assert mesh.deployed == [("scale", 1, variant), ("scale", 2, variant)]
    mesh.bus.draining.set()
    await following


async def test_other_bytes_of_the_same_variant_take_over_without_a_lost_request(mesh):
    await mesh.start()
    await mesh.release("scale", mesh.onnx_file(2))
    client, _ = await mesh.serving("scale")
    seen, done = [], asyncio.Event()

    async def user():
        own = []
        while not done.is_set():
            own.append((await infer(client, "scale"))[1][0, 1])
            seen.append(own[-1])
        assert own == sorted(own)

    users = [asyncio.create_task(user()) for _ in range(4)]
    await mesh.release("scale", mesh.onnx_file(3))
    await mesh.replica(lambda replica: [loaded.revision for loaded in replica.loaded] == [2])
    while seen.count(3) < 20:
        await asyncio.sleep(0.01)
    done.set()
    await asyncio.gather(*users)
    assert set(seen) <= {2, 3}


async def test_a_model_that_can_not_be_loaded_stops_no_other_and_leaves_the_old_in_service(mesh):
    broken = mesh.folder / "broken.onnx"
    broken.write_bytes(b"no model at all")
    await mesh.release("bad", broken)
    await mesh.release("good", mesh.onnx_file(2))
    await mesh.start()
    client, _ = await mesh.serving("good")
    replica = await mesh.replica(lambda replica: "bad" in replica.failed)
    assert replica.failed["bad"].code == "INVALID_MODEL"
    assert (await refusal(client, "bad")).code == "UNAVAILABLE"

    await mesh.release("good", broken, version=2)
    await mesh.release("other", mesh.onnx_file(5), engine="abacus")
    replica = await mesh.replica(lambda replica: {"good", "other"} <= set(replica.failed))
    assert replica.failed["other"].code == "NOT_FOUND"
    assert (await infer(client, "good"))[0] == 1

    await mesh.release("good", mesh.onnx_file(4), version=3)
    await mesh.serving("good", version=3)
    assert np.array_equal((await infer(client, "good"))[1], X * 4)


async def test_an_openvino_bundle_is_unpacked_and_served(mesh):
    folder = mesh.folder / "ir"
    openvino.save_model(
        openvino.convert_model(mesh.onnx_file(2)), folder / "model.xml", compress_to_fp16=False
    )
    archive = mesh.folder / "ir.zip"
    bundle.pack(folder, ["model.xml", "model.bin"], archive)
    await mesh.release("scale", archive, engine="openvino", media_type=bundle.MEDIA_TYPE)
    await mesh.start()
    client, _ = await mesh.serving("scale", engine="openvino")
    arrays = [np.full((rows, 4), rows, np.float32) for rows in (1, 2, 3, 1, 5, 40)]
    answers = await asyncio.gather(*(infer(client, "scale", array) for array in arrays))
    for array, (_, output) in zip(arrays, answers, strict=True):
        assert np.array_equal(output, array * 2)


async def test_told_to_stop_it_says_so_and_answers_what_it_has_accepted(mesh):
    await mesh.release("scale", mesh.onnx_file(2))
    process = await mesh.start()
    client, _ = await mesh.serving("scale")
    answered, refused = 0, 0

    async def user():
        nonlocal answered, refused
        while True:
            try:
                await infer(client, "scale")
                answered += 1
            except (RemoteError, LinkLost):
                refused += 1
                return

    users = [asyncio.create_task(user()) for _ in range(4)]
    while answered < 50:
        await asyncio.sleep(0.001)
    draining = asyncio.create_task(mesh.replica(lambda replica: replica.draining))
    process.send_signal(signal.SIGTERM)
    await draining
    before = answered
    while answered < before + 10:  # still answering after it has said that it drains
        await asyncio.sleep(0.001)
    for task in users:
        task.cancel()
    await asyncio.gather(*users, return_exceptions=True)
    assert refused == 0
    assert await asyncio.wait_for(process.wait(), 30) == 0
    assert not (await mesh.state.replicas.entries())
    assert not list((mesh.folder / "run").glob("*.sock"))


async def test_it_serves_while_nats_is_away_and_catches_up_after(mesh, nats_server):
    await mesh.release("scale", mesh.onnx_file(2))
    await mesh.start()
    client, _ = await mesh.serving("scale")
    nats_server.kill()
    for _ in range(20):
        assert (await infer(client, "scale"))[0] == 1
    nats_server.start()
    await mesh.release("scale", mesh.onnx_file(3), version=2)
    await mesh.serving("scale", version=2)
    assert np.array_equal((await infer(client, "scale"))[1], X * 3)


async def test_a_newer_release_supersedes_those_that_wait(mesh):
    await mesh.start()
    for version in range(1, 8):
        await mesh.release("scale", mesh.onnx_file(1 + version), version=version)
    client, _ = await mesh.serving("scale", version=7)
    assert np.array_equal((await infer(client, "scale", version=7))[1], X * 8)
