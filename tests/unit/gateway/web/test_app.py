"""The one HTTP application: whose path it is, which methods there are, and errors in JSON."""

import asyncio
import gzip
from types import SimpleNamespace

import httpx
import pytest
from adlik_common.errors import InvalidRequest
from adlik_gateway.web.app import make_app


async def inference(scope, receive, send):
    """Stands for the data plane: says which path it was given."""
    headers = [(b"x-inference", scope["path"].encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


class Control:
    """Notes what it is asked; its view knows no models."""

    def __init__(self):
        self.released = []
        self.view = SimpleNamespace(models=list)

    async def release(self, name, version, variant):
        self.released.append((name, version, variant))
        raise InvalidRequest("No.")


@pytest.fixture
def control():
    return Control()


@pytest.fixture
async def http(control):
    app = make_app(SimpleNamespace(stopping=asyncio.Event()), control, inference)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://adlik") as client:
        yield client


@pytest.mark.parametrize("path", ["/v2", "/v2/", "/v2/models/m", "/v2/nothing"])
async def test_everything_under_v2_is_inference(http, path):
    assert (await http.get(path)).headers["x-inference"] == path


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
@pytest.mark.parametrize(
    "path", ["/v2foo", "/v2x/models/m", "/v20/health/live", "/v2.0/models/m", "/v3", "/V2", "/"]
)
async def test_other_paths_are_nobodys(http, method, path):
    answer = await http.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")
    assert answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v1/models", "GET, HEAD"),
        ("PUT", "/v1/models/m", "DELETE, GET, HEAD"),
        ("OPTIONS", "/v1/models/m", "DELETE, GET, HEAD"),
        ("GET", "/v1/models/m/versions", "POST"),
        ("HEAD", "/v1/models/m/versions", "POST"),
        ("GET", "/v1/models/m/release", "POST"),
        ("POST", "/v1/models/m/versions/1", "GET, HEAD"),
        ("POST", "/metrics", "GET, HEAD"),
        ("DELETE", "/healthz", "GET, HEAD"),
        ("POST", "/openapi.json", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_told_which_are_right(http, method, path, allowed):
    answer = await http.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    if method != "HEAD":
        assert answer.json()["error"]
        assert answer.json()["code"] == "INVALID_REQUEST"


async def test_a_compressed_body_is_read(http, control):
    body = gzip.compress(b'{"version": 2,') + gzip.compress(b'"variant": "v"}')
    headers = {"content-encoding": "gzip"}
    await http.post("/v1/models/m/release", content=body, headers=headers)
    assert control.released == [("m", 2, "v")]


@pytest.mark.parametrize(
    ("encoding", "body"),
    [("gzip", b"{}"), ("gzip", gzip.compress(b"{}")[:-1]), ("br", b"{}")],
)
async def test_a_body_that_can_not_be_inflated_is_refused(http, control, encoding, body):
    headers = {"content-encoding": encoding}
    answer = await http.post("/v1/models/m/release", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "INVALID_REQUEST")
    assert not control.released
