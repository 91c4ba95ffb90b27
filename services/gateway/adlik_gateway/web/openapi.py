"""Describes the HTTP API as OpenAPI, with schemas made from the messages themselves."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any

from adlik_proto.adlik.control.v1 import control_pb2
from adlik_proto.adlik.model.v1 import model_pb2
from adlik_proto.adlik.trace.v1 import trace_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_RESPONSES: dict[str, type[Message]] = {
    "push": control_pb2.PushModelResponse,
    "list_models": control_pb2.ListModelsResponse,
    "get_model": control_pb2.Model,
    "get_version": model_pb2.ModelVersion,
    "release": model_pb2.Release,
    "rollback": model_pb2.Release,
    "watch": control_pb2.WatchModelsResponse,
    "jobs": control_pb2.ListJobsResponse,
    "replicas": control_pb2.ListReplicasResponse,
    "find_trace": trace_pb2.Trace,
    "get_trace": trace_pb2.Trace,
}
_OIP = (
    ("GET", "/v2", "Says who this server is and what it can do."),
    ("GET", "/v2/health/live", "Says whether the server is alive."),
    ("GET", "/v2/health/ready", "Says whether the server takes requests."),
    ("GET", "/v2/models/{name}", "Shows a served model's inputs and outputs."),
    ("GET", "/v2/models/{name}/ready", "Says whether a model answers."),
    ("GET", "/v2/models/{name}/config", "Shows a model's configuration (Triton's form)."),
    ("GET", "/v2/models/{name}/stats", "Shows how many inferences ran and how long they took."),
    (
        "POST",
        "/v2/models/{name}/infer",
        "Runs a model: JSON, JSON and binary tensors, or the raw bytes of one tensor.",
    ),
    ("POST", "/v2/repository/index", "Lists the served models."),
)
_SCALARS = {
    FieldDescriptor.CPPTYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.CPPTYPE_STRING: {"type": "string"},
    FieldDescriptor.CPPTYPE_DOUBLE: {"type": "number"},
    FieldDescriptor.CPPTYPE_FLOAT: {"type": "number"},
    FieldDescriptor.CPPTYPE_INT32: {"type": "integer"},
    # proto3 JSON writes 64-bit numbers as strings.
    FieldDescriptor.CPPTYPE_INT64: {"type": "string", "format": "int64"},
    FieldDescriptor.CPPTYPE_UINT64: {"type": "string", "format": "uint64"},
}


def document(table: Sequence[tuple[str, str, Any]]) -> dict[str, Any]:
    """Returns the OpenAPI document of a table of (method, path, endpoint)."""
    schemas: dict[str, Any] = {}
    paths: dict[str, dict[str, Any]] = {}
    for method, path, endpoint in table:
        operation = _operation(path, endpoint.__name__, endpoint.__doc__ or "")
        message = _RESPONSES.get(endpoint.__name__)
        if message is not None:
            content = {"application/json": {"schema": _schema(message.DESCRIPTOR, schemas)}}
            operation["responses"]["200"]["content"] = content
        paths.setdefault(_plain(path), {})[method.lower()] = operation
    for method, path, summary in _OIP:
        name = f"oip{re.sub('[^a-z]+', '_', path)}_{method.lower()}"
        paths.setdefault(path, {})[method.lower()] = _operation(path, name, summary)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Adlik",
            "version": "1",
            "description": "Push a trained model; Adlik makes it small and fast and serves it.",
        },
        "paths": paths,
        "components": {"schemas": schemas},
    }


def page(described: dict[str, Any]) -> str:
    """Returns the document as a page that needs nothing from elsewhere."""
    rows = "".join(
        f"<tr><td><b>{method.upper()}</b></td><td><code>{html.escape(path)}</code></td>"
        f"<td>{html.escape(operation['summary'])}</td></tr>"
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Adlik API</title>"
        "<style>body{font:16px/1.5 system-ui;margin:2rem auto;max-width:60rem;padding:0 1rem}"
        "td{padding:.25rem .75rem .25rem 0;vertical-align:top}</style><h1>Adlik API</h1>"
        f"<p>{html.escape(described['info']['description'])} The whole description: "
        f"<a href=/openapi.json>openapi.json</a>. Metrics: <a href=/metrics>/metrics</a>.</p>"
        f"<table>{rows}</table></html>"
    )


def _operation(path: str, name: str, doc: str) -> dict[str, Any]:
    parameters = [
        {"name": found, "in": "path", "required": True, "schema": {"type": "string"}}
        for found in re.findall(r"{(\w+)", path)
    ]
    error = {"description": "An error: code, message, cure, retryable, details."}
    return {
        "operationId": name,
        "summary": doc.strip(),
        "parameters": parameters,
        "responses": {"200": {"description": "Done."}, "default": error},
    }


def _plain(path: str) -> str:
    return re.sub(r"{(\w+):\w+}", r"{\1}", path)


def _schema(message: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """Returns a reference to a message's schema and makes it where it is missing."""
    if message.full_name == "google.protobuf.Timestamp":
        return {"type": "string", "format": "date-time"}
    if message.name not in schemas:
        schemas[message.name] = {}  # messages may contain themselves
        properties = {field.name: _field(field, schemas) for field in message.fields}
        schemas[message.name] = {"type": "object", "properties": properties}
    return {"$ref": f"#/components/schemas/{message.name}"}


def _field(field: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        value = field.message_type.fields_by_name["value"]
        return {"type": "object", "additionalProperties": _single(value, schemas)}
    if field.is_repeated:
        return {"type": "array", "items": _single(field, schemas)}
    return _single(field, schemas)


def _single(field: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    if field.message_type is not None:
        return _schema(field.message_type, schemas)
    if field.enum_type is not None:
        return {"type": "string", "enum": [value.name for value in field.enum_type.values]}
    return dict(_SCALARS[field.cpp_type])
