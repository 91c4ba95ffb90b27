"""`adlik models`, `show`, `release`, `rollback`, `delete`, `status` and `trace`."""

from __future__ import annotations

from typing import Annotated

import typer

from adlik import render
from adlik.client import Client
from adlik.commands.options import Json, Name, Url, print_json, said
from adlik.errors import AdlikError
from adlik.plans import Pipeline
from adlik.records import Release


@said
def models(url: Url = None, json_output: Json = False) -> None:
    """Lists all models and what is served."""
    with Client(url) as client:
        found = client.models()
    if json_output:
        print_json(found)
    elif found:
        render.console().print(render.models_table(found))
    else:
        render.console().print("no models yet; push one with: adlik push MODEL.onnx --wait")


@said
def show(
    name: Name,
    version: Annotated[int, typer.Option(help="0 is the newest.")] = 0,
    url: Url = None,
    json_output: Json = False,
) -> None:
    """Shows a version's variants: size, speed, fidelity, and why each is or isn't served."""
    with Client(url) as client:
        record = client.version(name, version)
        replicas = client.replicas()
    if json_output:
        print_json(record)
        return
    console = render.console()
    pushed = record.pushed
    console.print(f"{pushed.name} version {pushed.version}, pushed {pushed.pushed_at:%F %T} UTC")
    for kind, tensors in (("takes", pushed.signature.inputs), ("gives", pushed.signature.outputs)):
        for tensor in tensors:
            console.print(f"{kind} {tensor.name}: {tensor.datatype} {list(tensor.shape)}")
    if pushed.plan.pipeline is not None:
        console.print(f"clients send a picture and get {_answer(pushed.plan.pipeline)}")
    console.print(render.variants_table(record))
    absent = render.not_run_table(replicas)
    if absent.row_count:
        console.print(absent)


def _answer(pipeline: Pipeline) -> str:
    if pipeline.classes is not None:
        return "its best classes"
    return "boxes" if pipeline.detect is not None else "the model's outputs"


@said
def release(
    name: Name,
    variant: Annotated[str, typer.Argument(help="As `adlik show` lists it.")],
    version: Annotated[int, typer.Option(help="0 is the newest.")] = 0,
    url: Url = None,
    json_output: Json = False,
) -> None:
    """Serves a chosen variant, until a newer version is pushed."""
    with Client(url) as client:
        _print_release(client.release(name, variant, version), json_output=json_output)


@said
def rollback(name: Name, url: Url = None, json_output: Json = False) -> None:
    """Serves again what was served before."""
    with Client(url) as client:
        _print_release(client.rollback(name), json_output=json_output)


@said
def delete(name: Name, url: Url = None, json_output: Json = False) -> None:
    """Deletes a model and all its versions."""
    with Client(url) as client:
        client.delete(name)
    if json_output:
        print_json({"deleted": name})
    else:
        render.console().print(f"{name} is deleted")


@said
def status(url: Url = None, json_output: Json = False) -> None:
    """Shows the running processes, the queues, and what was given up."""
    with Client(url) as client:
        replicas, jobs = client.replicas(), client.jobs()
    if json_output:
        print_json({"replicas": replicas, "jobs": jobs})
        return
    console = render.console()
    for made in render.status_tables(replicas, jobs):
        console.print(made)


@said
def trace(
    name: Annotated[str | None, typer.Argument(help="A model: its newest push.")] = None,
    last: Annotated[bool, typer.Option("--last", help="The last recorded inference.")] = False,
    trace_id: Annotated[str | None, typer.Option("--id", help="A trace's id.")] = None,
    url: Url = None,
    json_output: Json = False,
) -> None:
    """Shows where the time of a push or of an inference went."""
    if not (name or last or trace_id):
        raise AdlikError("INVALID_REQUEST", "Which trace?", "Name a model, or use --last or --id.")
    with Client(url) as client:
        found = client.trace(trace_id, model=name, last=last)
    if json_output:
        print_json(found)
        return
    console = render.console()
    console.print(f"trace {found.trace_id}")
    console.print(render.waterfall(found))


def _print_release(released: Release, *, json_output: bool) -> None:
    if json_output:
        print_json(released)
        return
    what = f"{released.pushed.name} v{released.pushed.version} {released.compiled.variant}"
    render.console().print(f"{what} is released (revision {released.revision}): {released.reason}")
