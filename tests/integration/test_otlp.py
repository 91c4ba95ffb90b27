"""With OpenTelemetry's own variable set, spans reach a collector as well."""

from __future__ import annotations

import asyncio
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

PROGRAM = """
import asyncio
from adlik_common import bus, telemetry
from adlik_common.settings import ServiceSettings

async def main():
    settings = ServiceSettings()
    connected = await bus.connect(settings, "test")
    telemetry.configure("gateway", "one", settings, connected)
    with telemetry.tracer().start_as_current_span("gateway.push"):
        pass
    telemetry.shut_down()
    await connected.close()

asyncio.run(main())
"""


class Collector(HTTPServer):
    """Takes OTLP over HTTP and keeps what comes."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests = []


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.requests.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args):
        pass


async def test_spans_are_exported_to_the_collector(nats_server):
    collector = Collector()
    thread = Thread(target=collector.serve_forever)
    thread.start()
    try:
        environment = {
            **os.environ,  # noqa: TID251 - a child needs the rest of it
            "ADLIK_NATS_URL": nats_server.url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, env=environment
        )
        assert await asyncio.wait_for(process.wait(), 60) == 0
    finally:
        collector.shutdown()
        thread.join()
        collector.server_close()
    path, request = collector.requests[0]
    resource = request.resource_spans[0]
    attributes = {a.key: a.value.string_value for a in resource.resource.attributes}
    assert path == "/v1/traces"
    assert attributes["service.name"] == "adlik-gateway"
    assert resource.scope_spans[0].spans[0].name == "gateway.push"
