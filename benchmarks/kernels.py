"""How fast the kernels are beside numpy, MKL, oneDNN, OpenVINO and OpenCV where they are installed.

    python -m benchmarks.kernels dense            # fp32, the 18 shapes of ResNet-50 and its like
    python -m benchmarks.kernels int8 bf16 images boxes
    python -m benchmarks.kernels rows attention embedding
    python -m benchmarks.kernels dense --threads 1 --seconds 2 --json out.json
    python -m benchmarks.kernels --plot all.svg   # ratios to the best peer, parts of the peak

Every case runs all contenders in turns for a fixed time, in a process of its own for each number of
threads. A turn's time is its shortest call; printed is the median of the turns, and in brackets the
shortest of all, which is the one to believe where other work shares the machine.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.kernel_cases.around import box_cases, image_cases
from benchmarks.kernel_cases.convolutions import conv_cases, conv_int8_cases
from benchmarks.kernel_cases.depthwise import depthwise_cases, depthwise_int8_cases
from benchmarks.kernel_cases.layouts import layout_cases, pooling_cases, quantize_cases
from benchmarks.kernel_cases.levels import GROUPS as AMX_GROUPS
from benchmarks.kernel_cases.levels import amx_line
from benchmarks.kernel_cases.models import model_cases, model_int8_cases
from benchmarks.kernel_cases.plots import ratios
from benchmarks.kernel_cases.products import bf16_cases, dense_cases, int8_cases
from benchmarks.kernel_cases.rows import attention_cases, embedding_cases, row_cases
from benchmarks.kernel_cases.timing import REST, Case, measure
from benchmarks.kernel_cases.transposed import transposed_cases
from benchmarks.kernel_cases.winograd import winograd_cases

GROUPS = {
    "models": model_cases,
    "models-int8": model_int8_cases,
    "dense": dense_cases,
    "int8": int8_cases,
    "bf16": bf16_cases,
    "conv": conv_cases,
    "conv-int8": conv_int8_cases,
    "winograd": winograd_cases,
    "depthwise": depthwise_cases,
    "depthwise-int8": depthwise_int8_cases,
    "transposed": transposed_cases,
    "images": image_cases,
    "boxes": box_cases,
    "rows": row_cases,
    "attention": attention_cases,
    "embedding": embedding_cases,
    "layouts": layout_cases,
    "pooling": pooling_cases,
    "quantize": quantize_cases,
}


OWN = ("adlik", "ours")
"""How the names of our own contenders begin; all others are peers."""


def run_group(group: str, threads: int, seconds: float) -> list[dict[str, object]]:
    from adlik_kernels import configure
    from adlik_kernels.machine.roofline import roofline

    configure(threads=threads)
    try:
        import torch
    except ImportError:
        pass
    else:
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
    limits = roofline(threads)
    rows = []
    for case in GROUPS[group](threads):
        measure(case, seconds, REST if threads > 1 else 0.0)
        peak = limits.operations.get(case.peak, math.nan)
        rows.append({**asdict_plain(case), "peak": peak})
        print(line(case, peak), flush=True)
    peers = [ratio(case, "best") for case in rows if ratio(case, "best")]
    medians = [ratio(case, "median") for case in rows if ratio(case, "median")]
    if peers:
        print(
            f"{group}, {threads} threads: {statistics.geometric_mean(peers):.2f} times the best"
            f" peer (median turns: {statistics.geometric_mean(medians):.2f}),"
            f" from {min(peers):.2f} to {max(peers):.2f}",
            flush=True,
        )
    if group in AMX_GROUPS:
        print(amx_line(), flush=True)
    return rows


def asdict_plain(case: Case) -> dict[str, object]:
    return {
        "name": case.name,
        "operations": case.operations,
        "best": case.best,
        "median": case.median,
    }


def ratio(row: dict[str, object], which: str) -> float:
    times = row[which]
    peers = [seconds for name, seconds in times.items() if not name.startswith(OWN)]
    return min(peers) / times["adlik"] if peers else 0.0


def part_of_peak(row: dict[str, object]) -> float:
    return (row["operations"] or math.nan) / row["best"]["adlik"] / row["peak"]


def line(case: Case, peak: float) -> str:
    """Speeds in Gop/s where the case has operations, else microseconds."""
    parts = []
    for name in case.calls:
        best, median = case.best[name], case.median[name]
        if case.operations:
            speed = case.operations / 1e9
            parts.append(f"{name} {speed / median:.0f} ({speed / best:.0f})")
        else:
            parts.append(f"{name} {median * 1e6:.0f} ({best * 1e6:.0f}) us")
    share = case.operations / case.best["adlik"] / peak if case.operations else math.nan
    share_text = f" | {share:4.0%} of peak" if share == share else ""
    found = ratio(asdict_plain(case), "best")
    return f"{case.name:>16} | {' | '.join(parts)} | x{found:.2f}{share_text}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("groups", nargs="*", default=list(GROUPS), help=", ".join(GROUPS))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=1.0, help="for each case")
    parser.add_argument("--json", help="file that gets all figures")
    parser.add_argument("--plot", type=Path, help="SVG file that gets a picture of all groups")
    parser.add_argument("--inner", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.groups) - GROUPS.keys():
        parser.error(f"no group {', '.join(unknown)}; choose among {', '.join(GROUPS)}")
    if options.inner:
        rows = run_group(options.groups[0], options.threads[0], options.seconds)
        Path(options.json).write_text(json.dumps(rows))
        return
    figures = {}
    for group in options.groups:
        for threads in options.threads:
            figures[f"{group}-{threads}"] = in_process(group, threads, options.seconds)
    if options.json:
        Path(options.json).write_text(json.dumps(figures, indent=1))
    if options.plot:
        options.plot.write_text(ratios({name: drawn(rows) for name, rows in figures.items()}))


def drawn(rows: list[dict[str, object]]) -> list[tuple[str, float, float]]:
    """Each case's ratio to its best peer, 0 without peers, and its part of the peak."""
    return [(row["name"], ratio(row, "best"), part_of_peak(row)) for row in rows]


def in_process(group: str, threads: int, seconds: float) -> list[dict[str, object]]:
    """Runs one group in a process of its own: libraries read their threads once."""
    environment = dict(os.environ)  # noqa: TID251 # the peers know no other way to be told
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        environment[name] = str(threads)
    # Threads that spin after their own turn would take the cores from the next contender.
    environment.update(OMP_WAIT_POLICY="PASSIVE", KMP_BLOCKTIME="0")
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [
            sys.executable,
            "-m",
            "benchmarks.kernels",
            group,
            "--inner",
            "--threads",
            str(threads),
        ]
        command += ["--seconds", str(seconds), "--json", file.name]
        subprocess.run(command, check=True, env=environment)
        return json.load(file)


if __name__ == "__main__":
    main()
