"""Options that every command takes, and how results and failures are printed."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from typing import Annotated, Any, ParamSpec, TypeVar

import typer

from adlik.errors import AdlikError
from adlik.wire import to_json

P = ParamSpec("P")
R = TypeVar("R")

Url = Annotated[
    str | None,
    typer.Option("--url", envvar="ADLIK_URL", help="HTTP address of the gateway.", show_default="http://127.0.0.1:8080"),
]  # fmt: skip
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Name = Annotated[str, typer.Argument(help="The model's name.")]


def print_json(value: Any) -> None:
    """Prints a record, or plain values, as one line of JSON."""
    print(json.dumps(to_json(value)))  # noqa: T201


def said(command: Callable[P, R]) -> Callable[P, R]:
    """Makes a command end with one clear line and status 1 where an `AdlikError` is raised."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except AdlikError as error:
            if kwargs.get("json_output"):
                print_json({"error": str(error), "code": error.code, "cure": error.cure})
            line = " ".join(str(error).split())  # engines and parsers speak in several
            print(f"adlik: {line}", file=sys.stderr)  # noqa: T201
            raise typer.Exit(1) from None

    return run
