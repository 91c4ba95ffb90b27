"""Runs the tests that depend on instruction sets on this machine as if it were an older one.

    make test-isa                       # a short form, as in CI: avx2, or portable below it
    make test-isa LEVEL=avx512_vnni     # all such tests, at a level that this machine has

The mask reaches every library that can be told. What a level cannot run is counted as not run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from adlik_kernels.machine.target import CAP_VARIABLE, CAPS, machine, most_of, uncapped

ONEDNN = {
    "portable": "SSE41",
    "avx2": "AVX2",
    "avx512": "AVX512_CORE",
    "avx512_vnni": "AVX512_CORE_VNNI",
    "avx512_bf16": "AVX512_CORE_BF16",
    "amx": "AVX512_CORE_AMX",
}
"""What `ONEDNN_MAX_CPU_ISA` calls each cap: OpenVINO and torch follow it."""

TORCH = {"portable": "default", "avx2": "avx2"}
"""What `ATEN_CPU_CAPABILITY` calls those below its highest, "avx512"."""

NUMBA = {
    "portable": "x86-64",
    "avx2": "haswell",
    "avx512": "skylake-avx512",
    "avx512_vnni": "cascadelake",
    "avx512_bf16": "cooperlake",
    "amx": "sapphirerapids",
}
"""A processor of each kind, for the kernels that numba compiles."""

BLAS = {"portable": "NEHALEM", "avx2": "HASWELL"}
"""What `OPENBLAS_CORETYPE` calls those below its highest: numpy's products follow it."""

EVERYTHING = ("tests/unit/kernels", "tests/unit/runtimes", "tests/unit/compiler")
SHORT = (
    *("tests/unit/kernels/test_machine.py", "tests/unit/kernels/test_compiler.py"),
    *("tests/unit/kernels/test_schedules.py", "tests/unit/kernels/test_dense.py"),
    *("tests/unit/kernels/test_dense_int8.py", "tests/unit/kernels/test_quantized_plan.py"),
    *("tests/unit/kernels/test_plan.py", "tests/unit/kernels/test_export.py"),
    *("tests/unit/runtimes", "tests/unit/compiler/test_verify.py"),
)
NOT_RUN = 3
"""Exit status for a level that this machine does not have."""


def lower(mine: str) -> str:
    """The level that says most beside a machine's own: avx2, which many have; below it, the last.

    "" where there is none below.
    """
    return {"portable": "", "avx2": "portable"}.get(mine, "avx2")


def masks(level: str) -> dict[str, str]:
    """Environment variables that hide everything above a level."""
    found = {CAP_VARIABLE: level, "ONEDNN_MAX_CPU_ISA": ONEDNN[level]}
    found |= {"NUMBA_CPU_NAME": NUMBA[level], "NUMBA_CPU_FEATURES": ""}
    if level in TORCH:
        found |= {"ATEN_CPU_CAPABILITY": TORCH[level], "OPENBLAS_CORETYPE": BLAS[level]}
    return found


def main(arguments: Sequence[str]) -> int:
    """Runs the tests at a level and returns pytest's exit status."""
    parser = argparse.ArgumentParser(prog="make test-isa", description=__doc__.split("\n")[0])
    parser.add_argument("--level", default="", help=f"one of {', '.join(CAPS)}; all tests")
    known, rest = parser.parse_known_args(arguments)
    mine = most_of(uncapped().features)
    print(f"This machine: {machine()}, {mine}.")
    level = known.level or lower(mine)
    if level not in ("", *CAPS):
        parser.error(f"there is no level {level!r}: use one of {', '.join(CAPS)}")
    if not level or CAPS.index(level) > CAPS.index(mine):
        why = f"it has no {level}" if level else "nothing is below its level"
        print(f"not run here: {level or 'a lower level'}; {why}.")
        return NOT_RUN if known.level else 0
    told = masks(level)
    print("Masked by " + ", ".join(f"{name}={value}" for name, value in told.items()) + ".")
    print("ONNX Runtime has no such switch: it computes with all it finds.", flush=True)
    tests = EVERYTHING if known.level else SHORT
    if any(Path(word.partition("::")[0]).exists() for word in rest):
        tests = ()
    command = [sys.executable, "-m", "pytest", "-q", *rest, *tests]
    environment = {**os.environ, **told}  # noqa: TID251 # what children are told, and how
    return subprocess.run(command, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
