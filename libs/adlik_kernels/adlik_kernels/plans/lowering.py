"""From operators to kernels: which code runs, on what, and who shares it.

A new operator is a function here, or in a module beside, and a line in `MAKERS`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from adlik_kernels.machine.pool import shared
from adlik_kernels.operators.conv import along_k, conv2d_kernel
from adlik_kernels.operators.dense import FEW_ROWS, ROW_WORTH_SHARING, WORTH_SHARING, dense_kernel
from adlik_kernels.operators.packing import pack_groups, pack_weights, pad_columns
from adlik_kernels.operators.winograd import pack_winograd, scratch_bytes, winograd_kernel
from adlik_kernels.plans.ends import end_of, residual_dtype
from adlik_kernels.plans.graph import BATCH, TOKENS, Operator, UnsupportedGraph
from adlik_kernels.plans.lowering_filters import lower_depthwise, lower_transposed
from adlik_kernels.plans.lowering_rows import lower_attention, lower_norm
from adlik_kernels.plans.lowering_small import (
    is_input_levels,
    lower_input,
    lower_output,
    lower_small,
)
from adlik_kernels.plans.steps import Lowering, Step, product, residual_of
from adlik_kernels.plans.ways import WINOGRAD
from adlik_kernels.schedules.registry import choose
from adlik_kernels.schedules.winograd import winograd_default
from adlik_kernels.workload import Conv2d, Dense

MANY_ROWS = 64
"""A product of many rows is computed as one of so many would be."""


def lower(plan: Lowering) -> list[Step]:
    """Returns the kernels of a model, in order.

    Raises:
        UnsupportedGraph: An operator has no kernel for what it is asked.
    """
    graph = plan.graph
    steps = [lower_input(plan, n) for n in graph.inputs if graph.values[n].is_picture]
    steps += [
        MAKERS[operator.kind](plan, operator)
        for operator in graph.operators
        if not is_input_levels(plan, operator)
    ]
    made = [name for name in graph.outputs if name not in graph.inputs]
    pictures = (name for name in made if graph.values[name].is_picture)
    steps += [lower_output(plan, name) for name in dict.fromkeys(pictures)]
    return steps


def _conv(plan: Lowering, operator: Operator) -> Step:
    assert operator.w is not None
    workload = _conv_workload(plan, operator)
    if operator.algorithm.startswith(WINOGRAD):
        return _winograd(plan, operator, workload)
    schedule = choose(workload, plan.target, plan.threads).schedule
    turned = along_k(operator.w, workload.in_layout)
    width = schedule.vectors * plan.target.lanes
    packed = pack_groups(turned, width, workload.dtype, workload.groups)
    return Step(
        kernel=conv2d_kernel(workload, schedule, plan.target),
        values={0: operator.inputs[0], 2: operator.output, 4: residual_of(operator)},
        fixed={1: packed, **end_of(plan, operator, turned)},
        counts={7: (BATCH,)},
        rows=(BATCH,),
        work=workload.operations,
        threshold=WORTH_SHARING,
    )


def _winograd(plan: Lowering, operator: Operator, workload: Conv2d) -> Step:
    assert operator.w is not None
    results = int(operator.algorithm.removeprefix(WINOGRAD))
    schedule = winograd_default(workload, results, plan.target, plan.threads)
    bias = pad_columns(0.0 if operator.bias is None else operator.bias, workload.filters)
    chunks = shared(plan.threads).chunks
    return Step(
        kernel=winograd_kernel(workload, schedule, plan.target),
        values={0: operator.inputs[0], 2: operator.output, 4: residual_of(operator)},
        fixed={1: pack_winograd(operator.w, schedule, plan.target), 3: bias},
        counts={7: (BATCH,)},
        rows=(BATCH,),
        work=workload.operations,
        threshold=WORTH_SHARING,
        scratch={5: scratch_bytes(workload, schedule, plan.target) * chunks},
    )


def _conv_workload(plan: Lowering, operator: Operator) -> Conv2d:
    given, made = plan.grids[operator.inputs[0]], plan.grids[operator.output]
    residual = residual_of(operator)
    is_int8 = operator.w_scale is not None
    return Conv2d(
        height=given.height,
        width=given.width,
        channels=given.channels,
        filters=made.channels,
        kernel=operator.window,
        stride=operator.stride,
        padding=operator.padding,
        border=(given.border, given.border),
        out_border=made.border,
        residual_border=plan.grids[residual].border if residual else 0,
        dtype="int8" if is_int8 else "fp32",
        output="uint8" if plan.value(operator.output).levels else "float32",
        bias=is_int8 or operator.bias is not None,
        residual=bool(residual),
        activation=operator.activation,
        residual_dtype=residual_dtype(plan, operator),
        rounded=operator.rounded is not None,
        dilation=operator.dilation,
        groups=operator.groups,
        in_layout=plan.value(operator.inputs[0]).layout,
        out_layout=plan.value(operator.output).layout,
    )


def _dense(plan: Lowering, operator: Operator) -> Step:
    """A kernel for the rows there are, or one for many, with others for one row and for few."""
    assert operator.w is not None
    if plan.grids[operator.inputs[0]].border:
        raise UnsupportedGraph("A plan cannot flatten a picture that a convolution pads.")
    packed: dict[int, NDArray[np.uint32]] = {}
    rows = plan.rows(operator.output)
    if plan.graph.batch and TOKENS not in rows:
        known = product(rows, {BATCH: plan.graph.batch})
        return _product(plan, operator, (known, known), packed)
    pairs = ((0, MANY_ROWS), (0, FEW_ROWS // 2), (1, 1))
    many, few, one = (_product(plan, operator, pair, packed) for pair in pairs)
    many.few.update({1: one, FEW_ROWS - 1: few})
    return many


def _product(
    plan: Lowering,
    operator: Operator,
    rows_like: tuple[int, int],
    packed: dict[int, NDArray[np.uint32]],
) -> Step:
    """A product of so many rows, 0 for any, with the schedule of a product of so many.

    Weights that are packed already, by the width of a panel, are shared.
    """
    assert operator.w is not None
    is_int8 = operator.w_scale is not None
    residual = residual_of(operator)
    depth, columns = operator.w.shape
    known, like = rows_like
    workload = Dense(
        rows=known,
        columns=columns,
        depth=depth,
        dtype="int8" if is_int8 else "fp32",
        output="uint8" if plan.value(operator.output).levels else "float32",
        bias=is_int8 or operator.bias is not None,
        residual=bool(residual),
        activation=operator.activation,
        residual_dtype=residual_dtype(plan, operator),
        rounded=operator.rounded is not None,
    )
    schedule = choose(workload.for_rows(like), plan.target, plan.threads).schedule
    width = schedule.vectors * plan.target.lanes
    if width not in packed:
        packed[width] = pack_weights(operator.w, width, workload.dtype)
    rows = plan.rows(operator.output)
    return Step(
        kernel=dense_kernel(workload, schedule, plan.target),
        values={0: operator.inputs[0], 2: operator.output, 4: residual},
        fixed={1: packed[width], **end_of(plan, operator, operator.w)},
        counts={7: rows},
        rows=rows,
        work=workload.for_rows(1).operations,
        threshold=ROW_WORTH_SHARING if like == 1 else WORTH_SHARING,
    )


MAKERS: dict[str, Callable[[Lowering, Operator], Step]] = {
    "attention": lower_attention,
    "conv": _conv,
    "dense": _dense,
    "depthwise": lower_depthwise,
    "dequantize": lower_small,
    "map": lower_small,
    "max": lower_small,
    "mean": lower_small,
    "norm": lower_norm,
    "quantize": lower_small,
    "reorder": lower_small,
    "scale": lower_small,
    "softmax": lower_small,
    "sum": lower_small,
    "transposed": lower_transposed,
}
"""What makes the kernel of an operator, by its kind."""
