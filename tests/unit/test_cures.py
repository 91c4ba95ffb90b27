"""What readers are told to do is something they can do: no dummies, and commands that exist."""

import ast
import re
from pathlib import Path

import pytest
from adlik.cli import add_offline_commands, app
from adlik_common.errors import AdlikError

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    path for folder in ("libs", "services") for path in (ROOT / folder).glob("*/adlik*/**/*.py")
)
# Words in capitals that are names of things, not of what the reader has to fill in.
NAMES = {"HTTP", "JSON", "NATS", "NVIDIA", "ONNX", "POST", "UTF", "GET", "IPv6", "ZipMap"}
DUMMY = re.compile(r"<[a-z_ ]+>|\{[a-z_]+\}|\.\.\.|\b(?:foo|bar|xxx|todo)\b", re.IGNORECASE)
CAPITALS = re.compile(r"\b[A-Z]{2,}\b(?!_)")
SETTING = re.compile(r"\b(?:ADLIK|OTEL)_[A-Z_]+\b")
DATATYPE = re.compile(r"\b(?:FP|BF|U?INT)\d+\b|\bBOOL\b|\bBYTES\b")


def cures_of(path):
    """Yields (line, text) of every cure in a file; what is filled in stands as "…"."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = getattr(node.func, "id", getattr(node.func, "attr", ""))
            given = [keyword.value for keyword in node.keywords if keyword.arg == "cure"]
            given += node.args[2:3] if called == "AdlikError" else []
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {getattr(target, "id", "") for target in targets}
            given = [node.value] if names & {"usual_cure", "cure"} and node.value else []
        else:
            continue
        for value in given:
            text = "".join(pieces(value))
            if text:
                yield value.lineno, text


def pieces(value):
    """Yields the text of an expression."""
    if isinstance(value, ast.Constant):
        yield value.value if isinstance(value.value, str) else ""
    elif isinstance(value, ast.FormattedValue):
        yield "…"
    else:
        for child in ast.iter_child_nodes(value):
            yield from pieces(child)


CURES = [
    pytest.param(text, id=f"{path.relative_to(ROOT)}:{line}")
    for path in SOURCES
    for line, text in cures_of(path)
]


def dummies(text):
    """Returns what a reader would have to fill in."""
    rest = DATATYPE.sub("", SETTING.sub("", text))
    return DUMMY.findall(rest) + [word for word in CAPITALS.findall(rest) if word not in NAMES]


@pytest.mark.parametrize("text", CURES)
def test_a_cure_holds_nothing_to_be_filled_in(text):
    assert not dummies(text)


@pytest.mark.parametrize(
    "text",
    [
        "GET /v2/models/NAME.",
        "Use curl -F model=@FILE.",
        "See <name>.",
        "Choose {variant}.",
        "Run adlik push ...",
    ],
)
def test_the_test_finds_dummies(text):
    assert dummies(text)


def test_the_test_finds_the_cures():
    assert len(CURES) > 150
    texts = {param.values[0] for param in CURES}
    assert {cls.usual_cure for cls in AdlikError.__subclasses__() if cls.usual_cure} <= texts


@pytest.mark.parametrize("text", [param for param in CURES if "`adlik " in param.values[0]])
def test_a_command_in_a_cure_exists(text):
    add_offline_commands(set())
    commands = {c.name or c.callback.__name__ for c in app.registered_commands}
    commands |= {group.name for group in app.registered_groups}
    for command in re.findall(r"`adlik ([a-z-]+)", text):
        assert command in commands


@pytest.mark.parametrize("text", CURES)
def test_a_setting_in_a_cure_exists(text):
    settings = "".join(path.read_text() for path in SOURCES if path.name == "settings.py")
    for name in SETTING.findall(text):
        if name.startswith("ADLIK_"):
            assert re.search(rf"\b{name.removeprefix('ADLIK_').lower()}\b", settings), name
