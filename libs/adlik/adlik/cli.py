"""The `adlik` command: its own commands, and the offline ones of installed services."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import typer

from adlik.commands import bench, infer, models, options, push, up

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


def add_offline_commands(wanted: set[str]) -> None:
    """Adds the commands of installed services: those wanted, or all where none is named.

    Loading one takes longer than the rest of a call, so it is done only where it is used or listed.
    """
    for point in sorted(entry_points(group="adlik.commands"), key=lambda p: p.name):
        if point.name in wanted or not wanted - {"--help"}:
            command = options.said(point.load())
            app.command(point.name, rich_help_panel="Offline, on files")(command)


def main() -> None:
    """Runs the command line."""
    add_offline_commands(set(sys.argv[1:2]))
    app()
