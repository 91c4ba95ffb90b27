"""Hot operators for CPUs, made for the machine they run on, and the tuner that finds schedules.

from adlik_kernels import dense, prepare_dense

y = dense(x, w, bias, activation="relu")
layer = prepare_dense(w, bias, activation="relu", rows=(1, 8))
y = layer(x)
"""

from __future__ import annotations

from adlik_kernels.configuration import Configuration, configure, configured
from adlik_kernels.errors import (
    BuildFailed,
    InvalidOperand,
    InvalidRecord,
    InvalidSchedule,
    KernelError,
    MeasureFailed,
)
from adlik_kernels.operators.attention import attention
from adlik_kernels.operators.batches import gather, scatter
from adlik_kernels.operators.boxes import Detections, detect, suppress
from adlik_kernels.operators.conv import PreparedConv2d, prepare_conv2d, prepare_conv2d_int8
from adlik_kernels.operators.dense import (
    PreparedDense,
    dense,
    prepare_dense,
    prepare_dense_int8,
)
from adlik_kernels.operators.depthwise import (
    PreparedDepthwise,
    PreparedDepthwiseInt8,
    prepare_depthwise,
    prepare_depthwise_int8,
)
from adlik_kernels.operators.elementwise import add, apply_activation, multiply
from adlik_kernels.operators.embedding import embedding, embedding_bag
from adlik_kernels.operators.ends import Quantization
from adlik_kernels.operators.images import ImageInput, Placement, stack
from adlik_kernels.operators.layouts import (
    dequantize_to_channels_first,
    from_blocked,
    quantize_to_channels_last,
    to_blocked,
    to_channels_first,
    to_channels_last,
    transpose,
)
from adlik_kernels.operators.pooling import average_pool, global_average_pool, max_pool
from adlik_kernels.operators.quantized import (
    Levels,
    add_quantized,
    dequantize,
    look_up,
    quantize,
)
from adlik_kernels.operators.ranking import softmax_top_k
from adlik_kernels.operators.rows import layer_norm, softmax
from adlik_kernels.operators.transposed import PreparedTransposed, prepare_conv2d_transposed
from adlik_kernels.operators.winograd import PreparedWinograd, prepare_winograd
from adlik_kernels.plans.costs import merge_costs
from adlik_kernels.plans.export import export_plan
from adlik_kernels.plans.graph import UnsupportedGraph
from adlik_kernels.plans.model import Model, load_model, measure_model
from adlik_kernels.plans.plan import Plan, load_plan
from adlik_kernels.schedules.registry import merge_records

__all__ = [
    "BuildFailed",
    "Configuration",
    "Detections",
    "ImageInput",
    "InvalidOperand",
    "InvalidRecord",
    "InvalidSchedule",
    "KernelError",
    "Levels",
    "MeasureFailed",
    "Model",
    "Placement",
    "Plan",
    "PreparedConv2d",
    "PreparedDense",
    "PreparedDepthwise",
    "PreparedDepthwiseInt8",
    "PreparedTransposed",
    "PreparedWinograd",
    "Quantization",
    "UnsupportedGraph",
    "add",
    "add_quantized",
    "apply_activation",
    "attention",
    "average_pool",
    "configure",
    "configured",
    "dense",
    "dequantize",
    "dequantize_to_channels_first",
    "detect",
    "embedding",
    "embedding_bag",
    "export_plan",
    "from_blocked",
    "gather",
    "global_average_pool",
    "layer_norm",
    "load_model",
    "load_plan",
    "look_up",
    "max_pool",
    "measure_model",
    "merge_costs",
    "merge_records",
    "multiply",
    "prepare_conv2d",
    "prepare_conv2d_int8",
    "prepare_conv2d_transposed",
    "prepare_dense",
    "prepare_dense_int8",
    "prepare_depthwise",
    "prepare_depthwise_int8",
    "prepare_winograd",
    "quantize",
    "quantize_to_channels_last",
    "scatter",
    "softmax",
    "softmax_top_k",
    "stack",
    "suppress",
    "to_blocked",
    "to_channels_first",
    "to_channels_last",
    "transpose",
]
