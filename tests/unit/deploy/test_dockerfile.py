"""The Dockerfile builds, for each service, the members it depends on and starts that service."""

import fnmatch
import json
import re
import tomllib
from dataclasses import dataclass, field

import pytest

from tests.unit.deploy.rendering import ROOT, SETTINGS, rendered

SERVICES = sorted(SETTINGS)


@dataclass
class Stage:
    """A stage of the Dockerfile: what it starts from and what it says."""

    parent: str
    name: str
    instructions: list[tuple[str, str]] = field(default_factory=list)


def parse(service):
    """Returns the stages in order, with SERVICE given."""
    text = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    stages = []
    for line in filter(str.strip, lines.replace("\\\n", " ").splitlines()):
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            parent, _, name = rest.replace("${SERVICE}", service).partition(" AS ")
            stages.append(Stage(parent, name))
        elif stages:
            stages[-1].instructions.append((word, rest))
        else:
            assert (word, rest) == ("ARG", "SERVICE")
    return stages


def chain(stages, last):
    """Returns the instructions of a stage and all it starts from, first ones first."""
    by_name = {stage.name: stage for stage in stages if stage.name}
    if last.parent in by_name:
        return chain(stages, by_name[last.parent]) + last.instructions
    assert last.parent == "python:3.11-slim-bookworm"
    return last.instructions


def built(service):
    """Returns the instructions of the stage that builds, and of the final image."""
    stages = parse(service)
    (installed,) = [stage for stage in stages if stage.name == "installed"]
    return chain(stages, installed), chain(stages, stages[-1])


def sources(instructions):
    """Returns what is copied from the build context."""
    copies = [rest.split() for word, rest in instructions if word == "COPY"]
    return [path for *paths, _ in copies if not paths[0].startswith("--from=") for path in paths]


def closure(service):
    """Returns the members of this repository that a service depends on, itself included."""
    members = {}
    for path in [ROOT / "proto", *(ROOT / "libs").iterdir(), *(ROOT / "services").iterdir()]:
        if (path / "pyproject.toml").exists():
            project = tomllib.loads((path / "pyproject.toml").read_text())["project"]
            names = {re.match(r"[\w-]+", d).group() for d in project["dependencies"]}
            members[project["name"]] = str(path.relative_to(ROOT)), names
    found, waiting = set(), {f"adlik-{service}"}
    while waiting:
        name = waiting.pop()
        found.add(members[name][0])
        waiting |= {n for n in members[name][1] & set(members) if members[n][0] not in found}
    return found


@pytest.mark.parametrize("service", SERVICES)
def test_the_members_are_the_services_dependencies(service):
    copied = set(sources(built(service)[0])) - {"constraints.txt"}
    assert copied == closure(service)


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_copied_exists_and_is_not_ignored(service):
    for path in sources(built(service)[0]):
        assert (ROOT / path).exists(), path
        assert not ignored(path), path
    assert sources(built(service)[1]) == []


def test_nothing_else_reaches_the_builder():
    for path in (".git", ".venv", "tests", "proto/adlik_proto/adlik", "libs/__pycache__"):
        assert ignored(path), path


@pytest.mark.parametrize("service", SERVICES)
def test_the_service_is_started_directly(service):
    (entry,) = [rest for word, rest in built(service)[1] if word == "ENTRYPOINT"]
    assert json.loads(entry) == ["python", "-m", f"adlik_{service}"]
    assert (ROOT / "services" / service / f"adlik_{service}" / "__main__.py").exists()


@pytest.mark.parametrize("service", SERVICES)
def test_it_runs_as_the_user_of_the_manifests(service):
    (user,) = [rest for word, rest in built(service)[1] if word == "USER"]
    pod = rendered("base").workloads()[service]["spec"]["template"]["spec"]["securityContext"]
    assert user == f"{pod['runAsUser']}:{pod['runAsGroup']}"


@pytest.mark.parametrize("service", SERVICES)
def test_it_exposes_the_ports_of_the_manifests(service):
    exposed = {p for word, rest in built(service)[1] if word == "EXPOSE" for p in rest.split()}
    ports = rendered("base").container(service)["ports"]
    assert exposed == {str(port["containerPort"]) for port in ports}


@pytest.mark.parametrize("service", SERVICES)
def test_its_variables_are_settings(service):
    text = " ".join(rest for word, rest in built(service)[1] if word == "ENV")
    names = re.findall(r"ADLIK_(\w+)=", text)
    assert names
    assert {name.lower() for name in names} <= set(SETTINGS[service].model_fields)


def test_dependencies_are_constrained_and_ours_are_files():
    runs = [rest for word, rest in built("serving")[0] if word == "RUN"]
    assert runs == [
        "pip wheel --no-deps --wheel-dir /wheels ./proto ./libs/* ./services/*",
        "python -m venv /opt/adlik",
        "/opt/adlik/bin/pip install -c constraints.txt /wheels/*.whl",
    ]


def ignored(path):
    """Whether .dockerignore keeps a path out; the last pattern that matches decides."""
    result = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        tails = [path, path.rsplit("/", 1)[-1], path.split("/", 1)[0]]
        if line and not line.startswith("#") and any(fnmatch.fnmatch(t, pattern) for t in tails):
            result = not line.startswith("!")
    return result
