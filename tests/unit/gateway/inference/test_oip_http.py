"""The protocol over HTTP, through a real server and a real link."""

import asyncio
import gzip
import json
import zlib

import httpx
import pytest
from adlik_common.errors import Overloaded
from adlik_gateway.catalog.unserved import NotServedYet
from adlik_gateway.inference.calls import HTTP, Call
from adlik_gateway.inference.http_requests import decompress
from adlik_gateway.inference.plane import assemble
from adlik_proto.adlik.link.v1.link_pb2 import ENCODING_JSON, ENCODING_TENSOR
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest

from .conftest import gateway_settings, loaded, release

INFER = "/v2/models/m/infer"


async def test_json_passes_through_untouched(http, replica):
    body = b'{"inputs": [],  "id":"7"}'
    answer = await http.post(INFER, content=body)
    assert (answer.status_code, answer.content) == (200, body)
    assert answer.headers["content-type"] == "application/json"
    assert "inference-header-content-length" not in answer.headers
    assert "traceparent" not in answer.headers


@pytest.mark.parametrize("tensor_bytes", [0, 16, 300_000])
async def test_binary_tensors_pass_through_untouched(http, replica, tensor_bytes):
    body = b'{"inputs":[]}' + bytes(range(256)) * (tensor_bytes // 256)
    headers = {"Inference-Header-Content-Length": "13"}
    answer = await http.post(INFER, content=body, headers=headers)
    assert (answer.status_code, answer.content) == (200, body)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["inference-header-content-length"] == "13"
    assert replica.heads[0].json_length == 13


async def test_a_version_in_the_path_is_asked_for(http, replica):
    assert (await http.post("/v2/models/m/versions/1/infer", content=b"{}")).status_code == 200
    assert replica.heads[0].version == 1
    answer = await http.post("/v2/models/m/versions/9/infer", content=b"{}")
    assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("name", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)]
)
@pytest.mark.parametrize("size", [10, 400_000])
async def test_compressed_bodies_are_unpacked(http, replica, name, compress, size):
    body = bytes(i * 7919 % 251 for i in range(size))
    answer = await http.post(INFER, content=compress(body), headers={"Content-Encoding": name})
    assert answer.content == body


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"),
    [
        ({}, b"x" * 1_000_001, 413, "TOO_LARGE"),
        ({"Content-Encoding": "gzip"}, gzip.compress(bytes(2_000_000)), 413, "TOO_LARGE"),
        ({"Content-Encoding": "gzip"}, b"no gzip", 400, "INVALID_REQUEST"),
        ({"Content-Encoding": "gzip"}, gzip.compress(b"cut")[:-4], 400, "INVALID_REQUEST"),
        ({"Content-Encoding": "br"}, b"{}", 400, "INVALID_REQUEST"),
        ({"Inference-Header-Content-Length": "3"}, b"{}", 400, "INVALID_REQUEST"),
        ({"Inference-Header-Content-Length": "-1"}, b"{}", 400, "INVALID_REQUEST"),
        ({"X-Request-Timeout-Ms": "soon"}, b"{}", 400, "INVALID_REQUEST"),
    ],
)
async def test_a_bad_request_is_refused_before_any_replica(
    http, replica, headers, body, status, code
):
    answer = await http.post(INFER, content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert not replica.heads


async def test_a_chunked_body_over_the_limit_is_refused(http, replica):
    async def chunks():
        for _ in range(20):
            yield bytes(100_000)

    answer = await http.post(INFER, content=chunks())
    assert (answer.status_code, answer.json()["code"]) == (413, "TOO_LARGE")
    assert (await http.post(INFER, content=b"{}")).status_code == 200


async def test_errors_are_told_in_words_and_for_programs(http, replica):
    answer = await http.post("/v2/models/mm/infer", content=b"{}")
    assert answer.status_code == 404
    assert answer.json() == {
        "error": "No model 'mm' is released. Did you mean m?",
        "code": "NOT_FOUND",
        "message": "No model 'mm' is released.",
        "cure": "Did you mean m?",
        "retryable": False,
        "details": {},
    }
    replica.refuse(Overloaded("Full.", cure="Wait."))
    answer = await http.post(INFER, content=b"{}")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")


async def test_a_timeout_header_ends_the_request(http, replica):
    replica.answer = replica.hold
    answer = await http.post(INFER, content=b"{}", headers={"X-Request-Timeout-Ms": "30"})
    assert (answer.status_code, answer.json()["code"]) == (504, "DEADLINE_EXCEEDED")


async def test_a_client_that_goes_away_cancels_its_request(http, replica):
    replica.answer = replica.hold
    with pytest.raises(httpx.ReadTimeout):
        await http.post(INFER, content=b"{}", timeout=0.2)
    while not replica.requests[0].cancelled:
        await asyncio.sleep(0.001)
    replica.answer = replica.echo
    assert (await http.post(INFER, content=b"{}")).status_code == 200


async def test_a_slow_answer_is_given_to_a_client_that_waits(http, replica):
    def later(request, head):
        asyncio.get_running_loop().call_later(0.1, replica.echo, request, head)

    replica.answer = later
    answers = await asyncio.gather(*(http.post(INFER, content=b"%d" % i) for i in range(5)))
    assert [answer.content for answer in answers] == [b"0", b"1", b"2", b"3", b"4"]


async def test_server_endpoints(http, replica, table):
    metadata = (await http.get("/v2")).json()
    assert metadata["name"] == "adlik"
    assert "binary_tensor_data" in metadata["extensions"]
    assert (await http.get("/v2/")).json() == metadata
    assert (await http.get("/v2/health/live")).status_code == 200
    assert (await http.get("/v2/health/ready")).status_code == 200
    table.apply("serving.a", None)
    assert (await http.get("/v2/health/ready")).status_code == 503


async def test_model_endpoints_use_numbers_where_clients_read_numbers(http, replica):
    metadata = (await http.get("/v2/models/m")).json()
    assert metadata == {
        "name": "m",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    }
    assert (await http.get("/v2/models/m/versions/1")).json() == metadata
    config = (await http.get("/v2/models/m/config")).json()
    assert config["max_batch_size"] == 32
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [4]}]
    assert (await http.get("/v2/models/m/ready")).status_code == 200
    assert (await http.get("/v2/models/nothing/ready")).status_code == 404


async def test_statistics_count_what_was_asked(http, replica):
    for _ in range(4):
        await http.post(INFER, content=b"{}")
    replica.refuse(Overloaded("Full."))
    await http.post(INFER, content=b"{}")
    (stats,) = (await http.get("/v2/models/m/versions/1/stats")).json()["model_stats"]
    assert (stats["inference_count"], stats["execution_count"]) == (4, 2)
    times = stats["inference_stats"]
    assert times["success"]["count"] == 4
    assert times["success"]["ns"] > 400
    assert times["fail"]["count"] == 1
    assert times["queue"] == {"count": 4, "ns": 40}
    assert times["compute_infer"] == {"count": 4, "ns": 120}
    assert stats["batch_stats"][0]["batch_size"] == 2
    everything = (await http.get("/v2/models/stats")).json()
    assert [stats["name"] for stats in everything["model_stats"]] == ["m"]


async def test_the_repository_index_says_what_can_be_asked(http, replica, table):
    from .conftest import release

    table.apply_release("waiting", release("waiting", 2))
    index = (await http.post("/v2/repository/index", content=b"")).json()
    assert [(e["name"], e["version"], e["state"]) for e in index] == [
        ("m", "1", "READY"),
        ("waiting", "2", "UNAVAILABLE"),
    ]
    assert index[1]["reason"]
    ready = await http.post("/v2/repository/index", json={"ready": True})
    assert [entry["name"] for entry in ready.json()] == ["m"]
    assert (await http.post("/v2/repository/index", content=b"[")).status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/m/infer", 405),
        ("POST", "/v2/models/m", 405),
        ("POST", "/v2", 405),
        ("GET", "/v2/repository/index", 405),
        ("GET", "/v2/nothing", 404),
        ("GET", "/v2/models/m/nothing", 404),
        ("GET", "/v2/models/m/versions/x", 400),
    ],
)
async def test_wrong_paths_and_methods_are_said_to_be_wrong(http, replica, method, path, status):
    answer = await http.request(method, path)
    assert answer.status_code == status
    assert json.loads(answer.content)["error"]


@given(st.binary(max_size=3000), st.integers(1, 400), st.sampled_from([b"gzip", b"deflate"]))
def test_decompression_does_not_depend_on_where_the_pieces_end(body, step, encoding):
    packed = gzip.compress(body) if encoding == b"gzip" else zlib.compress(body)
    pieces = [packed[start : start + step] for start in range(0, len(packed), step)]
    assert decompress(pieces, encoding, len(body)) == body


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("HEAD", "/v2/models/m/infer", "POST"),
        ("OPTIONS", "/v2/models/m/infer", "POST"),
        ("PUT", "/v2/models/m/versions/1/infer", "POST"),
        ("GET", "/v2/repository/index", "POST"),
        ("OPTIONS", "/v2/health/live", "GET, HEAD"),
        ("DELETE", "/v2/models/m/config", "GET, HEAD"),
        ("PATCH", "/v2", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_told_which_are_right(http, replica, method, path, allowed):
    answer = await http.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    if method == "HEAD":
        assert answer.content == b""
    else:
        assert answer.json()["error"]
        assert answer.json()["cure"] == f"Use {allowed}."


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "OPTIONS"])
@pytest.mark.parametrize("path", ["/v2/nothing", "/v2/models", "/v2/models/m/nothing"])
async def test_a_path_that_is_none_is_not_found_by_any_method(http, replica, method, path):
    answer = await http.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize("name", ["stats", "ready", "infer", "config", "versions", "models", "v2"])
async def test_a_model_may_be_named_like_a_word_of_paths(http, table, replica, name):
    table.apply_release(name, release(name))
    table.apply("serving.a", replica.entry(loaded(name)))
    path = f"/v2/models/{name}"
    assert (await http.get(path)).json()["name"] == name
    assert (await http.get(f"{path}/ready")).json() == {"name": name, "ready": True}
    assert (await http.get(f"{path}/versions/1")).json()["name"] == name
    (stats,) = (await http.get(f"{path}/stats")).json()["model_stats"]
    assert stats["name"] == name
    assert (await http.post(f"{path}/infer", content=b"{}")).status_code == 200


async def test_every_extension_that_is_named_is_there(http, replica):
    """Held against what each stands for, so that none is named which is not."""
    named = set((await http.get("/v2")).json()["extensions"])
    found = set()
    answer = await http.post(
        INFER, content=b"{}x", headers={"Inference-Header-Content-Length": "2"}
    )
    if answer.headers["inference-header-content-length"] == "2":
        raw = await http.post(INFER, content=b"x", headers={"Inference-Header-Content-Length": "0"})
        if raw.status_code == 200 and replica.heads[-1].encoding == ENCODING_TENSOR:
            found.add("binary_tensor_data")
    if (await http.get("/v2/models/m/config")).json()["name"] == "m":
        found.add("model_configuration")
    if (await http.get("/v2/models/m/stats")).json()["model_stats"]:
        found.add("statistics")
    for action in ("load", "unload"):
        if (await http.post(f"/v2/repository/models/m/{action}", json={})).is_success:
            found.add("model_repository")
    paths = {
        "trace": "trace/setting",
        "logging": "logging",
        "system_shared_memory": "systemsharedmemory/status",
        "cuda_shared_memory": "cudasharedmemory/status",
    }
    for extension, path in paths.items():
        if (await http.get(f"/v2/{path}")).is_success:
            found.add(extension)
    assert named - {"classification"} == found  # classes are made by the replica: see its codecs


async def test_raw_bytes_are_announced_by_a_json_of_no_length(http, replica):
    raw = {"Inference-Header-Content-Length": "0"}
    assert (await http.post(INFER, content=b"\0" * 16, headers=raw)).status_code == 200
    assert replica.heads[0].encoding == ENCODING_TENSOR
    assert (await http.post(INFER, content=b"{}")).status_code == 200
    assert replica.heads[1].encoding == ENCODING_JSON


async def test_what_was_pushed_and_is_not_released_is_not_served_yet(http, replica, table):
    table.unserved = lambda name, version: (
        NotServedYet(f"Version {version} is on its way.") if name in ("m", "new") else None
    )
    for path in ("/v2/models/new", "/v2/models/new/ready", "/v2/models/m/versions/7/config"):
        answer = await http.get(path)
        assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE")
        assert answer.json()["retryable"]
        assert answer.headers["retry-after"] == "1"
    answer = await http.post("/v2/models/new/infer", content=b"{}")
    assert answer.status_code == 503
    answer = await http.get("/v2/models/never/ready")
    assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")


async def test_who_asks_for_what_is_not_served_yet_is_not_kept_waiting(table):
    table.unserved = lambda *_: NotServedYet("It is on its way.")
    router = assemble(table, gateway_settings(replica_wait_seconds=3600)).router
    with pytest.raises(NotServedYet):
        await asyncio.wait_for(router.infer(Call("new", 0, ENCODING_JSON, (b"{}",), HTTP)), 30)


def series(model):
    lines = generate_latest().decode().splitlines()
    return [line for line in lines if f'model="{model}"' in line]


async def test_nothing_is_told_of_a_model_that_was_deleted(http, plane, replica, table):
    table.apply("serving.a", replica.entry(loaded("m"), loaded("gone")))
    plane.apply_release("gone", release("gone"))
    path = "/v2/models/gone"
    for _ in range(3):
        await http.post(f"{path}/infer", content=b"{}")
    for version in range(100, 160):
        await http.post(f"{path}/versions/{version}/infer", content=b"{}")
    (stats,) = (await http.get(f"{path}/stats")).json()["model_stats"]
    assert (stats["inference_count"], stats["inference_stats"]["fail"]["count"]) == (3, 0)
    assert len(plane.statistics._tallies) == 1
    assert series("gone")
    late = asyncio.Event()

    def answer_later(request, head):
        async def answer():
            await late.wait()
            replica.echo(request, head)

        tasks.append(asyncio.create_task(answer()))

    tasks = []
    replica.answer = answer_later
    asked = asyncio.create_task(http.post(f"{path}/infer", content=b"{}"))
    while not tasks:
        await asyncio.sleep(0.001)
    plane.apply_release("gone", None)
    late.set()
    assert (await asked).status_code == 200
    assert not series("gone")
    assert not plane.statistics._tallies
    for action in ("", "/ready", "/config", "/stats"):
        assert (await http.get(path + action)).status_code == 404

    plane.apply_release("gone", release("gone"))
    (stats,) = (await http.get(f"{path}/stats")).json()["model_stats"]
    assert stats["inference_count"] == 0


async def test_statistics_of_versions_that_are_replaced_are_not_kept(http, plane, replica, table):
    for version in (1, 2, 3):
        table.apply("serving.a", replica.entry(loaded("m", version)))
        plane.apply_release("m", release("m", version))
        path = f"/v2/models/m/versions/{version}/infer"
        assert (await http.post(path, content=b"{}")).status_code == 200
    assert set(plane.statistics._tallies) == {("m", 3)}


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_the_index_may_be_asked_for_compressed(http, replica, encoding):
    compress = {"gzip": gzip.compress, "deflate": zlib.compress}[encoding]
    headers = {"Content-Encoding": encoding}
    body = compress(b'{"ready": true}')
    answer = await http.post("/v2/repository/index", content=body, headers=headers)
    assert [entry["name"] for entry in answer.json()] == ["m"]


@pytest.mark.parametrize(
    "body", [b'{"ready": 1}', b'{"repository_name": 1}', b"[]", b" " * 70_000 + b"{}"]
)
async def test_the_index_is_asked_for_in_its_form(http, replica, body):
    answer = await http.post("/v2/repository/index", content=body)
    assert answer.status_code in (400, 413)
    assert (await http.post("/v2/repository/index", content=b'{"ready": null}')).is_success
