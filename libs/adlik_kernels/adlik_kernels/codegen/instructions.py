"""Which processor features a module's instructions need, found before LLVM is asked to emit them.

Plain LLVM is legal everywhere: vectors that are too wide are split. What a template names by hand,
`llvm.x86.…`, is not: for a target without it LLVM ends the whole process.
"""

from __future__ import annotations

import re

from adlik_kernels.errors import BuildFailed
from adlik_kernels.machine.target import Target

_NEEDED = (
    ("sse2.", "sse2"),
    ("ssse3.", "ssse3"),
    ("avx2.", "avx2"),
    ("avx512bf16.", "avx512bf16"),
    ("avx512.vpdpbusd.", "avx512vnni"),
    ("avx512.", "avx512bw"),
    ("ldtilecfg", "amx-tile"),
    ("tile", "amx-tile"),
    ("tdpbusd", "amx-int8"),
    ("tdpbf16ps", "amx-bf16"),
)
"""Beginnings of the names behind `llvm.x86.`, the longer ones first, and what each needs."""

_DECLARED = re.compile(r'^declare .*@"?llvm\.x86\.([\w.]+)', re.MULTILINE)
_SHORT = re.compile(r"avx512.*\.(128|256)$")


def check_instructions(text: str, target: Target) -> None:
    """Refuses a module that names instructions which its target lacks.

    Args:
        text: LLVM assembly.
        target: The machine it is compiled for.

    Raises:
        BuildFailed: An instruction needs a feature that the target does not have, or is not known.
    """
    for name in _DECLARED.findall(text):
        missing = sorted(_features(name) - target.features)
        if missing:
            raise BuildFailed(
                f"A kernel for {target.key} would use {name}, which needs {', '.join(missing)}.",
                cure="This is a fault of the template: it must choose by the target's features.",
            )


def _features(name: str) -> set[str]:
    """What an instruction needs, by LLVM's name of it behind `llvm.x86.`."""
    found = next((feature for start, feature in _NEEDED if name.startswith(start)), None)
    if found is None:
        raise BuildFailed(
            f"Nobody has said which processors have {name}.",
            cure="Add it to the table in codegen/instructions.py.",
        )
    return {found, "avx512vl"} if _SHORT.match(name) else {found}
