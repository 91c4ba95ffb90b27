"""One processor of every kind, whatever this one is: what is chosen and written for each of them.

Code for them is compiled here, and run only where this machine has what it needs.
"""

from adlik_kernels.machine.target import Target

_OLDEST = {"64bit", "cmov", "cx8", "fxsr", "mmx", "sse", "sse2"}
_SSE = {"sse3", "ssse3", "sse4.1", "sse4.2", "popcnt"}
_AVX2 = _OLDEST | _SSE | {"avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt"}
_AVX512 = _AVX2 | {"avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl"}
_SHORT = _AVX512 | {"avx512vnni", "avx512bf16"}
_TILES = {"amx-tile", "amx-int8", "amx-bf16"}


def _machine(cpu, features, level, l1_kib=32, l2_kib=1024):
    return Target(cpu, frozenset(features), level, 2, l1_kib << 10, l2_kib << 10, 32 << 20)


MACHINES = {
    "portable": _machine("x86-64", _OLDEST, "portable", l2_kib=256),
    "avx2": _machine("znver3", _AVX2, "avx2", l2_kib=512),
    "avx512": _machine("skylake-avx512", _AVX512, "avx512"),
    "avx512_vnni": _machine("cascadelake", _AVX512 | {"avx512vnni"}, "avx512"),
    "avx512_bf16": _machine("znver4", _SHORT, "avx512"),
    "amx": _machine("sapphirerapids", _SHORT | _TILES, "amx", 48, 2048),
}
"""By the highest of `target.CAPS` that each has."""
