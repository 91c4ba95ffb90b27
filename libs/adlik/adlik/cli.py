"""The `adlik` command: its own commands, and the offline ones of installed services."""

from __future__ import annotations

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
for point in sorted(entry_points(group="adlik.commands"), key=lambda p: p.name):
    app.command(point.name, rich_help_panel="Offline, on files")(options.said(point.load()))


def main() -> None:
    """Runs the command line."""
    app()
