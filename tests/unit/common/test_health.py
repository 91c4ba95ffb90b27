"""The probes, served on a real port."""

import asyncio

import httpx
import pytest
from adlik_common.health import health_routes, serve_http
from prometheus_client import Counter
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route


async def answers(reason):
    app = Starlette(routes=health_routes(lambda: reason))
    async with serve_http(app, "127.0.0.1", 0) as port, httpx.AsyncClient() as client:
        url = f"http://127.0.0.1:{port}"
        return [await client.get(url + path) for path in ("/healthz", "/readyz", "/metrics")]


async def test_a_ready_service_says_so():
    alive, ready, _ = await answers("")
    assert (alive.status_code, ready.status_code, ready.text) == (200, 200, "ready\n")


async def test_one_that_is_not_ready_is_alive_and_says_why():
    alive, ready, _ = await answers("stopping")
    assert (alive.status_code, ready.status_code, ready.text) == (200, 503, "stopping\n")


async def test_metrics_are_in_the_form_of_prometheus():
    Counter("test_probes", "Counts what this test counted.").inc(3)
    *_, metrics = await answers("")
    assert "test_probes_total 3.0" in metrics.text
    assert metrics.headers["content-type"].startswith("text/plain")


async def test_requests_in_hand_are_answered_before_the_server_ends():
    arrived = asyncio.Event()

    async def slow(_):
        arrived.set()
        await asyncio.sleep(0.2)
        return PlainTextResponse("done")

    async with httpx.AsyncClient() as client:
        async with serve_http(Starlette(routes=[Route("/", slow)]), "127.0.0.1", 0) as port:
            answer = asyncio.create_task(client.get(f"http://127.0.0.1:{port}/"))
            await arrived.wait()
        assert (await answer).text == "done"
        with pytest.raises(httpx.ConnectError):
            await client.get(f"http://127.0.0.1:{port}/")


async def test_a_port_in_use_is_told_at_once():
    app = Starlette(routes=health_routes(lambda: ""))
    async with serve_http(app, "127.0.0.1", 0) as port:
        with pytest.raises(OSError, match="in use"):
            async with serve_http(app, "127.0.0.1", port):
                pass
