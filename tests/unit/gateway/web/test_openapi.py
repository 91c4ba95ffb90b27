"""The description of the HTTP API: complete, valid, and readable as a page."""

import asyncio
import re

import httpx
import pytest
from adlik_gateway.web.openapi import page
from adlik_gateway.web.routes import Api
from adlik_proto.adlik.control.v1 import control_pb2
from adlik_proto.adlik.model.v1 import model_pb2
from google.protobuf import json_format
from starlette.applications import Starlette

PROBES = {"/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"}


@pytest.fixture(scope="module")
def routes():
    return Api(None, None).routes(lambda: "")


@pytest.fixture(scope="module")
def get(routes):
    """Asks the application in this process."""

    def ask(path):
        async def answer():
            transport = httpx.ASGITransport(Starlette(routes=routes))
            async with httpx.AsyncClient(transport=transport, base_url="http://adlik") as client:
                return await client.get(path)

        return asyncio.run(answer())

    return ask


@pytest.fixture(scope="module")
def described(get):
    return get("/openapi.json").json()


def operations(described):
    return {
        (method.upper(), path): operation
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    }


def test_every_route_is_described(routes, described):
    served = {
        (method, re.sub(r":\w+}", "}", route.path))
        for route in routes
        for method in route.methods - {"HEAD"}
        if route.path not in PROBES
    }
    assert {o for o in operations(described) if o[1].startswith("/v1")} == served
    assert len(served) > 10


def test_operations_have_names_summaries_and_their_paths_parameters(described):
    found = operations(described)
    names = [operation["operationId"] for operation in found.values()]
    assert len(set(names)) == len(names)
    for (_, path), operation in found.items():
        assert re.fullmatch(r"[A-Z].*\.|[A-Z].*}", operation["summary"]), path
        wanted = re.findall(r"{(\w+)}", path)
        assert [p["name"] for p in operation["parameters"]] == wanted, path
        assert all(p["required"] and p["in"] == "path" for p in operation["parameters"])
        assert {"200", "default"} <= set(operation["responses"])


def test_the_document_is_openapi_3_1(described):
    assert described["openapi"] == "3.1.0"
    assert described["info"]["title"]
    assert described["info"]["version"]
    assert set(described) <= {"openapi", "info", "paths", "components", "servers", "tags"}


def references(node):
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_every_reference_leads_to_a_schema_that_is_filled_in(described):
    schemas = described["components"]["schemas"]
    found = set(references(described))
    assert {f"#/components/schemas/{name}" for name in schemas} == found
    assert all(schema["type"] == "object" for schema in schemas.values())


def conforms(value, schema, schemas):
    """Whether JSON has the form that a schema tells, for the words of OpenAPI we use."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    kind = schema["type"]
    if kind == "array":
        return isinstance(value, list) and all(conforms(v, schema["items"], schemas) for v in value)
    if kind == "object" and "additionalProperties" in schema:
        return all(conforms(v, schema["additionalProperties"], schemas) for v in value.values())
    if kind == "object":
        known = schema["properties"]
        return all(k in known and conforms(v, known[k], schemas) for k, v in value.items())
    if "enum" in schema:
        return value in schema["enum"]
    kinds = {"string": str, "integer": int, "number": (int, float), "boolean": bool}
    return isinstance(value, kinds[kind])


def test_a_full_message_has_the_form_that_its_schema_tells(described):
    """64-bit numbers are strings in proto3's JSON, times too, enums their names."""
    record = model_pb2.ModelVersion(settled=True, optimized=[{"recipe": "clean"}])
    record.pushed.name, record.pushed.version = "m", 3
    record.pushed.pushed_at.GetCurrentTime()
    record.pushed.source.artifact.size_bytes = 2**40
    record.pushed.signature.inputs.add(name="x", datatype="FP32", shape=[-1, 3])
    variant = record.variants.add(state=model_pb2.VARIANT_STATE_VERIFIED)
    variant.verification.speedup = 1.5
    variant.verification.fidelity.top1_agreement = 1.0
    record.failures.add(stage="compiler").error.details["a"] = "b"
    model = control_pb2.Model(name="m", versions=[record])
    model.release.history.add(revision=1)
    value = json_format.MessageToDict(model, preserving_proto_field_name=True)
    schemas = described["components"]["schemas"]
    assert conforms(value, schemas["Model"], schemas)
    assert not conforms({"name": 1}, schemas["Model"], schemas)
    assert not conforms({"versions": [{"settled": "yes"}]}, schemas["Model"], schemas)


def test_the_page_shows_every_operation_and_loads_nothing_from_elsewhere(get, described):
    shown = get("/docs")
    assert shown.headers["content-type"].startswith("text/html")
    for method, path in operations(described):
        assert f"<b>{method}</b></td><td><code>{path}</code>" in shown.text
    assert not re.search(r"(src|href)=['\"]?(https?:)?//", shown.text)


def test_the_page_escapes_what_it_shows():
    described = {
        "info": {"description": "<b>"},
        "paths": {"/<x>": {"get": {"summary": "<script>"}}},
    }
    shown = page(described)
    assert "<script>" not in shown
    assert "/&lt;x&gt;" in shown
