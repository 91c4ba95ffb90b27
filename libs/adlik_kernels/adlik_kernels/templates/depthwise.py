"""The template of depthwise convolutions: each channel with a window of its own.

There is no product here, only as many multiply-adds as numbers are read: a tile is a few pixels by
one vector of channels, its sums stay in registers and each weight is loaded once a tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from adlik_kernels.codegen.emit import Emitter, Value, kernel_function
from adlik_kernels.codegen.isa import multiply_add
from adlik_kernels.codegen.vectormath import ACTIVATIONS
from adlik_kernels.machine.target import Target
from adlik_kernels.schedules.conv import even_tiles
from adlik_kernels.templates.small import Grid, each_vector, load_lanes, own_rows, store_lanes

IN, OUT, WEIGHTS, BATCH, BIAS = range(5)
"""Places of the arguments in a kernel's block of words."""

PIXELS = 8
"""Pixels of a tile: enough sums to hide the latency of a multiply-add."""


@dataclass(frozen=True, slots=True)
class Depthwise:
    """activation(depthwise(x, w) + bias) on channels-last float arrays.

    Weights are [rows, columns, channels] and the bias [channels]; x has a border of at least the
    padding, zero already.

    Attributes:
        source: The input.
        result: The output, with as many channels.
        window: Rows and columns of the windows.
        stride: Their steps.
        padding: Zero rows and columns around the picture.
        activation: One of `workload.ACTIVATION_NAMES`, or "".
    """

    source: Grid
    result: Grid
    window: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    activation: str


def depthwise_module(workload: Depthwise, target: Target) -> Any:
    """Returns the LLVM module of a depthwise convolution; its one public function is `kernel`.

    Args:
        workload: What is computed.
        target: For which machine.
    """
    module = ir.Module("depthwise")
    _Writer(Emitter(kernel_function(module, "kernel")), workload, target).write()
    return module


class _Writer:
    def __init__(self, e: Emitter, workload: Depthwise, target: Target) -> None:
        self.e, self.workload, self.lanes = e, workload, target.lanes
        self.fused = "fma" in target.features
        block = e.function.args[2]
        self.x, self.out, self.w, self.bias = (
            e.argument(block, place) for place in (IN, OUT, WEIGHTS, BIAS)
        )

    def write(self) -> None:
        e, made = self.e, self.workload.result
        tiles = even_tiles(made.width, PIXELS)
        larger = tiles[0]
        many = tiles.count(larger)
        with own_rows(e, made.height) as (picture, row):

            def channels(offset: Value, valid: int) -> None:
                with e.loop(0, many) as number:
                    self._tile(picture, row, e.mul(number, larger), larger, (offset, valid))
                if many < len(tiles):
                    with e.loop(0, len(tiles) - many) as number:
                        column = e.add(e.mul(number, tiles[-1]), many * larger)
                        self._tile(picture, row, column, tiles[-1], (offset, valid))

            each_vector(e, made.channels, self.lanes, channels)
        e.builder.ret_void()

    def _tile(
        self, picture: Value, row: Value, column: Value, pixels: int, lane: tuple[Value, int]
    ) -> None:
        e, work, (offset, valid) = self.e, self.workload, lane
        first = load_lanes(e, e.at(self.bias, offset), self.lanes, valid)
        sums = [first] * pixels
        for down in range(work.window[0]):
            line = e.add(e.mul(row, work.stride[0]), down - work.padding[0])
            start = e.sub(e.mul(column, work.stride[1]), work.padding[1])
            at = e.add(work.source.place(e, picture, line, start), offset)
            for across in range(work.window[1]):
                tap = 4 * work.source.channels * (down * work.window[1] + across)
                w = load_lanes(e, e.at(self.w, e.add(offset, tap)), self.lanes, valid)
                for pixel in range(pixels):
                    right = 4 * work.source.channels * (pixel * work.stride[1] + across)
                    x = load_lanes(e, e.at(self.x, e.add(at, right)), self.lanes, valid)
                    sums[pixel] = multiply_add(e, x, w, sums[pixel], fused=self.fused)
        to = e.add(work.result.place(e, picture, row, column), offset)
        for pixel, total in enumerate(sums):
            value = ACTIVATIONS[work.activation](e, total) if work.activation else total
            right = 4 * work.result.channels * pixel
            store_lanes(e, value, e.at(self.out, e.add(to, right)), self.lanes, valid)
