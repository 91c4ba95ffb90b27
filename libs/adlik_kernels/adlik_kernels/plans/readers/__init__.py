"""What reads each kind of ONNX node; a new operator is a function and a line here."""

from __future__ import annotations

from collections.abc import Callable

from adlik_kernels.plans.graph import Node
from adlik_kernels.plans.reader import REALIZERS, Reader
from adlik_kernels.plans.readers import (
    activations,
    attention,
    joints,
    levels,
    normalization,
    pictures,
    products,
    sizes,
)

READERS: dict[str, Callable[[Reader, Node], None]] = {
    "Add": joints.add,
    "AveragePool": pictures.pool,
    "BatchNormalization": pictures.batch_norm,
    "Cast": sizes.cast,
    "Clip": activations.clip,
    "Concat": sizes.concat,
    "Constant": sizes.constant,
    "Conv": pictures.conv,
    "ConvTranspose": pictures.conv_transposed,
    "DequantizeLinear": levels.dequantize,
    "Div": joints.divide,
    "Dropout": sizes.same,
    "Erf": activations.erf,
    "Flatten": sizes.flatten,
    "Gather": sizes.gather,
    "Gelu": activations.gelu,
    "Gemm": products.gemm,
    "GlobalAveragePool": pictures.global_pool,
    "HardSwish": activations.plain,
    "Identity": sizes.same,
    "LayerNormalization": normalization.layer_norm,
    "MatMul": products.matmul,
    "MaxPool": pictures.pool,
    "Mul": joints.multiply,
    "Pow": normalization.power,
    "QuantizeLinear": levels.quantize,
    "ReduceMean": pictures.reduce_mean,
    "Relu": activations.plain,
    "Reshape": sizes.reshape,
    "Shape": sizes.shape,
    "Sigmoid": activations.plain,
    "Slice": sizes.slice_sizes,
    "Softmax": attention.softmax,
    "Sqrt": normalization.root,
    "Squeeze": sizes.squeeze,
    "Sub": normalization.subtract,
    "Tanh": activations.plain,
    "Transpose": attention.transpose,
    "Unsqueeze": sizes.unsqueeze,
}
"""Readers by the kind of node."""

REALIZERS.update(levels.REALIZERS)

__all__ = ["READERS"]
