"""TVM MetaSchedule on one matrix product for so many seconds; it runs in an environment of its own.

    make .venv-tvm/ready
    .venv-tvm/bin/python -m benchmarks.tvm_peer 64 1024 1024 --threads 1 --seconds 300 --cpu znver4

TVM has no limit of time, so it is asked for one round of trials after the other; records and cost
model live on from round to round.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time

import numpy as np

ROUND = 16
"""Trials between two looks at the clock."""

SPACING = 0.004
"""Seconds of one burst of calls; the shortest call of many bursts counts."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sizes", type=int, nargs=3, help="rows, columns, depth")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--cpu", required=True, help="LLVM's name of the processor")
    options = parser.parse_args()
    os.environ["TVM_NUM_THREADS"] = str(options.threads)  # noqa: TID251 # TVM reads nothing else

    import tvm
    import tvm.s_tir.tensor_intrin  # takes half a minute, which is not counted
    from tvm.s_tir import meta_schedule

    product = tvm.IRModule({"main": primitive(*options.sizes)})
    goal = tvm.target.Target(
        {"kind": "llvm", "mcpu": options.cpu, "num-cores": options.threads},
    )
    start, trials = time.monotonic(), 0
    database = meta_schedule.database.MemoryDatabase()
    model = meta_schedule.cost_model.CostModel.create("xgb")
    builder = meta_schedule.builder.LocalBuilder(f_build=build)
    while time.monotonic() - start < options.seconds:
        with tempfile.TemporaryDirectory() as folder:
            meta_schedule.tir_integration.tune_tir(
                product,
                goal,
                work_dir=folder,
                max_trials_global=ROUND,
                num_trials_per_iter=ROUND,
                num_tuning_cores=2,
                builder=builder,
                database=database,
                cost_model=model,
                seed=trials,
            )
        trials += ROUND
    elapsed = time.monotonic() - start
    chosen = meta_schedule.tir_integration.compile_tir(database, product, goal)
    name = "x".join(map(str, options.sizes))
    if chosen is None:
        print(f"dense-fp32-{name} tvm: none of {trials} trials was built, {elapsed:.0f} s")
        return
    seconds = shortest(tvm, tvm.compile(chosen.mod, goal), *options.sizes)
    speed = 2 * np.prod([float(size) for size in options.sizes]) / seconds / 1e9
    print(f"dense-fp32-{name} tvm: {speed:.1f} Gop/s after {trials} trials, {elapsed:.0f} s")


def build(module, goal, _parameters):
    """Builds as TVM's own builder does, without the tensor intrinsics that fp32 has no use for.

    Each round starts new workers, and each would import them for longer than a build may take.
    """
    import tvm
    from tvm.s_tir.transform import RemoveWeightLayoutRewriteBlock

    module = RemoveWeightLayoutRewriteBlock(skip_tensor_rewrite=True)(module)
    return tvm.compile(module, goal).mod


def primitive(rows: int, columns: int, depth: int):
    """The product as TVM's tensor expression."""
    from tvm import te

    x = te.placeholder((rows, depth), "float32", name="x")
    w = te.placeholder((depth, columns), "float32", name="w")
    k = te.reduce_axis((0, depth), name="k")
    y = te.compute((rows, columns), lambda i, j: te.sum(x[i, k] * w[k, j], axis=k), name="y")
    return te.create_prim_func([x, w, y]).with_attr("global_symbol", "main")


def shortest(tvm, library, rows: int, columns: int, depth: int) -> float:
    """The shortest of many calls, after a check of the result."""
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s, np.float32) for s in ((rows, depth), (depth, columns)))
    given = [tvm.runtime.tensor(a) for a in (x, w, np.zeros((rows, columns), np.float32))]
    call = library["main"]
    call(*given)
    np.testing.assert_allclose(given[2].numpy(), x @ w, rtol=1e-3, atol=1e-2)
    best = float("inf")
    for _ in range(200):
        end = time.perf_counter() + SPACING
        while time.perf_counter() < end:
            start = time.perf_counter()
            call(*given)
            best = min(best, time.perf_counter() - start)
    return best


if __name__ == "__main__":
    main()
