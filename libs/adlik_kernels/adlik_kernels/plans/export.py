"""A plan as one shared library with a C header: it runs with no Python, on CPUs of its kind.

The library is thread-safe: all memory that changes is the caller's. See the header that is written
beside it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from adlik_kernels import configuration
from adlik_kernels.codegen.tiles import EMULATED, uses_tiles
from adlik_kernels.errors import BuildFailed
from adlik_kernels.machine.amx import ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA
from adlik_kernels.machine.target import Target
from adlik_kernels.plans.graph import BATCH, TOKENS
from adlik_kernels.plans.plan import WORDS, Plan, scratch_name
from adlik_kernels.plans.steps import IN, OUT, Step, product

_ALIGNED = 64

_HEADER = """\
/* {name}: a model compiled by Adlik for {target}. Batch {batch}.
 *
 *     float input[{upper}_INPUT], output[{upper}_OUTPUT];
 *     void *arena = aligned_alloc({aligned}, {upper}_ARENA);
 *     {name}_prepare(arena);                     // once for each arena
 *     if ({name}_run(arena, input, output)) ...  // non-zero: this CPU lacks what the code needs,
 *                                                // or the system forbids its use
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
{declarations}
{permission}
void {name}_prepare(void *arena) {{
  memset(arena, 0, {upper}_ARENA);
{levels}
{permit}
}}
int {name}_run(void *arena, const float *input, float *output) {{
  char *a = arena;
  const char *w = {name}_weights;
  if (!({supported})) return 1;
{calls}
  return 0;
}}
"""

_PERMISSION = f"""\
#include <unistd.h>
static int permitted;  /* of the process and all its threads */
static void permit(void) {{
  int refused = syscall({ARCH_PRCTL}L, {REQUEST_PERMISSION}L, {TILE_DATA}L) != 0;
  __atomic_store_n(&permitted, !refused, __ATOMIC_RELAXED);
}}
"""
"""Asks for the use of AMX, whose first instruction would end the process otherwise."""

_NEEDS = {
    "portable": (),
    "avx2": ("avx2", "fma"),
    "avx512": ("avx512f", "avx512bw", "avx512dq", "avx512vl"),
    "amx": ("amx-tile", "amx-int8"),
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
        BuildFailed: The name is none in C, there is no C compiler, or it fails; or the model has
            several inputs or outputs, or sequences of open length.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,40}", name):
        raise BuildFailed(f"{name!r} cannot begin names in C.", cure="Use small letters and _.")
    graph = plan.graph
    is_open = any(TOKENS in graph.values[given].shape for given in graph.inputs)
    is_computed = all(n not in graph.inputs and not graph.values[n].levels for n in graph.outputs)
    if len(graph.inputs) != 1 or len(graph.outputs) != 1 or is_open or not is_computed:
        raise BuildFailed(
            "Only models that compute one output of floats of one input, of known sizes, can be "
            "exported.",
            cure="Export the model with fixed sizes and one output.",
        )
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
        steps = plan.steps({BATCH: batch})
        objects = {step.kernel.symbol: step.kernel.code for step in steps}
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
    sizes = {BATCH: batch}
    places, total = plan.arena(sizes)
    pool = _Weights()
    steps = plan.steps(sizes)
    where = dict.fromkeys(_both(IN, plan.graph.inputs), "input")
    where |= dict.fromkeys(_both(OUT, plan.graph.outputs), "output")
    where |= {value: f"a + {start}" for value, start in places.items()}
    calls = "\n".join(_call(n, step, where, pool, batch) for n, step in enumerate(steps))
    symbols = dict.fromkeys(step.kernel.symbol for step in steps)
    shapes = (batch, *plan.input_shape), (batch, *plan.output_shape)
    facts: dict[str, Any] = {
        "name": name,
        "upper": name.upper(),
        "target": target.key,
        "batch": batch,
        "aligned": _ALIGNED,
        "input": list(shapes[0]),
        "output": list(shapes[1]),
        "inputs": product(shapes[0], {}),
        "outputs": product(shapes[1], {}),
        "arena": -(-total // _ALIGNED) * _ALIGNED,
        "levels": "\n".join(
            f"  memset((char *)arena + {start}, {level}, {stop - start});"
            for start, stop, level in plan.levels(sizes)
        ),
        "weights": weights,
        "calls": calls,
        "declarations": "\n".join(
            f"void {symbol}(int64_t, int64_t, const int64_t *);" for symbol in symbols
        ),
        "permission": _PERMISSION if _has_tiles(plan, target) else "",
        "permit": "  permit();" if _has_tiles(plan, target) else "",
        "supported": _supported(plan, target),
    }
    return _HEADER.format(**facts), _SOURCE.format(**facts), bytes(pool.content)


def _supported(plan: Plan, target: Target) -> str:
    """A condition in C: whether the CPU has what the code needs, and the system permits it."""
    features = _NEEDS["avx512" if target.level == "amx" else target.level]
    if _has_levels(plan):
        features += tuple(sorted({"avx512vnni"} & target.features))
    conditions = []
    if _has_tiles(plan, target):
        features += _NEEDS["amx"]
        conditions = ["__atomic_load_n(&permitted, __ATOMIC_RELAXED)"]
    conditions += [f'__builtin_cpu_supports("{feature}")' for feature in features]
    return " && ".join(conditions) or "1"


def _has_levels(plan: Plan) -> bool:
    """Whether some products are of int8; all others are of float32."""
    return any(operator.w_scale is not None for operator in plan.graph.operators)


def _has_tiles(plan: Plan, target: Target) -> bool:
    """Whether the code has instructions of AMX: they are for products of int8 alone."""
    return _has_levels(plan) and uses_tiles("int8", target) and EMULATED not in target.features


def _both(beginning: str, names: Sequence[str]) -> list[str]:
    """Names of callers' arrays, as models see them and as operators do."""
    return [*names, *(beginning + name for name in names)]


def _call(number: int, step: Step, where: dict[str, str], pool: _Weights, batch: int) -> str:
    words = ["0"] * WORDS
    for place, value in step.values.items():
        words[place] = f"(int64_t)({where[value]})" if value else "0"
    for place, weights in step.fixed.items():
        words[place] = f"(int64_t)(w + {pool.add(weights)})"
    for place, parts in step.counts.items():
        words[place] = str(product(parts, {BATCH: batch}))
    for place, word in step.words.items():
        words[place] = str(word)
    for place in step.scratch:
        words[place] = f"(int64_t)({where[scratch_name(number)]})"
    listed = ", ".join(words)
    return f"  {{ const int64_t k[{WORDS}] = {{{listed}}}; {step.kernel.symbol}(0, 1, k); }}"


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
