"""AMX beside the vectors below it, and what to say where there is none."""

from __future__ import annotations

from collections.abc import Callable

GROUPS = ("int8", "bf16", "conv-int8")
"""Groups whose kernels use AMX where they can."""


def amx_line() -> str:
    """What a report says about AMX: a machine without it proves nothing about its speed."""
    from adlik_kernels.machine.amx import found_features, why_no_amx

    reason = why_no_amx(found_features())
    if reason:
        return f"amx: not run here ({reason})"
    return "amx: in the figures of adlik; 'adlik, avx512' is the same without it"


def without_amx(prepare: Callable[[], Callable], x, out) -> dict[str, Callable[[], object]]:
    """The same layer on vectors, where the first one is on AMX."""
    from adlik_kernels import configure
    from adlik_kernels.machine.target import host

    if host().level != "amx":
        return {}
    configure(level="avx512")
    try:
        layer = prepare()
    finally:
        configure(level="")
    return {"adlik, avx512": lambda: layer(x, out=out)}
