"""Generates the Python package `adlik_proto`; hatchling calls it when the package is built.

By hand: `python proto/generate.py`. The code gets a root of its own, `adlik_proto`, because users
want `import adlik` for the client (docs/adr/0001-generated-code-root.md).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent
PACKAGE = ROOT / "adlik_proto"
PROTOS = sorted(
    p.relative_to(ROOT) for d in ("adlik", "inference") for p in (ROOT / d).rglob("*.proto")
)


def generate() -> list[Path]:
    """Writes modules, stubs and services under `adlik_proto/` and returns their paths."""
    # protoc finds its mypy plugin by PATH, where an unactivated environment is not.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # noqa: TID251
    environment = {**os.environ, "PATH": path}  # noqa: TID251
    for option in ("python_out", "mypy_out", "grpc_python_out"):
        flag = f"readable_stubs:{PACKAGE}" if option == "mypy_out" else str(PACKAGE)
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT}", f"--{option}={flag}"]
        subprocess.run([*command, *map(str, PROTOS)], check=True, cwd=ROOT, env=environment)
    written = [p for p in PACKAGE.rglob("*_pb2*.py*") if p.suffix in (".py", ".pyi")]
    for path in written:
        path.write_text(_rooted(path.read_text()))
    for folder in {parent for p in written for parent in p.relative_to(PACKAGE).parents}:
        (PACKAGE / folder / "__init__.py").touch()
    (PACKAGE / "py.typed").touch()
    return written


def _rooted(source: str) -> str:
    """Moves absolute imports of generated modules under `adlik_proto`."""
    source = re.sub(
        r"^(from|import) (adlik|inference)\b", r"\1 adlik_proto.\2", source, flags=re.MULTILINE
    )
    # mypy-protobuf refers to other generated modules by their whole dotted name.
    return re.sub(
        r"(?<![\w.\"'/])(adlik|inference)\.(\w+\.v1\.)?(\w+_pb2)", r"adlik_proto.\1.\2\3", source
    )


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:
    pass
else:

    class GenerateHook(BuildHookInterface):  # type: ignore[type-arg]
        """Runs the generator before the wheel, editable or not, is put together."""

        def initialize(self, version: str, build_data: dict[str, object]) -> None:  # noqa: ARG002
            """Generates, and tells the builder which ignored files belong to the package."""
            generate()
            build_data["artifacts"] = [
                "adlik_proto/**/*.py",
                "adlik_proto/**/*.pyi",
                "adlik_proto/py.typed",
            ]


if __name__ == "__main__":
    for generated in generate():
        print(generated.relative_to(ROOT))
