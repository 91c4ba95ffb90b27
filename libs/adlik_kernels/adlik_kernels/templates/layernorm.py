"""The template of layer normalisation: each row to mean 0 and variance 1, scaled and shifted.

The mean comes first and the variance is that of the differences from it, so that large means cost
no accuracy (Ba, Kiros and Hinton, 2016, "Layer Normalization").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from adlik_kernels.codegen.across import each_group, folded, group_of
from adlik_kernels.codegen.emit import F32, I1, Emitter, Value, kernel_function, splat, vector
from adlik_kernels.codegen.isa import multiply_add
from adlik_kernels.codegen.vectormath import constant
from adlik_kernels.machine.target import Target
from adlik_kernels.templates.small import load_lanes, store_lanes

IN, OUT, SCALE, BIAS, RESIDUAL, ROWS = range(6)
"""Places of the arguments in the kernel's block of words; BIAS and RESIDUAL only where used."""


@dataclass(frozen=True, slots=True)
class LayerNorm:
    """(t - mean(t)) / sqrt(variance(t) + epsilon) * scale + bias, with t = x + residual.

    The result may lie where x or the residual does.

    Attributes:
        columns: Numbers of a row, over which mean and variance are taken.
        epsilon: What is added to the variance.
        bias: Whether a bias of shape [columns] is added.
        residual: Whether an array like x is added before.
    """

    columns: int
    epsilon: float = 1e-5
    bias: bool = True
    residual: bool = False


def layernorm_module(workload: LayerNorm, target: Target) -> Any:
    """Returns the LLVM module of a layer normalisation; its one public function is `kernel`.

    Args:
        workload: What is computed.
        target: For which machine.
    """
    module = ir.Module("layernorm")
    e = Emitter(kernel_function(module, "kernel"))
    chunk, chunks, words = e.function.args
    rows = e.argument(words, ROWS, pointer=False)
    writer = _RowWriter(e, workload, target)
    first = e.div(e.mul(rows, chunk), chunks)
    with e.loop(first, e.div(e.mul(rows, e.add(chunk, 1)), chunks)) as row:
        writer.write(e.mul(row, 4 * workload.columns))
    e.builder.ret_void()
    return module


class _RowWriter:
    def __init__(self, e: Emitter, workload: LayerNorm, target: Target) -> None:
        self.e, self.workload, self.lanes = e, workload, target.lanes
        self.fused = "fma" in target.features
        words = e.function.args[2]
        self.x, self.out, self.scale, self.bias, self.residual = (
            e.argument(words, place) for place in (IN, OUT, SCALE, BIAS, RESIDUAL)
        )

    def write(self, start: Value) -> None:
        """One row, which begins so many bytes behind the first."""
        e, out = self.e, self.e.at(self.out, start)
        mean = self._mean(start)
        row = out if self.workload.residual else e.at(self.x, start)
        factor = self._factor(row, mean)

        def finish(offset: Value, vectors: list[tuple[int, int]]) -> None:
            for ahead, valid in vectors:
                at = e.add(offset, ahead)
                value = e.builder.fsub(self._load(row, at, valid), mean)
                scale = e.builder.fmul(self._load(self.scale, at, valid), factor)
                if self.workload.bias:
                    bias = self._load(self.bias, at, valid)
                    value = multiply_add(e, value, scale, bias, fused=self.fused)
                else:
                    value = e.builder.fmul(value, scale)
                store_lanes(e, value, e.at(out, at), self.lanes, valid)

        each_group(e, self.workload.columns, self.lanes, finish)

    def _mean(self, start: Value) -> Value:
        """The mean on all lanes; sums of x and residual are left where the result will be."""
        e, slots = self.e, group_of(self.e, self.lanes, 0.0)
        x, residual, out = (e.at(base, start) for base in (self.x, self.residual, self.out))

        def add(offset: Value, vectors: list[tuple[int, int]]) -> None:
            for slot, (ahead, valid) in zip(slots, vectors, strict=False):
                at = e.add(offset, ahead)
                value = self._load(x, at, valid)
                if self.workload.residual:
                    value = e.builder.fadd(value, self._load(residual, at, valid))
                    store_lanes(e, value, e.at(out, at), self.lanes, valid)
                e.builder.store(e.builder.fadd(e.builder.load(slot), value), slot)

        each_group(e, self.workload.columns, self.lanes, add)
        total = folded(e, slots, e.builder.fadd)
        return splat(e, e.builder.fmul(total, self._share()), self.lanes)

    def _factor(self, row: Value, mean: Value) -> Value:
        """1 / sqrt(variance + epsilon) on all lanes."""
        e, slots = self.e, group_of(self.e, self.lanes, 0.0)

        def add(offset: Value, vectors: list[tuple[int, int]]) -> None:
            for slot, (ahead, valid) in zip(slots, vectors, strict=False):
                apart = e.builder.fsub(self._load(row, e.add(offset, ahead), valid), mean)
                if valid < self.lanes:
                    real = ir.Constant(
                        vector(I1, self.lanes), [n < valid for n in range(self.lanes)]
                    )
                    apart = e.builder.select(real, apart, constant(apart, 0.0))
                so_far = e.builder.load(slot)
                e.builder.store(multiply_add(e, apart, apart, so_far, fused=self.fused), slot)

        each_group(e, self.workload.columns, self.lanes, add)
        variance = e.builder.fmul(folded(e, slots, e.builder.fadd), self._share())
        variance = e.builder.fadd(variance, ir.Constant(F32, self.workload.epsilon))
        root = e.intrinsic("llvm.sqrt.f32", F32, [variance])
        return splat(e, e.builder.fdiv(ir.Constant(F32, 1.0), root), self.lanes)

    def _load(self, base: Value, offset: Value, valid: int) -> Value:
        return load_lanes(self.e, self.e.at(base, offset), self.lanes, valid)

    def _share(self) -> Any:
        """What one number counts for in a mean."""
        return ir.Constant(F32, 1.0 / self.workload.columns)
