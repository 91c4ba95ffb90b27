"""The protocol over HTTP, through a real server and a real link."""

import asyncio
import gzip
import json
import zlib

import httpx
import pytest
from adlik_common.errors import Overloaded
from adlik_gateway.inference.http_requests import decompress
from hypothesis import given
from hypothesis import strategies as st

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
