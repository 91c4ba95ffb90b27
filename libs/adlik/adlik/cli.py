"""The `adlik` command: its own commands, and the offline ones of installed services."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points

import typer

from adlik.commands import bench, infer, models, options, push, up

OFFLINE = "Offline, on files"
"""Title of the commands that need no mesh."""

app = typer.Typer(
    name="adlik",
    help="Push a trained model; Adlik makes it small and fast, proves it right, and serves it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

for command in (
    up.up, push.push, models.models, models.show, push.watch, infer.infer, bench.bench,
    models.trace, models.release, models.rollback, models.delete, models.status,
):  # fmt: skip
    app.command()(command)


def add_offline(name: str, loaded: Callable[..., None] | Mapping[str, Callable[..., None]]) -> None:
    """Adds what an entry point names: a command, or a group of them by their names.

    Args:
        name: What the user types.
        loaded: A function whose arguments become options, or a mapping of names to such functions.
    """
    if not isinstance(loaded, Mapping):
        app.command(name, rich_help_panel=OFFLINE)(options.said(loaded))
        return
    group = typer.Typer(no_args_is_help=True, help=f"The commands of the {name} library.")
    for inner, command in loaded.items():
        group.command(inner)(options.said(command))
    app.add_typer(group, name=name, rich_help_panel=OFFLINE)


def add_offline_commands(wanted: set[str]) -> None:
    """Adds the commands of installed services: those wanted, or all where none is named.

    Loading one takes longer than the rest of a call, so it is done only where it is used or listed.
    """
    for point in sorted(entry_points(group="adlik.commands"), key=lambda p: p.name):
        if point.name in wanted or not wanted - {"--help"}:
            add_offline(point.name, point.load())


def main() -> None:
    """Runs the command line."""
    add_offline_commands(set(sys.argv[1:2]))
    app()
