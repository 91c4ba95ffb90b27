"""The gateway's control plane over real HTTP and gRPC, on a real bus, with no other service."""

from __future__ import annotations

import asyncio
import contextlib
import json
from types import SimpleNamespace

import grpc
import grpc.aio
import httpx
import numpy as np
import pytest
from adlik_common import bus as bus_module
from adlik_common import telemetry
from adlik_common.artifacts import open_store
from adlik_common.errors import InvalidModel
from adlik_common.service import Context
from adlik_common.state import open_state
from adlik_gateway.__main__ import start
from adlik_gateway.settings import GatewaySettings
from adlik_proto.adlik.control.v1 import control_pb2, control_pb2_grpc
from adlik_proto.adlik.events.v1 import events_pb2
from adlik_proto.adlik.model.v1 import model_pb2
from onnx import TensorProto, helper, numpy_helper
from opentelemetry.sdk.trace import TracerProvider

from tests.conftest import free_port

File = control_pb2.FileHeader
PATIENCE_SECONDS = 20


def model_bytes(seed=0, external=""):
    """Returns a small matrix product: x [N, 4] to y [N, 3]."""
    values = np.random.default_rng(seed).standard_normal((4, 3)).astype(np.float32)
    weights = numpy_helper.from_array(values, "w")
    if external:
        weights.ClearField("raw_data")
        weights.data_location = TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=external)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [weights],
    )
    return helper.make_model(graph).SerializeToString()


class Gateway:
    """A gateway in this process and what a test asks it with."""

    def __init__(self, context, http, stub):
        self.context, self.http, self.stub = context, http, stub

    async def push(self, name="m", data=None, **parts):
        files = {"model": ("m.onnx", data or model_bytes())}
        plan = parts.pop("plan", None)
        if plan is not None:
            files = {"plan": (None, json.dumps(plan)), **files}
        return await self.http.post(f"/v1/models/{name}/versions", files={**files, **parts})

    async def until(self, path, found):
        """Returns the first answer that a function finds something in."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                answer = await self.http.get(path)
                if answer.status_code == 200 and found(answer.json()):
                    return answer.json()
                await asyncio.sleep(0.02)

    async def verified(self, pushed, variant, speedup, *, accepted=True, artifact=None):
        """Says what the compiler says of a variant."""
        artifact = artifact or pushed.source.artifact
        compiled = model_pb2.CompiledModel(variant=variant, artifact=artifact)
        check = model_pb2.Verification(speedup=speedup, accepted=accepted, reasons=["Measured."])
        await self.context.bus.publish(
            events_pb2.ModelVerified(pushed=pushed, compiled=compiled, verification=check)
        )

    async def released(self, variant, name="m"):
        """Waits until a variant is served."""
        return await self.until(
            f"/v1/models/{name}",
            lambda m: m.get("release") and m["release"]["compiled"]["variant"] == variant,
        )

    async def record(self, name="m"):
        """Waits until a push is seen, and returns it."""
        await self.until(f"/v1/models/{name}", lambda m: m["versions"])
        response = await self.stub.GetModel(control_pb2.GetModelRequest(name=name))
        return response.model.versions[0].pushed


@contextlib.asynccontextmanager
async def running(settings, monkeypatch):
    own = GatewaySettings(
        **settings.model_dump(exclude={"drain_seconds"}),
        http_port=free_port(),
        grpc_port=free_port(),
        drain_seconds=1,
        max_upload_bytes=200_000,
    )
    bus = await bus_module.connect(own, "test")
    # The process's own tracer can be set once only, and each test has a bus of its own.
    provider = TracerProvider(shutdown_on_exit=False)
    spans = telemetry.JetStreamProcessor(bus)
    provider.add_span_processor(spans)
    monkeypatch.setattr(telemetry, "tracer", lambda: provider.get_tracer("test"))
    context = Context(
        "gateway", "g", own, bus, await open_state(bus), await open_store(own, bus),
        control_pb2.Replica(id="g", service="gateway"),
    )  # fmt: skip
    context.background(spans.run(), "traces")
    await context.announce()
    # The clients outlive the gateway, so that a test can see how it leaves them.
    async with (
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{own.http_port}", timeout=PATIENCE_SECONDS
        ) as http,
        grpc.aio.insecure_channel(f"127.0.0.1:{own.grpc_port}") as channel,
    ):
        async with start(context):
            yield Gateway(context, http, control_pb2_grpc.ControlServiceStub(channel))
            bus.draining.set()
        await context.finish()
    await bus.close()


@pytest.fixture
async def gateway(settings, monkeypatch):
    async with running(settings, monkeypatch) as made:
        yield made


def said(answer, status, code):
    """Checks an error's form and returns it."""
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code), body
    assert body["error"] == f"{body['message']} {body['cure']}".rstrip()
    return SimpleNamespace(**body)


async def test_a_push_is_stored_announced_and_shown(gateway):
    heard = []

    async def note(event, delivery):
        heard.append(event)

    listening = asyncio.create_task(
        gateway.context.bus.consume("optimizer", {events_pb2.ModelPushed: note})
    )
    answer = await gateway.push(plan={"limits": {"min_speedup": 1.5}})
    assert answer.status_code == 201
    body = answer.json()
    assert (body["pushed"]["version"], body["created"]) == ("1", True)
    shown = await gateway.until("/v1/models/m", lambda m: m["versions"])
    pushed = shown["versions"][0]["pushed"]
    assert pushed == body["pushed"]
    assert pushed["plan"]["limits"]["min_speedup"] == 1.5
    (x,) = pushed["signature"]["inputs"]
    assert (x["name"], x["datatype"], x["shape"]) == ("x", "FP32", ["-1", "4"])
    record = await gateway.record()
    path = await gateway.context.artifacts.fetch(record.source.artifact)
    assert path.read_bytes() == model_bytes()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not heard:
            await asyncio.sleep(0.02)
    assert heard[0].pushed == record
    listening.cancel()


async def test_the_same_push_is_the_same_version_and_another_is_the_next(gateway):
    first = (await gateway.push()).json()
    again = await gateway.push()
    assert again.status_code == 200
    assert again.json() == {**first, "created": False}
    for number, parts in ((2, {"plan": {"recipes": ["clean"]}}), (3, {"data": model_bytes(1)})):
        assert (await gateway.push(**parts)).json()["pushed"]["version"] == str(number)
    shown = await gateway.until("/v1/models", lambda b: len(b["models"][0]["versions"]) == 3)
    assert [v["pushed"]["version"] for v in shown["models"][0]["versions"]] == ["3", "2", "1"]


async def test_pushes_at_the_same_time_get_versions_of_their_own(gateway):
    answers = await asyncio.gather(
        *(gateway.push(data=model_bytes(seed)) for seed in (1, 2, 3, 1, 2, 3))
    )
    numbers = [a.json()["pushed"]["version"] for a in answers]
    assert sorted(numbers[:3]) == ["1", "2", "3"]
    assert numbers[:3] == numbers[3:]
    assert sum(a.json()["created"] for a in answers) == 3


async def test_bad_pushes_are_refused_in_words_and_leave_nothing(gateway):
    half = model_bytes()[:60]
    for parts, status, code in (
        ({"data": half}, 400, "INVALID_MODEL"),
        ({"data": b"PK\x03\x04"}, 400, "UNSUPPORTED_FORMAT"),
        ({"data": bytes(300_000)}, 413, "TOO_LARGE"),
        ({"name": "-m"}, 400, "INVALID_NAME"),
        ({"name": "a%2Fb"}, 400, "INVALID_NAME"),
        ({"plan": {"limits": {"min_r2": 7}}}, 400, "INVALID_PLAN"),
        ({"samples": ("s.npz", b"none")}, 400, "INVALID_SAMPLES"),
        ({"surprise": ("s", b"x")}, 400, "INVALID_REQUEST"),
        ({"data": model_bytes(external="../w")}, 400, "UNSAFE_PATH"),
        ({"data": model_bytes(external="w"), "external": ("/w", b"x")}, 400, "UNSAFE_PATH"),
    ):
        assert said(await gateway.push(**parts), status, code).cure
    missing = said(
        await gateway.push(data=model_bytes(external="d/w")), 400, "MISSING_EXTERNAL_DATA"
    )
    assert missing.details == {"files": "d/w"}
    said(await gateway.http.post("/v1/models/m/versions", json={}), 400, "INVALID_REQUEST")
    assert (await gateway.http.get("/v1/models")).json() == {"models": []}
    weights = ("./d/w", np.zeros((4, 3), np.float32).tobytes())
    fine = await gateway.push(data=model_bytes(external="d/w"), external=weights)
    assert fine.json()["pushed"]["source"]["external_files"][0]["name"] == "d/w"


async def test_what_is_not_there_is_told(gateway):
    await gateway.push("mobilenet")
    await gateway.until("/v1/models", lambda b: b["models"])
    cure = said(await gateway.http.get("/v1/models/mobilnet"), 404, "NOT_FOUND").cure
    assert cure == "Did you mean mobilenet?"
    for method, path in (
        ("GET", "/v1/models/mobilenet/versions/7"),
        ("GET", "/v1/models/mobilenet/versions/0/variants/x/artifact"),
        ("GET", "/v1/traces/" + "0" * 32),
        ("GET", "/v1/traces?model=other"),
        ("GET", "/v1/traces?last=inference"),
        ("GET", "/v1/nothing"),
        ("GET", "/"),
        ("DELETE", "/v1/models/other"),
    ):
        said(await gateway.http.request(method, path), 404, "NOT_FOUND")
    for method, path in (("PUT", "/v1/models/mobilenet"), ("POST", "/v1/watch")):
        answer = await gateway.http.request(method, path)
        said(answer, 405, "INVALID_REQUEST")
        assert "GET" in answer.headers["allow"]
    said(await gateway.http.get("/v1/traces"), 400, "INVALID_REQUEST")
    said(await gateway.http.get("/v1/watch?name=-"), 400, "INVALID_NAME")


async def test_the_fastest_is_released_and_a_person_may_choose_and_go_back(gateway):
    await gateway.push()
    pushed = await gateway.record()
    await gateway.verified(pushed, "a", 1.0)
    await gateway.released("a")
    await gateway.verified(pushed, "b", 2.0)
    await gateway.released("b")
    await gateway.verified(pushed, "bad", 9.0, accepted=False)
    shown = await gateway.until("/v1/models/m", lambda m: len(m["versions"][0]["variants"]) == 3)
    assert shown["release"]["revision"] == "2"

    async def ask(action, **body):
        return await gateway.http.post(f"/v1/models/m/{action}", json=body)

    assert (await ask("rollback")).json()["compiled"]["variant"] == "a"
    await gateway.released("a")
    said(await ask("rollback"), 400, "INVALID_REQUEST")
    said(await ask("release", variant="bad"), 400, "INVALID_REQUEST")
    said(await ask("release", variant="none"), 404, "NOT_FOUND")
    said(await ask("release", surprise=1), 400, "INVALID_REQUEST")
    chosen = (await ask("release", variant="b", version=1)).json()
    assert (chosen["pinned"], chosen["reason"]) == (True, "chosen by hand")
    await gateway.released("b")
    await gateway.verified(pushed, "late", 9.0)
    shown = await gateway.until("/v1/models/m", lambda m: len(m["versions"][0]["variants"]) == 4)
    assert shown["release"]["compiled"]["variant"] == "b"
    artifact = await gateway.http.get("/v1/models/m/versions/1/variants/b/artifact")
    assert artifact.content == model_bytes()


async def test_a_variant_that_was_tuned_takes_its_own_place_where_it_is_clearly_faster(gateway):
    await gateway.push()
    pushed = await gateway.record()
    await gateway.verified(pushed, "a", 2.0)
    await gateway.released("a")
    for speedup in (1.9, 2.01, 2.5):
        tuned = model_pb2.ArtifactRef(digest=f"sha256:{speedup}")
        await gateway.verified(pushed, "a", speedup, artifact=tuned)

    def is_tuned(model):
        return model["release"]["compiled"]["artifact"]["digest"] == "sha256:2.5"

    shown = await gateway.until("/v1/models/m", is_tuned)
    assert shown["release"]["revision"] == "2", "slower ones, and those about as fast, are left"
    (variant,) = shown["versions"][0]["variants"]
    assert variant["verification"]["speedup"] == 2.5
    assert variant["note"] == f"released: {shown['release']['reason']}"
    back = (await gateway.http.post("/v1/models/m/rollback", json={})).json()
    assert back["compiled"]["artifact"]["digest"] == pushed.source.artifact.digest


async def test_a_deleted_model_is_gone_and_its_numbers_are_not_used_again(gateway):
    await gateway.push()
    await gateway.verified(await gateway.record(), "a", 1.0)
    await gateway.released("a")
    assert (await gateway.http.delete("/v1/models/m")).status_code == 200
    await gateway.until("/v1/models", lambda b: not b["models"])
    assert (await gateway.context.state.releases.get("m")) is None
    said(await gateway.http.get("/v1/models/m"), 404, "NOT_FOUND")
    again = (await gateway.push()).json()
    assert (again["pushed"]["version"], again["created"]) == ("2", True)


async def events_of(lines, number):
    """Reads (event, model) from server-sent events."""
    found, event = [], ""
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for line in lines:
            if line.startswith("event: "):
                event = line.removeprefix("event: ")
            elif line.startswith("data: "):
                body = json.loads(line.removeprefix("data: "))
                found.append((event, body.get("model", body)))
                if len(found) == number:
                    return found
    return found


async def ending(call):
    """Reads a gRPC stream to its end and returns its status."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        while await call.read() is not grpc.aio.EOF:
            pass
    return await call.code()


async def test_a_watch_shows_the_state_then_each_change_then_why_it_ends(settings, monkeypatch):
    async with running(settings, monkeypatch) as gateway:
        for name in ("m", "other"):
            await gateway.push(name)
            await gateway.record(name)
        call = gateway.stub.WatchModels(control_pb2.WatchModelsRequest(name="m"))
        request = gateway.http.build_request("GET", "/v1/watch?name=m")
        stream = await gateway.http.send(request, stream=True)
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = stream.aiter_lines()
        ((event, model),) = await events_of(lines, 1)
        snapshot = await call.read()
        assert (event, model["name"]) == (snapshot.event, snapshot.model.name) == ("Snapshot", "m")
        await gateway.push("other", model_bytes(1))
        await gateway.push("m", model_bytes(1))
        ((event, model),) = await events_of(lines, 1)
        pushed = await call.read()
        assert event == pushed.event == "ModelPushed"
        assert len(model["versions"]) == len(pushed.model.versions) == 2
        await gateway.http.delete("/v1/models/m")
        deleted = await events_of(lines, 2)
        assert [event for event, _ in deleted] == ["ModelDeleted"] * 2
        assert deleted[-1][1]["versions"] == []
        last_event = asyncio.create_task(events_of(lines, 1))
        status = asyncio.create_task(ending(call))
    ((event, error),) = await last_event
    assert (event, error["code"]) == ("Error", "UNAVAILABLE")
    assert await status is grpc.StatusCode.UNAVAILABLE


def parts(data, *, name="m", size=50):
    yield control_pb2.PushModelRequest(header=control_pb2.PushHeader(name=name))
    yield control_pb2.PushModelRequest(file=File(role=File.ROLE_MODEL, name="m.onnx"))
    for start_ in range(0, len(data), size):
        yield control_pb2.PushModelRequest(chunk=data[start_ : start_ + size])


async def test_grpc_and_http_are_two_doors_to_one_catalog(gateway):
    over_grpc = await gateway.stub.PushModel(parts(model_bytes()))
    over_http = (await gateway.push()).json()
    assert (over_grpc.created, over_http["created"]) == (True, False)
    assert over_grpc.trace_id == over_http["trace_id"]
    await gateway.record()
    listed = await gateway.stub.ListModels(control_pb2.ListModelsRequest())
    assert [model.name for model in listed.models] == ["m"]
    await gateway.verified(over_grpc.pushed, "a", 1.0)
    await gateway.released("a")
    chosen = await gateway.stub.ReleaseModel(control_pb2.ReleaseModelRequest(name="m", variant="a"))
    assert chosen.release.pinned
    back = await gateway.stub.RollbackModel(control_pb2.RollbackModelRequest(name="m"))
    assert (back.release.revision, back.release.compiled.variant) == (3, "a")
    await gateway.stub.DeleteModel(control_pb2.DeleteModelRequest(name="m"))
    await gateway.until("/v1/models", lambda b: not b["models"])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.stub.GetModel(control_pb2.GetModelRequest(name="m"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("requests", "code"),
    [
        ([], "INVALID_REQUEST"),
        ([control_pb2.PushModelRequest(chunk=b"x")], "INVALID_REQUEST"),
        (list(parts(b"x", name="/")), "INVALID_NAME"),
        (list(parts(model_bytes()))[:1], "INVALID_REQUEST"),
        ([*parts(model_bytes()), *list(parts(b""))[:1]], "INVALID_REQUEST"),
        ([next(parts(b"")), control_pb2.PushModelRequest(chunk=b"x")], "INVALID_REQUEST"),
        ([next(parts(b"")), control_pb2.PushModelRequest(file=File())], "INVALID_REQUEST"),
        (list(parts(model_bytes()[:40])), "INVALID_MODEL"),
        (list(parts(b"")), "INVALID_MODEL"),
    ],
)
async def test_streams_out_of_order_are_refused(gateway, requests, code):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await gateway.stub.PushModel(iter(requests))
    assert dict(caught.value.trailing_metadata())["adlik-code"] == code
    assert (await gateway.http.get("/v1/models")).json() == {"models": []}


async def test_a_push_is_one_trace_with_its_caller(gateway):
    caller = f"00-{7:032x}-{9:016x}-01"
    answer = await gateway.http.post(
        "/v1/models/m/versions", files={"model": model_bytes()}, headers={"traceparent": caller}
    )
    assert answer.json()["trace_id"] == f"{7:032x}"
    trace = await gateway.until(
        "/v1/traces?model=m", lambda t: {"gateway.push"} <= {s["name"] for s in t["spans"]}
    )
    spans = {span["name"]: span for span in trace["spans"]}
    assert spans["gateway.push"]["parent_span_id"] == f"{9:016x}"
    assert spans["gateway.store"]["parent_span_id"] == spans["gateway.push"]["span_id"]
    assert spans["gateway.push"]["attributes"]["adlik.model"] == "m"
    by_id = (await gateway.http.get(f"/v1/traces/{7:032x}")).json()
    assert by_id["trace_id"] == trace["trace_id"]
    assert len(by_id["spans"]) >= len(trace["spans"])


async def test_jobs_show_queues_and_what_was_given_up(gateway):
    async def refuse(event, delivery):
        raise InvalidModel("It is broken.", cure="Mend it.")

    worker = asyncio.create_task(
        gateway.context.bus.consume("optimizer", {events_pb2.ModelPushed: refuse})
    )
    await gateway.push("a.b")
    jobs = await gateway.until("/v1/jobs", lambda jobs: jobs["dead_letters"])
    assert {"catalog", "release", "optimizer"} <= {c["name"] for c in jobs["consumers"]}
    (letter,) = jobs["dead_letters"]
    assert (letter["consumer"], letter["event"], letter["model"], letter["version"]) == (
        "optimizer", "ModelPushed", "a.b", "1",
    )  # fmt: skip
    assert letter["error"]["code"] == "INVALID_MODEL"
    shown = await gateway.until("/v1/models/a.b", lambda m: m["versions"][0]["failures"])
    (failure,) = shown["versions"][0]["failures"]
    assert (failure["stage"], failure["error"]["code"]) == ("optimizer", "INVALID_MODEL")
    worker.cancel()


async def test_the_gateway_tells_of_itself(gateway):
    replicas = await gateway.until("/v1/replicas", lambda r: r["replicas"])
    assert [(r["service"], r["id"]) for r in replicas["replicas"]] == [("gateway", "g")]
    assert (await gateway.http.get("/healthz")).text == "alive\n"
    assert (await gateway.http.get("/readyz")).status_code == 200
    assert "adlik_events_published_total" in (await gateway.http.get("/metrics")).text
    assert (await gateway.http.get("/openapi.json")).json()["openapi"] == "3.1.0"
    assert "/v1/models/{name}" in (await gateway.http.get("/docs")).text


async def test_what_was_pushed_and_released_before_a_restart_is_there_after_it(
    settings, monkeypatch
):
    async with running(settings, monkeypatch) as gateway:
        await gateway.push()
        pushed = await gateway.record()
        await gateway.verified(pushed, "a", 1.0)
        await gateway.released("a")
    async with running(settings, monkeypatch) as gateway:
        shown = (await gateway.http.get("/v1/models/m")).json()
        assert shown["release"]["compiled"]["variant"] == "a"
        assert (await gateway.push()).json()["created"] is False
