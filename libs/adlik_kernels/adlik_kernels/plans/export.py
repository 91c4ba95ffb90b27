"""A plan as one shared library with a C header: it runs with no Python, on CPUs of its kind.

The library is thread-safe: all memory that changes is the caller's. See the header that is written
beside it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adlik_kernels import configuration
from adlik_kernels.errors import BuildFailed
from adlik_kernels.plans.plan import Plan, Step

_ALIGNED = 64

_HEADER = """\
/* {name}: a model compiled by Adlik for {target}. Batch {batch}.
 *
 *     float input[{upper}_INPUT], output[{upper}_OUTPUT];
 *     void *arena = aligned_alloc({aligned}, {upper}_ARENA);
 *     {name}_prepare(arena);                     // once for each arena
 *     if ({name}_run(arena, input, output)) ...  // non-zero: this CPU lacks what the code needs
 *
 * Input: {input}, output: {output}, float32 in row-major order. Threads need an arena each.
 */
#ifndef ADLIK_{upper}_H
#define ADLIK_{upper}_H
#ifdef __cplusplus
extern "C" {{
#endif
#define {upper}_INPUT {inputs}
#define {upper}_OUTPUT {outputs}
#define {upper}_ARENA {arena}
void {name}_prepare(void *arena);
int {name}_run(void *arena, const float *input, float *output);
#ifdef __cplusplus
}}
#endif
#endif
"""

_SOURCE = """\
#include <stdint.h>
#include <string.h>
#include "{name}.h"
__asm__(".section .rodata\\n.balign {aligned}\\n{name}_weights:\\n"
        ".incbin \\"{weights}\\"\\n.previous");
extern const char {name}_weights[] __attribute__((visibility("hidden")));
{declarations} void {name}_prepare(void *arena) {{
memset(arena, 0, {upper}_ARENA); }} int {name}_run(void *arena, const float *input, float *output)
{{
  char *a = arena;
  const char *w = {name}_weights;
  if (!({supported})) return 1;
  memcpy(a + {source}, input, {upper}_INPUT * sizeof(float));
{calls}
  memcpy(output, a + {result}, {upper}_OUTPUT * sizeof(float));
  return 0;
}}
"""

_NEEDS = {
    "portable": (),
    "avx2": ("avx2", "fma"),
    "avx512": ("avx512f", "avx512bw", "avx512dq", "avx512vl"),
}


def export_plan(plan: Plan, folder: Path, name: str, batch: int = 1) -> Path:
    """Writes `lib<name>.so` and `<name>.h` for one batch size.

    Args:
        plan: The model.
        folder: Where to write; it is made if need be.
        name: Begins the names of the functions: letters, digits and _.
        batch: Pictures or rows of one call.

    Returns:
        The library's path.

    Raises:
        BuildFailed: The name is none in C, or there is no C compiler, or it fails.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", name):
        raise BuildFailed(f"{name!r} cannot begin names in C.", cure="Use small letters and _.")
    compiler = shutil.which("cc")
    if compiler is None:
        raise BuildFailed("There is no C compiler.", cure="Install one, such as gcc, as cc.")
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / f"lib{name}.so"
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        header, source, weights = _texts(plan, name, batch, work / "weights.bin")
        for path in (folder / f"{name}.h", work / f"{name}.h"):
            path.write_text(header)
        (work / "plan.c").write_text(source)
        (work / "weights.bin").write_bytes(weights)
        objects = {step.kernel.symbol: step.kernel.code for step in plan.steps(batch)}
        for number, code in enumerate(objects.values()):
            (work / f"{number}.o").write_bytes(code)
        names = [str(work / f"{number}.o") for number in range(len(objects))]
        options = ["-shared", "-fPIC", "-O2", "-fvisibility=default"]
        command = [compiler, *options, "-o", str(library), str(work / "plan.c"), *names, "-lm"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildFailed(f"The C compiler failed: {done.stderr[-2000:]}")
    return library


def _texts(plan: Plan, name: str, batch: int, weights: Path) -> tuple[str, str, bytes]:
    """Header, C source and weights."""
    target = configuration.target()
    places, floats = plan.arena(batch)
    pool = _Weights()
    steps = plan.steps(batch)
    calls = "\n".join(_call(step, places, pool, batch) for step in steps)
    symbols = dict.fromkeys(step.kernel.symbol for step in steps)
    source, result = plan.ends(batch)
    shapes = (batch, *plan.input_shape), (batch, *plan.output_shape)
    facts: dict[str, Any] = {
        "name": name,
        "upper": name.upper(),
        "target": target.key,
        "batch": batch,
        "aligned": _ALIGNED,
        "input": list(shapes[0]),
        "output": list(shapes[1]),
        "inputs": int(np.prod(shapes[0])),
        "outputs": int(np.prod(shapes[1])),
        "arena": -(-4 * floats // _ALIGNED) * _ALIGNED,
        "source": 4 * source,
        "result": 4 * result,
        "weights": weights,
        "calls": calls,
        "declarations": "\n".join(
            f"void {symbol}(int64_t, int64_t, const int64_t *);" for symbol in symbols
        ),
        "supported": " && ".join(
            f'__builtin_cpu_supports("{feature}")' for feature in _NEEDS[_level(target.level)]
        )
        or "1",
    }
    return _HEADER.format(**facts), _SOURCE.format(**facts), bytes(pool.content)


def _level(level: str) -> str:
    """What plans use of an instruction level: they compute in float32."""
    return "avx512" if level == "amx" else level


def _call(step: Step, places: dict[str, int], pool: _Weights, batch: int) -> str:
    words = ["0"] * 8
    for place, value in step.values.items():
        words[place] = f"(int64_t)(a + {4 * places[value]})" if value else "0"
    for place, weights in step.fixed.items():
        words[place] = f"(int64_t)(w + {pool.add(weights)})"
    words[step.batch_place] = str(batch)
    listed = ", ".join(words)
    return f"  {{ const int64_t k[8] = {{{listed}}}; {step.kernel.symbol}(0, 1, k); }}"


class _Weights:
    """Weights one behind the other, each at a cache line."""

    def __init__(self) -> None:
        self.content = bytearray()

    def add(self, weights: NDArray[Any]) -> int:
        """Appends an array and returns where it begins."""
        start = len(self.content)
        self.content += weights.tobytes()
        self.content += bytes(-len(self.content) % _ALIGNED)
        return start
