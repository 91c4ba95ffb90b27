"""The machine that kernels are made for: vector units, caches, cores, and how to mask them."""

from __future__ import annotations

import functools
import os
import platform
from dataclasses import dataclass, replace
from pathlib import Path

from adlik_kernels.errors import KernelError
from adlik_kernels.machine.amx import found_features, without_refused

LEVELS = ("portable", "avx2", "avx512", "amx")
"""Instruction levels in rising order; each contains the ones before it."""

_NEEDED = {
    "avx2": {"avx2", "fma", "f16c"},
    "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"},
    "amx": {"amx-tile", "amx-int8", "amx-bf16"},
}

# Beginnings of the features that go when a level is hidden: LLVM would let any of them bring it
# back.
_FAMILIES = {
    "avx2": ("avx", "fma", "f16c", "vaes", "vpclmul", "xop"),
    "avx512": ("avx512", "avx10"),
    "avx512_vnni": ("avx512vnni", "avxvnni"),
    "avx512_bf16": ("avx512bf16", "avx512fp16", "avxneconvert"),
    "amx": ("amx",),
}

CAPS = ("portable", *_FAMILIES)
"""What a process may be capped at, in rising order: `LEVELS`, and products of short numbers."""

CAP_VARIABLE = "ADLIK_CPU_LEVEL"
"""The environment variable that caps a process and its children; services document it."""


@dataclass(frozen=True, slots=True)
class Target:
    """What kernels may use of a machine.

    Attributes:
        cpu: LLVM's name of the processor, such as "znver4".
        features: Names of the instruction sets that may be used, as LLVM spells them.
        level: The highest of `LEVELS` that the features contain.
        cores: Cores that this process may run on.
        l1_bytes: Level 1 data cache of one core, in bytes.
        l2_bytes: Level 2 cache of one core, in bytes.
        l3_bytes: Level 3 cache that the cores share, in bytes.
    """

    cpu: str
    features: frozenset[str]
    level: str
    cores: int
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int

    @property
    def lanes(self) -> int:
        """32-bit lanes of one vector register."""
        return {"portable": 4, "avx2": 8}.get(self.level, 16)

    @property
    def registers(self) -> int:
        """Vector registers that a micro-kernel may keep values in."""
        return 32 if self.lanes == 16 else 16

    @property
    def key(self) -> str:
        """A short name under which measurements on this machine are kept: processor and level."""
        return f"{self.cpu}-{self.level}"

    def masked_to(self, level: str) -> Target:
        """Returns this machine as if it had no more than the given instruction level.

        Args:
            level: One of `LEVELS`.

        Raises:
            KernelError: The level is unknown or above what this machine has.
        """
        if level not in LEVELS:
            raise KernelError(f"There is no level {level!r}.", cure=f"Use one of {LEVELS}.")
        if LEVELS.index(level) > LEVELS.index(self.level):
            raise KernelError(
                f"This machine has no {level}: its level is {self.level}.",
                cure="Mask to a lower level, or run on another machine.",
            )
        if level == self.level:
            return self
        kept = _without(self.features, LEVELS[LEVELS.index(level) + 1 :])
        return replace(self, features=kept, level=level)


def capped(found: Target, cap: str) -> Target:
    """Returns a machine as if its processor were an older one.

    Finer than `masked_to`: a processor of level "avx512" may have the products of short numbers
    (VNNI, BF16) or not.

    Args:
        found: The machine.
        cap: One of `CAPS`.

    Raises:
        KernelError: The cap is unknown or above what the machine has.
    """
    if cap not in CAPS:
        raise KernelError(f"There is no instruction set {cap!r}.", cure=f"Use one of {CAPS}.")
    if CAPS.index(cap) > CAPS.index(most_of(found.features)):
        raise KernelError(
            f"This machine has no {cap}: it has {most_of(found.features)}.",
            cure=f"Set {CAP_VARIABLE} to less, or run on another machine.",
        )
    kept = _without(found.features, CAPS[CAPS.index(cap) + 1 :])
    return replace(found, features=kept, level=level_of(kept))


def most_of(features: frozenset[str]) -> str:
    """Returns the highest of `CAPS` that a processor's features contain."""
    return next(cap for cap in reversed(CAPS) if _has(cap, features))


def _has(cap: str, features: frozenset[str]) -> bool:
    if cap in LEVELS:
        return LEVELS.index(cap) <= LEVELS.index(level_of(features))
    return _has("avx512", features) and cap.replace("_", "") in features


def _without(features: frozenset[str], above: tuple[str, ...]) -> frozenset[str]:
    hidden = tuple(beginning for name in above for beginning in _FAMILIES[name])
    return frozenset(name for name in features if not name.startswith(hidden))


def level_of(features: frozenset[str]) -> str:
    """Returns the highest instruction level whose features, and those below it, are all there."""
    level = "portable"
    for name in LEVELS[1:]:
        if not _NEEDED[name] <= features:
            break
        level = name
    return level


@functools.cache
def host() -> Target:
    """Returns the machine that this process runs on, capped if `CAP_VARIABLE` says so.

    Raises:
        KernelError: The cap is unknown or above what the machine has.
    """
    found = uncapped()
    # The library stands alone, without the services' settings, and children must inherit the cap.
    cap = os.environ.get(CAP_VARIABLE, "")  # noqa: TID251
    return capped(found, cap) if cap else found


def uncapped() -> Target:
    """Returns the machine with all that it has.

    Features above the level go: half of AVX-512 is of no use, and a template might choose by it.
    """
    import llvmlite.binding as llvm

    features = without_refused(found_features())
    level = level_of(features)
    l1, l2, l3 = (_cache_bytes(level) for level in (1, 2, 3))
    return Target(
        cpu=llvm.get_host_cpu_name(),
        features=_without(features, LEVELS[LEVELS.index(level) + 1 :]),
        level=level,
        cores=cores(),
        l1_bytes=l1 or 32 << 10,
        l2_bytes=l2 or 512 << 10,
        l3_bytes=l3 or 4 << 20,
    )


def cores() -> int:
    """Returns the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def machine() -> str:
    """Returns the processor's own name, for reports."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cache_bytes(level: int, cpu: int = 0) -> int:
    """Reads the size of a data or unified cache from Linux' sysfs; 0 where it is not told."""
    for entry in sorted(Path(f"/sys/devices/system/cpu/cpu{cpu}/cache").glob("index*")):
        try:
            if int((entry / "level").read_text()) != level:
                continue
            if (entry / "type").read_text().strip() == "Instruction":
                continue
            return int((entry / "size").read_text().strip().removesuffix("K")) * 1024
        except (OSError, ValueError):
            continue
    return 0
