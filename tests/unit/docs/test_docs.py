"""The documentation says what the code does: spans, metrics, errors, settings, commands."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from adlik.cli import add_offline, add_offline_commands, app
from adlik_common import spans
from adlik_common.errors import AdlikError
from adlik_kernels.commands import KERNELS
from prometheus_client import REGISTRY
from typer.testing import CliRunner

ROOT = Path(__file__).parents[3]
TELEMETRY = (ROOT / "docs" / "telemetry.md").read_text()
METRIC_MODULES = (
    "adlik_common.bus",
    "adlik_gateway.control.jobs",
    "adlik_gateway.metrics",
    "adlik_serving.metrics",
    "adlik_compiler.metrics",
)


def constants():
    return {name: value for name, value in vars(spans).items() if name.isupper()}


@pytest.mark.parametrize("name", sorted(constants()))
def test_every_span_and_attribute_is_documented(name):
    value = constants()[name]
    if name == "PROCESS":
        value = f"<consumer> {value}"
    assert f"`{value}`" in TELEMETRY


def test_every_documented_span_and_attribute_exists():
    said = set(re.findall(r"`((?:adlik|gateway|optimizer|compiler|serving)\.[a-z_.]+)`", TELEMETRY))
    assert said <= set(constants().values())


def test_every_span_and_attribute_is_used():
    code = "".join(
        path.read_text()
        for folder in ("libs", "services")
        for path in (ROOT / folder).rglob("*.py")
    )
    unused = [name for name in constants() if f"spans.{name}" not in code]
    assert not unused


def test_the_metrics_are_those_documented():
    for module in METRIC_MODULES:
        importlib.import_module(module)
    found = set()
    for metric in REGISTRY.collect():
        if metric.name.startswith("adlik_"):
            found.add(f"{metric.name}_total" if metric.type == "counter" else metric.name)
    documented = set(re.findall(r"^\| `(adlik_[a-z_]+)`", TELEMETRY, re.MULTILINE))
    assert found == documented


def test_the_errors_are_those_documented():
    text = (ROOT / "docs" / "errors.md").read_text()
    rows = set(re.findall(r"^\| ([A-Z_]+) \| (\d+) \| ([A-Z_]+) \| (yes)? ?\|", text, re.MULTILINE))
    tree = {
        (e.code, str(e.http_status), e.grpc_status, "yes" if e.retryable else "")
        for e in AdlikError.__subclasses__()
    }
    assert {row for row in rows if row[0] != "code"} == tree


def test_every_command_is_documented_and_has_help():
    text = (ROOT / "docs" / "cli.md").read_text()
    runner = CliRunner()
    add_offline_commands(set())
    for command in app.registered_commands:
        name = command.name or command.callback.__name__
        assert f"adlik {name}" in text
        assert runner.invoke(app, [name, "--help"]).exit_code == 0


def test_every_command_of_a_group_is_documented_and_has_help():
    text = (ROOT / "docs" / "cli.md").read_text()
    add_offline("kernels", KERNELS)
    for name in KERNELS:
        assert f"adlik kernels {name}" in text
        assert CliRunner().invoke(app, ["kernels", name, "--help"]).exit_code == 0


def test_links_between_documents_lead_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
