"""What the processor can compute natively, as far as engines need to know."""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

from adlik_common.settings import ServiceSettings

_CPUINFO = Path("/proc/cpuinfo")
_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})  # x86, x86, Arm
_BFLOAT16_CAPS = frozenset({"", "avx512_bf16", "amx"})


@cache
def flags() -> frozenset[str]:
    """Returns the processor's feature flags as Linux names them; none on other systems."""
    return frozenset(_field("flags", "Features").split())


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 matrices itself, and is not capped below that."""
    return bool(flags() & _BFLOAT16) and ServiceSettings().cpu_level in _BFLOAT16_CAPS


def model_name() -> str:
    """Returns the processor's name for people."""
    return _field("model name") or platform.processor() or platform.machine()


def _field(*names: str) -> str:
    if not _CPUINFO.exists():
        return ""
    for line in _CPUINFO.read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in names:
            return value.strip()
    return ""
