"""`adlik push` and `adlik watch`: a model's way from file to fast answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from adlik import render
from adlik.client import Client
from adlik.commands.options import Json, Url, print_json, said
from adlik.errors import AdlikError
from adlik.records import Model, ModelVersion, Pushed

NamesList = Annotated[list[str] | None, typer.Option(help="Only this one; may be repeated.")]


@said
def push(
    model: Annotated[Path, typer.Argument(help="ONNX file.")],
    name: Annotated[str, typer.Option(help="Its name; by default the file's.")] = "",
    data: Annotated[
        Path | None,
        typer.Option(help="Samples (.npz: an array per input, optionally 'labels')."),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until every variant is released or settled.")
    ] = False,
    recipe: NamesList = None,
    target: NamesList = None,
    min_r2: Annotated[
        float | None, typer.Option(help="Variance that an int8 or bf16 output must keep, up to 1.")
    ] = None,
    min_expected_accuracy: Annotated[
        float | None, typer.Option(help="Expected accuracy that its classes must keep, 0..1.")
    ] = None,
    max_accuracy_drop: Annotated[
        float | None, typer.Option(help="Labelled accuracy that it may lose, in points.")
    ] = None,
    size: Annotated[
        list[str] | None,
        typer.Option(help="Size of an open axis to measure at, AXIS=N; may be repeated."),
    ] = None,
    batching: Annotated[
        str, typer.Option(help='"off": requests never share a run; by default where proved safe.')
    ] = "",
    plan: Annotated[Path | None, typer.Option(help="A plan as JSON (docs/plans.md).")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait at most.")] = 1800.0,
    url: Url = None,
    json_output: Json = False,
) -> None:
    """Pushes a model: it answers in seconds, then gets faster by itself."""
    limits = {
        "min_r2": min_r2,
        "min_expected_accuracy": min_expected_accuracy,
        "max_accuracy_drop": max_accuracy_drop,
    }
    wanted = _plan(plan)
    _merge(wanted, "limits", {key: value for key, value in limits.items() if value is not None})
    _merge(wanted, "sizes", _sizes(size or []))
    options = {"recipes": recipe, "targets": target, "batching": batching}
    wanted.update({key: value for key, value in options.items() if value})
    with Client(url) as client:
        pushed = client.push(name or model.stem, model, samples=data, plan=wanted)
        if not wait:
            _print_pushed(pushed, json_output=json_output)
            return
        if not json_output:
            _print_pushed(pushed, json_output=False)
        found = wait_settled(client, pushed, timeout, quiet=json_output)
        record = found.version(pushed.pushed.version)
        if json_output:
            print_json(found)
        elif record is not None:
            render.console().print(render.variants_table(record))
        if found.release is None or found.release.pushed.version < pushed.pushed.version:
            raise _nothing_released(record)


def wait_settled(client: Client, pushed: Pushed, timeout: float, *, quiet: bool) -> Model:
    """Returns the model once nothing more will happen to a version and the best one answers."""
    number = pushed.pushed.version
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, disable=quiet, transient=True, console=render.console()) as progress:
        task = progress.add_task("waiting for the first variant")
        for change in client.watch(pushed.pushed.name, timeout=timeout):
            record = change.model.version(number)
            if record is None:
                if change.event != "ModelDeleted":
                    continue  # the gateway has not yet heard of this version itself
                raise AdlikError("NOT_FOUND", "The model was deleted meanwhile.")
            progress.update(task, description=_progress(change.model, record))
            if record.settled and (change.model.release is None or change.model.ready_replicas):
                return change.model
    raise AssertionError("watching ends by return or error")


@said
def watch(
    name: Annotated[str | None, typer.Argument(help="A model; by default all.")] = None,
    url: Url = None,
    json_output: Json = False,
) -> None:
    """Prints what happens to models, as it happens; Ctrl-C ends it."""
    console = render.console()
    with Client(url) as client:
        for change in client.watch(name):
            if json_output:
                print_json(change)
                continue
            record = change.model.version()
            state = _progress(change.model, record) if record else "gone"
            time = f"{change.time:%H:%M:%S}" if change.time else ""
            console.print(f"{time} {change.model.name}: {change.event}: {state}")


def _progress(model: Model, record: ModelVersion) -> str:
    verified = sum(variant.verification is not None for variant in record.variants)
    served = "nothing served yet"
    if model.release is not None:
        served = f"serving v{model.release.pushed.version} {model.release.compiled.variant}"
        served += f" ({model.release.speedup:.2f}x) on {len(model.ready_replicas)} replicas"
    failed = f", {len(record.failures)} not made" if record.failures else ""
    settled = "" if record.settled else "; working"
    return f"{served}; {verified} of {len(record.variants)} variants verified{failed}{settled}"


def _print_pushed(pushed: Pushed, *, json_output: bool) -> None:
    if json_output:
        print_json(pushed)
        return
    found = pushed.pushed
    how = "pushed as" if pushed.created else "is already"
    inputs = ", ".join(f"{t.name} {t.datatype} {list(t.shape)}" for t in found.signature.inputs)
    render.console().print(f"{how} {found.name} version {found.version}; takes {inputs}")


def _nothing_released(record: ModelVersion | None) -> AdlikError:
    for failure in record.failures if record else ():
        if failure.stage != "optimizer":
            error = failure.error
            return AdlikError(error.code, error.message, error.cure, details=error.details)
    return AdlikError(
        "NOTHING_RELEASED",
        "No variant passed verification.",
        "See `adlik show` for the reasons; widen the plan's limits.",
    )


def _merge(plan: dict[str, Any], part: str, given: dict[str, Any]) -> None:
    if given:
        plan[part] = {**plan.get(part, {}), **given}


def _sizes(given: list[str]) -> dict[str, int]:
    sizes = {}
    for text in given:
        axis, _, number = text.rpartition("=")
        if not axis or not number.isdecimal():
            raise AdlikError(
                "INVALID_PLAN", f"'{text}' names no size.", "Write it as --size sequence=128."
            )
        sizes[axis] = int(number)
    return sizes


def _plan(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise AdlikError("INVALID_PLAN", f"'{path}' can't be read: {error}.") from error
