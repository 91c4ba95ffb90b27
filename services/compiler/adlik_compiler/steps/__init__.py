"""The registry of conversions: one file each here, and entry points of other packages."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from adlik_compiler.planner import Step
from adlik_compiler.steps import (
    onnx_to_kernels,
    onnx_to_onnxruntime,
    onnx_to_openvino,
    onnx_to_tensorrt,
)

GROUP = "adlik.compiler.steps"

STEPS: tuple[Step, ...] = (
    onnx_to_kernels.STEP,
    onnx_to_onnxruntime.STEP,
    onnx_to_openvino.STEP,
    onnx_to_tensorrt.STEP,
)


@cache
def registered_steps() -> tuple[Step, ...]:
    """Returns our steps, then those that other packages bring as entry points of the group."""
    others = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    return (*STEPS, *(point.load() for point in others))
