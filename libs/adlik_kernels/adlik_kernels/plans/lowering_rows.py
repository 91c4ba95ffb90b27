"""From the operators of sequences to kernels: attention and layer normalisation."""

from __future__ import annotations

import struct

from adlik_kernels.operators.attention import MOST_DEPTH, attention_kernel
from adlik_kernels.operators.attention import WORTH_SHARING as ATTENTION_WORTH_SHARING
from adlik_kernels.operators.rows import WORTH_SHARING, layernorm_kernel
from adlik_kernels.plans.graph import BATCH, Operator, UnsupportedGraph
from adlik_kernels.plans.steps import Lowering, Step
from adlik_kernels.templates import attention as places
from adlik_kernels.templates import layernorm
from adlik_kernels.templates.attention import Attention
from adlik_kernels.templates.layernorm import LayerNorm


def lower_norm(plan: Lowering, operator: Operator) -> Step:
    """Returns the kernel of a layer normalisation."""
    assert operator.w is not None
    assert operator.bias is not None
    columns = operator.w.shape[0]
    rows = plan.rows(operator.output)
    return Step(
        kernel=layernorm_kernel(LayerNorm(columns, operator.epsilon), plan.target),
        values={layernorm.IN: operator.inputs[0], layernorm.OUT: operator.output},
        fixed={layernorm.SCALE: operator.w, layernorm.BIAS: operator.bias},
        counts={layernorm.ROWS: rows},
        rows=rows,
        work=columns,
        threshold=WORTH_SHARING,
    )


def lower_attention(plan: Lowering, operator: Operator) -> Step:
    """Returns the kernel of an attention; queries, keys and values are read where they lie.

    Raises:
        UnsupportedGraph: Heads are deeper than the kernel's scratch.
    """
    queries, keys, values, *masks = operator.inputs
    columns = plan.value(queries).columns
    depth = columns // operator.heads
    if depth > MOST_DEPTH:
        raise UnsupportedGraph(f"A plan knows no attention with heads of {depth} numbers.")
    tokens, held = plan.value(queries).shape[0], plan.value(keys).shape[0]
    row = (4 * columns,)
    bits = struct.unpack("<I", struct.pack("<f", operator.scale))[0]
    return Step(
        kernel=attention_kernel(Attention(depth, "keys" if masks else ""), plan.target),
        values={
            places.Q: queries,
            places.K: keys,
            places.V: values,
            places.OUT: operator.output,
            places.MASK: masks[0] if masks else "",
        },
        fixed={},
        counts={
            places.BATCH: (BATCH,),
            places.TOKENS: (tokens,),
            places.KEYS: (held,),
            **dict.fromkeys((places.Q_ROW, places.K_ROW, places.V_ROW, places.OUT_ROW), row),
            **dict.fromkeys((places.Q_BATCH, places.OUT_BATCH), (*row, tokens)),
            **dict.fromkeys((places.K_BATCH, places.V_BATCH), (*row, held)),
            places.MASK_BATCH: (4, held),
        },
        rows=(BATCH, tokens, held),
        work=4 * columns,
        threshold=ATTENTION_WORTH_SHARING,
        words={places.SCALE: bits, places.HEADS: operator.heads},
    )
