"""A plan's pipeline: what it means for a model, and the faults that are told by field and cure."""

import math

import pytest
from adlik_common.errors import InvalidPlan
from adlik_common.pipelines import ClassesStep, DetectStep, ImageStep, resolve
from adlik_common.tensors import TensorSpec
from adlik_proto.adlik.model.v1 import model_pb2
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

PICTURE = TensorSpec("input", "FP32", (-1, 3, 224, 192))
LOGITS = TensorSpec("logits", "FP32", (-1, 1000))
RAW8 = TensorSpec("raw", "FP32", (1, 84, 8400))
RAW5 = TensorSpec("raw", "FP32", (-1, -1, 85))


def resolved(pipeline, inputs=(PICTURE,), outputs=(LOGITS,)):
    return resolve(json_format.ParseDict(pipeline, model_pb2.Pipeline()), inputs, outputs)


def test_what_is_left_out_takes_its_default():
    steps = resolved({"image": {}, "classes": {}})
    zeros, ones = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    assert steps.image == ImageStep("input", 224, 192, zeros, ones, False, False, 114, 0.0)
    assert steps.answer == ClassesStep("logits", 5)
    assert steps.inputs == (TensorSpec("input", "UINT8", (-1, -1, 3)),)
    assert steps.outputs == (
        TensorSpec("scores", "FP32", (5,)),
        TensorSpec("labels", "INT64", (5,)),
    )


def test_what_is_given_is_taken():
    image = {
        "input": "input", "mean": [0.1, 0.2, 0.3], "std": [1, 2, 3], "swap": True,
        "letterbox": True, "fill": 0, "height": 640, "width": 320,
    }  # fmt: skip
    detect = {
        "output": "raw", "layout": "yolov5", "confidence": 0, "overlap": 1, "limit": 7,
    }  # fmt: skip
    others = (TensorSpec("size", "INT64", (-1, 2)), TensorSpec("scales", "FP32", (4,)))
    open_sides = TensorSpec("input", "FP32", (1, 3, -1, -1))
    steps = resolved({"image": image, "detect": detect}, (*others, open_sides), (LOGITS, RAW5))
    assert steps.image == ImageStep(
        "input", 640, 320, (0.1, 0.2, 0.3), (1, 2, 3), True, True, 0, 0.0
    )
    assert steps.answer == DetectStep("raw", "yolov5", 0, 1, 7)
    assert steps.inputs == (
        TensorSpec("size", "INT64", (1, 2)),
        others[1],
        TensorSpec("input", "UINT8", (-1, -1, 3)),
    )
    assert steps.outputs == (
        TensorSpec("boxes", "FP32", (-1, 4)),
        TensorSpec("scores", "FP32", (-1,)),
        TensorSpec("classes", "INT32", (-1,)),
    )


def test_a_picture_alone_gives_the_models_own_outputs():
    steps = resolved({"image": {"crop": 0.875}}, outputs=(LOGITS, RAW8))
    assert steps.image.crop == 0.875
    assert steps.answer is None
    assert steps.outputs == (LOGITS, RAW8)


def test_few_or_uncounted_classes_are_answered_as_they_are():
    few = TensorSpec("logits", "FP32", (-1, 3))
    assert resolved({"image": {}, "classes": {}}, outputs=(few,)).answer.top == 3
    open_count = TensorSpec("logits", "FP32", (-1, -1))
    steps = resolved({"image": {}, "classes": {"top": 9}}, outputs=(open_count,))
    assert (steps.answer.top, steps.outputs[0].shape) == (9, (-1,))


@pytest.mark.parametrize(
    ("pipeline", "said", "cure"),
    [
        ({}, "image is missing", "Begin"),
        ({"classes": {}}, "image is missing", "Begin"),
        ({"image": {"input": "x"}}, "image.input 'x'", "'input'"),
        ({"image": {"mean": [0, 0]}}, "image.mean has 2", "three"),
        ({"image": {"mean": [0, 0, "NaN"]}}, "image.mean is nan", "to 1e"),
        ({"image": {"std": [1, 1, 0]}}, "image.std is 0", "from 1e-06"),
        ({"image": {"std": [1, 1, "Infinity"]}}, "image.std is inf", "from 1e-06"),
        ({"image": {"fill": 256}}, "image.fill is 256", "0 to 255"),
        ({"image": {"crop": 0}}, "image.crop is 0", "0.01 to 1"),
        ({"image": {"crop": 1.5}}, "image.crop is 1.5", "0.01 to 1"),
        ({"image": {"crop": 1, "letterbox": True}}, "both letterbox and crop", "Choose one"),
        ({"image": {"height": 256}}, "image.height is 256", "Leave it out"),
        ({"image": {"height": -224}}, "image.height is -224", "Leave it out"),
        ({"image": {}, "classes": {"output": "y"}}, "classes.output 'y'", "'logits'"),
        ({"image": {}, "classes": {"top": 1001}}, "classes.top is 1001", "1 to 1000"),
        ({"image": {}, "classes": {"top": -1}}, "classes.top is -1", "1 to 1000"),
        ({"image": {}, "detect": {}}, r"detect.output 'logits' is FP32 \[-1, 1000\]", "raw output"),
        ({"image": {}, "detect": {"layout": "ssd"}}, "detect.layout 'ssd'", "yolov8"),
    ],
)
def test_a_fault_is_told_by_its_field_and_cure(pipeline, said, cure):
    with pytest.raises(InvalidPlan, match=said) as caught:
        resolved(pipeline)
    assert caught.match(cure)


@pytest.mark.parametrize("field", ["confidence", "overlap"])
@pytest.mark.parametrize("value", [-0.1, 1.1, "NaN"])
def test_shares_lie_between_0_and_1(field, value):
    with pytest.raises(InvalidPlan, match=f"detect.{field}"):
        resolved({"image": {}, "detect": {field: value}}, outputs=(RAW8,))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (TensorSpec("input", "FP32", (-1, 224, 224, 3)), "channels first"),
        (TensorSpec("input", "UINT8", (-1, 3, 224, 224)), "is UINT8"),
        (TensorSpec("input", "FP32", (3, 224, 224)), r"\[3, 224, 224\]"),
        (TensorSpec("input", "FP32", (8, 3, 224, 224)), "has 8 rows"),
        (TensorSpec("input", "FP32", (-1, 3, -1, 224)), "image.height is missing"),
        (TensorSpec("input", "FP32", (-1, 3, 9999, 224)), "image.height is 9999"),
    ],
)
def test_a_model_that_takes_no_picture_is_refused(spec, said):
    with pytest.raises(InvalidPlan, match=said):
        resolved({"image": {}}, inputs=(spec,))


@pytest.mark.parametrize(
    ("answer", "spec"),
    [
        ("classes", TensorSpec("y", "FP16", (-1, 10))),
        ("classes", TensorSpec("y", "FP32", (-1, 10, 1))),
        ("classes", TensorSpec("y", "FP32", (4, 10))),
        ("detect", TensorSpec("y", "FP32", (1, 4, 100))),
        ("detect", TensorSpec("y", "FP64", (1, 84, 100))),
        ("detect", TensorSpec("y", "FP32", (2, 84, 100))),
    ],
)
def test_an_output_that_is_no_answer_is_refused(answer, spec):
    with pytest.raises(InvalidPlan, match=f"{answer}.output 'y'"):
        resolved({"image": {}, answer: {}}, outputs=(spec,))


def test_of_several_tensors_one_must_be_named():
    second = TensorSpec("mask", "FP32", (-1, 3, 8, 8))
    with pytest.raises(InvalidPlan, match=r"image\.input is missing") as caught:
        resolved({"image": {}}, inputs=(PICTURE, second))
    assert caught.match(r"\['input', 'mask'\]")


NUMBERS = st.floats() | st.sampled_from([0.0, 0.5, 1.0])


@given(
    st.builds(
        model_pb2.ImageStep,
        mean=st.lists(NUMBERS, max_size=4),
        std=st.lists(NUMBERS, max_size=4),
        crop=st.none() | NUMBERS,
        fill=st.none() | st.integers(-300, 300),
        height=st.sampled_from([0, 224, -1, 7]),
        letterbox=st.booleans(),
    ),
    st.builds(model_pb2.ClassesStep, top=st.integers(-2, 1100)),
)
def test_any_pipeline_is_refused_or_within_its_ranges(image, classes):
    try:
        steps = resolve(model_pb2.Pipeline(image=image, classes=classes), [PICTURE], [LOGITS])
    except InvalidPlan:
        return
    assert all(math.isfinite(m) for m in steps.image.mean)
    assert all(0 < s < math.inf for s in steps.image.std)
    assert 0 <= steps.image.fill <= 255
    assert 0 <= steps.image.crop <= 1
    assert 1 <= steps.answer.top <= 1000
