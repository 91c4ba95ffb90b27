"""Which targets a recipe gets, and the reason where a machine can't do one."""

from __future__ import annotations

import pytest
from adlik_compiler.steps import registered_steps
from adlik_compiler.targets import TARGETS, Target, all_targets, goal_of, targets_for, why_not
from adlik_runtimes import cpu, registry


def names(found):
    return {str(target) for target in found}


@pytest.mark.parametrize(
    ("recipe", "precision", "expected"),
    [
        ("pushed", "fp32", {"onnxruntime-fp32"}),
        (
            "clean",
            "fp32",
            {
                "kernels-fp32",
                "onnxruntime-fp32",
                "openvino-fp32",
                "openvino-bf16",
                "tensorrt-fp16",
            },
        ),
        ("int8", "int8", {"kernels-int8", "onnxruntime-int8", "openvino-int8"}),
    ],
)
def test_targets_follow_the_recipe(recipe, precision, expected):
    assert names(targets_for(recipe, precision, [], TARGETS)) == expected


def test_a_plan_narrows_the_targets():
    wanted = ["openvino-bf16", "openvino-int8"]
    assert names(targets_for("clean", "fp32", wanted, TARGETS)) == {"openvino-bf16"}
    assert names(targets_for("int8", "int8", wanted, TARGETS)) == {"openvino-int8"}
    # The pushed model is made all the same: it answers where nothing that is wanted passes.
    assert names(targets_for("pushed", "fp32", wanted, TARGETS)) == {"onnxruntime-fp32"}


def test_targets_of_other_packages_engines_are_added():
    class Other:
        name, format = "other", "onnx"

        def precisions(self):
            return ("fp32",)

    assert Target("other", "fp32") in all_targets({"other": Other()})


def test_reasons_name_what_is_missing(monkeypatch):
    engines, steps = registry.engines(), registered_steps()
    assert why_not(Target("onnxruntime", "fp32"), engines, steps) == ""
    assert "tensorrt" in why_not(Target("tensorrt", "fp16"), engines, steps)
    assert "not installed" in why_not(Target("tpu", "fp32"), engines, steps)
    assert "No path" in why_not(Target("onnxruntime", "fp32"), engines, steps, "caffe")
    monkeypatch.setattr(cpu, "has_bfloat16", lambda: False)
    assert "bf16 natively" in why_not(Target("openvino", "bf16"), engines, steps)


def test_an_engine_without_a_step_of_its_name_is_reached_by_its_format():
    engines = registry.engines()
    steps = registered_steps()
    assert goal_of(engines["onnxruntime"], steps) == "onnxruntime"
    assert goal_of(engines["openvino"], steps) == "openvino_ir"
    assert goal_of(engines["onnxruntime"], []) == "onnx"
