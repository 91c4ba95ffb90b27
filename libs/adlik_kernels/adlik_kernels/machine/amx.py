"""AMX, the matrix unit of recent Intel processors: whether this process may use it.

A thread that uses it has 8 KiB more of state, so Linux gives it only to processes that ask, once,
and for all their threads; the kernel's documentation calls this "dynamically enabled features".
"""

from __future__ import annotations

import ctypes
import functools
import platform
import sys

ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA = 158, 0x1023, 18
"""The system call, its ARCH_REQ_XCOMP_PERM, and the state asked for, XFEATURE_XTILEDATA."""


@functools.cache
def amx_permitted() -> bool:
    """Asks the system, once per process, for the use of AMX and returns whether it agrees.

    A system that refuses would end the process at its first AMX instruction.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    words = (ctypes.c_long(n) for n in (ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA))
    return int(ctypes.CDLL(None).syscall(*words)) == 0


def found_features() -> frozenset[str]:
    """Returns the instruction sets that the processor says it has, as LLVM spells them."""
    import llvmlite.binding as llvm

    return frozenset(name for name, on in llvm.get_host_cpu_features().items() if on)


def without_refused(features: frozenset[str]) -> frozenset[str]:
    """Returns a processor's features without those of AMX, if the system refuses their use.

    Args:
        features: Names of instruction sets, as LLVM spells them.
    """
    if "amx-tile" in features and amx_permitted():
        return features
    return frozenset(name for name in features if not name.startswith("amx"))


def why_no_amx(features: frozenset[str]) -> str:
    """Returns why there is no AMX level here, for reports; "" if there is one.

    Args:
        features: What the processor has, before `without_refused`.
    """
    missing = sorted({"amx-tile", "amx-int8", "amx-bf16"} - features)
    if missing:
        return f"the processor has no {', '.join(missing)}"
    return "" if amx_permitted() else "the system does not permit it"
