"""ONNX to a TensorRT plan for the GPU of this machine (TensorRT 10 Python API)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from adlik_common.errors import EngineFailed, UnsupportedOperator
from adlik_runtimes.tensorrt import ENGINE

from adlik_compiler.onnx_source import self_contained
from adlik_compiler.planner import Step

WORKSPACE_BYTES = 2 * 2**30
PROFILE_ROWS = (1, 8, 32)
"""Rows of the smallest, the usual and the largest batch that a plan is built for."""


def convert(source: str, folder: str, precision: str) -> str:
    """Returns a serialized plan.

    Raises:
        UnsupportedOperator: TensorRT's parser does not take the model.
        EngineFailed: TensorRT found no way to build it.
    """
    import tensorrt as trt

    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    model = self_contained(Path(source), Path(folder))
    if not parser.parse_from_file(str(model)):
        said = "; ".join(str(parser.get_error(at).desc()) for at in range(parser.num_errors))
        raise UnsupportedOperator(
            f"TensorRT does not take the model: {said}",
            cure="Compile it for another engine, or export it with operators TensorRT knows.",
        )
    plan = builder.build_serialized_network(network, _config(trt, builder, network, precision))
    if plan is None:
        raise EngineFailed("TensorRT could not build the plan.", cure="See the service's log.")
    file = Path(folder) / "model.plan"
    file.write_bytes(plan)
    return str(file)


def _config(trt: Any, builder: Any, network: Any, precision: str) -> Any:
    """Returns the build's settings; int8 comes from the graph's own QDQ nodes."""
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    if precision == "fp16":
        config.set_flag(trt.BuilderFlag.FP16)
    if precision == "int8":
        config.set_flag(trt.BuilderFlag.INT8)
    profile = builder.create_optimization_profile()
    for at in range(network.num_inputs):
        tensor = network.get_input(at)
        shape = tuple(tensor.shape)
        if -1 in shape:
            profile.set_shape(tensor.name, *(_filled(shape, rows) for rows in PROFILE_ROWS))
    config.add_optimization_profile(profile)
    return config


def _filled(shape: tuple[int, ...], rows: int) -> tuple[int, ...]:
    """Returns the shape with its open first size as rows and other open sizes as 1."""
    first = rows if shape[0] == -1 else shape[0]
    return (first, *(1 if size == -1 else size for size in shape[1:]))


STEP = Step(
    source="onnx",
    target="tensorrt_plan",
    function="adlik_compiler.steps.onnx_to_tensorrt:convert",
    media_type="application/octet-stream",
    distribution="tensorrt",
    cost=30.0,
    by_precision=True,
    unavailable=ENGINE.unavailable,
)
