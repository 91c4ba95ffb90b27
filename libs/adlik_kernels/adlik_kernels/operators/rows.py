"""Operators on the rows of an array: layer normalisation and softmax over its last axis."""

from __future__ import annotations

import functools
import struct

import numpy as np
from numpy.typing import NDArray

from adlik_kernels import configuration
from adlik_kernels.codegen.build import Loaded, load
from adlik_kernels.errors import InvalidOperand
from adlik_kernels.machine.pool import shared
from adlik_kernels.machine.target import Target
from adlik_kernels.operators.operands import address, check, output_of
from adlik_kernels.templates.layernorm import LayerNorm, layernorm_module
from adlik_kernels.templates.small import Grid, Softmax, small_module

WORTH_SHARING = 100_000
"""Numbers above which a call is shared among threads."""

_pack_norm = struct.Struct("6q").pack
_pack_softmax = struct.Struct("4q").pack


def layer_norm(
    x: NDArray[np.float32],
    scale: NDArray[np.float32],
    bias: NDArray[np.float32] | None = None,
    epsilon: float = 1e-5,
    *,
    residual: NDArray[np.float32] | None = None,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Returns (t - mean(t)) / sqrt(variance(t) + epsilon) * scale + bias, with t = x + residual.

    Mean and variance are taken over the last axis, the mean first (Ba, Kiros and Hinton, 2016).

    Args:
        x: float32 [..., columns], contiguous.
        scale: float32 [columns].
        bias: float32 [columns].
        epsilon: What is added to the variance; not below 0.
        residual: float32, shaped like x; added to it before.
        out: Where to write, float32, shaped like x; it must not share memory with an input.

    Raises:
        InvalidOperand: An array or epsilon does not fit; nothing was written.
    """
    shape = _shape(x)
    x = check("x", x, np.float32, shape)
    scale = check("scale", scale, np.float32, shape[-1:])
    if bias is not None:
        bias = check("bias", bias, np.float32, shape[-1:])
    if residual is not None:
        residual = check("residual", residual, np.float32, shape)
    if not 0.0 <= epsilon < float("inf"):
        raise InvalidOperand(f"epsilon is {epsilon}.", cure="Give a small number above 0.")
    operands = (("x", x), ("scale", scale), ("bias", bias), ("residual", residual))
    out = output_of(out, np.float32, shape, operands)
    workload = LayerNorm(shape[-1], float(epsilon), bias is not None, residual is not None)
    words = _pack_norm(
        *(address(x), address(out), address(scale)),
        *(0 if array is None else address(array) for array in (bias, residual)),
        x.size // shape[-1],
    )
    _run(layernorm_kernel(workload, configuration.target()), words, x.size)
    return out


def softmax(x: NDArray[np.float32], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Returns exp(x) divided by its sum over the last axis, without overflow.

    A row whose numbers are all -inf, or one of which is infinite or NaN, becomes NaN.

    Args:
        x: float32 [..., columns], contiguous.
        out: Where to write, float32, shaped like x; it must not share memory with x.

    Raises:
        InvalidOperand: An array does not fit; nothing was written.
    """
    shape = _shape(x)
    x = check("x", x, np.float32, shape)
    out = output_of(out, np.float32, shape, (("x", x),))
    words = _pack_softmax(address(x), address(out), 0, x.size // shape[-1])
    _run(softmax_kernel(shape[-1], configuration.target()), words, x.size)
    return out


@functools.cache
def layernorm_kernel(workload: LayerNorm, target: Target) -> Loaded:
    """Returns a kernel of layer normalisation, compiling it if no cache has it."""
    return load("layernorm", workload, lambda: layernorm_module(workload, target), target)


@functools.cache
def softmax_kernel(columns: int, target: Target) -> Loaded:
    """Returns a kernel of softmax over rows, compiling it if no cache has it."""
    workload = Softmax(Grid(1, 1, columns), Grid(1, 1, columns))
    return load("softmax", workload, lambda: small_module(workload, target.lanes), target)


def _shape(x: object) -> tuple[int, ...]:
    """The shape of what should be an array of at least one axis."""
    shape: tuple[int, ...] = getattr(x, "shape", ()) or (0,)
    return shape


def _run(kernel: Loaded, words: bytes, numbers: int) -> None:
    pool = shared(configuration.threads())
    pool.run(kernel.address, words, pool.chunks if numbers >= WORTH_SHARING else 1)
