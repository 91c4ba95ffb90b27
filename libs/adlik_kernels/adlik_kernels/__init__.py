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
from adlik_kernels.operators.ends import Quantization
from adlik_kernels.operators.images import ImageInput, Placement, stack
from adlik_kernels.operators.ranking import softmax_top_k
from adlik_kernels.operators.transposed import PreparedTransposed, prepare_conv2d_transposed
from adlik_kernels.operators.winograd import PreparedWinograd, prepare_winograd
from adlik_kernels.plans.export import export_plan
from adlik_kernels.plans.graph import UnsupportedGraph
from adlik_kernels.plans.plan import Plan, load_plan

__all__ = [
    "BuildFailed",
    "Configuration",
    "Detections",
    "ImageInput",
    "InvalidOperand",
    "InvalidRecord",
    "InvalidSchedule",
    "KernelError",
    "MeasureFailed",
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
    "configure",
    "configured",
    "dense",
    "detect",
    "export_plan",
    "gather",
    "load_plan",
    "prepare_conv2d",
    "prepare_conv2d_int8",
    "prepare_conv2d_transposed",
    "prepare_dense",
    "prepare_dense_int8",
    "prepare_depthwise",
    "prepare_depthwise_int8",
    "prepare_winograd",
    "scatter",
    "softmax_top_k",
    "stack",
    "suppress",
]
