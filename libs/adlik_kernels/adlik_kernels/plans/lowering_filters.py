"""From depthwise and transposed convolutions to kernels."""

from __future__ import annotations

import numpy as np

from adlik_kernels.codegen.build import load
from adlik_kernels.operators.dense import WORTH_SHARING
from adlik_kernels.operators.depthwise import pack_lines
from adlik_kernels.operators.packing import pad_columns
from adlik_kernels.operators.transposed import pack_transposed, transposed_kernel
from adlik_kernels.plans.ends import end_of
from adlik_kernels.plans.graph import BATCH, Operator
from adlik_kernels.plans.steps import Lowering, Step, transposed_of
from adlik_kernels.templates import depthwise_int8 as places
from adlik_kernels.templates.depthwise import Depthwise, depthwise_module
from adlik_kernels.templates.depthwise_int8 import (
    DepthwiseInt8,
    columns_read,
    depthwise_int8_module,
    most_pixels,
)
from adlik_kernels.templates.transposed import transposed_block


def lower_depthwise(plan: Lowering, operator: Operator) -> Step:
    """Returns the kernel of a depthwise convolution, of numbers or of levels."""
    assert operator.w is not None
    given, made = plan.grids[operator.inputs[0]], plan.grids[operator.output]
    shape = (operator.window, operator.stride, operator.padding[:2])
    sizes = Depthwise(given, made, *shape, operator.activation)
    work = 2 * made.numbers * operator.window[0] * operator.window[1]
    if operator.w_scale is not None:
        return _depthwise_int8(plan, operator, sizes, work)
    target = plan.target
    bias = pad_columns(0.0 if operator.bias is None else operator.bias, made.channels)
    return Step(
        kernel=load("depthwise", sizes, lambda: depthwise_module(sizes, target), target),
        values={0: operator.inputs[0], 1: operator.output},
        fixed={2: np.ascontiguousarray(operator.w[:, 0].transpose(1, 2, 0)), 4: bias},
        counts={3: (BATCH,)},
        rows=(BATCH,),
        work=work,
        threshold=WORTH_SHARING,
    )


def _depthwise_int8(plan: Lowering, operator: Operator, sizes: Depthwise, work: int) -> Step:
    assert operator.w is not None
    levels = plan.value(operator.inputs[0]).levels
    assert levels is not None
    target, made = plan.target, plan.value(operator.output).levels
    workload = DepthwiseInt8(sizes, "uint8" if made else "float32")
    taps = np.ascontiguousarray(operator.w.reshape(len(operator.w), -1).T)
    outside = columns_read(sizes, most_pixels(sizes, target)) * len(operator.w)
    ends = (places.BIAS, places.SCALE, places.LEVELS)
    name = "depthwise_int8"
    return Step(
        kernel=load(name, workload, lambda: depthwise_int8_module(workload, target), target),
        values={places.IN: operator.inputs[0], places.OUT: operator.output},
        fixed={
            places.WEIGHTS: pack_lines(operator.w, sizes, target.lanes),
            places.OUTSIDE: np.resize(np.array(levels.zeros, np.uint8), outside),
            **end_of(plan, operator, taps, ends),
        },
        counts={places.BATCH: (BATCH,)},
        rows=(BATCH,),
        work=work,
        threshold=WORTH_SHARING,
    )


def lower_transposed(plan: Lowering, operator: Operator) -> Step:
    """Returns the kernel of a transposed convolution."""
    assert operator.w is not None
    given, made = plan.grids[operator.inputs[0]], plan.grids[operator.output]
    workload = transposed_of(plan.graph, operator, given.border, made.border)
    block = transposed_block(workload, plan.target, plan.threads)
    bias = pad_columns(0.0 if operator.bias is None else operator.bias, workload.filters)
    packed = pack_transposed(operator.w, workload, block[1] * plan.target.lanes)
    return Step(
        kernel=transposed_kernel(workload, block, plan.target),
        values={0: operator.inputs[0], 2: operator.output},
        fixed={1: packed, 3: bias},
        counts={7: (BATCH,)},
        rows=(BATCH,),
        work=workload.operations,
        threshold=WORTH_SHARING,
    )
