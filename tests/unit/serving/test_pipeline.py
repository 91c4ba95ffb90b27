"""Pictures into a batch, outputs into answers: against plain numpy."""

import numpy as np
import pytest
from adlik_common.errors import EngineFailed, InvalidPlan, InvalidTensor
from adlik_common.pipelines import resolve
from adlik_common.tensors import TensorSpec
from adlik_kernels import ImageInput, configure, configured
from adlik_proto.adlik.model.v1 import model_pb2
from adlik_serving.batcher import Work
from adlik_serving.pipeline import MAX_SIDE, Pipeline, open_pipeline
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from picturing import Detector, Means

RNG = np.random.default_rng(0)
LOGITS = {"output": "logits"}


@pytest.fixture(autouse=True)
def _settings_of_the_kernels():
    before = configured()
    yield
    configure(cache=before.cache, threads=before.threads)


def made(plan, model):
    plan = json_format.ParseDict(plan, model_pb2.Pipeline())
    return Pipeline(resolve(plan, model.inputs, model.outputs))


def asked(pipeline, picture, **others):
    name = next(name for name, spec in pipeline.signature.inputs.items() if spec.shape[-1] == 3)
    work = Work({name: picture, **others}, tuple(pipeline.signature.outputs), print, lambda: False)
    pipeline.measure(work)
    return work


def answered(pipeline, model, *works):
    inputs = pipeline.join(works)
    pipeline.part(works, model.run(inputs, pipeline.wanted(works[0].outputs)))
    return [work.results for work in works]


def photo(rows, columns):
    return RNG.integers(0, 256, (rows, columns, 3), np.uint8)


def test_a_picture_of_the_models_size_is_normalised_and_its_channels_come_first():
    picture = photo(8, 6)
    mean, std = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.3, 0.4])
    pipeline = made({"image": {"mean": mean.tolist(), "std": std.tolist()}}, Means())
    (found,) = pipeline.join([asked(pipeline, picture)])["input"]
    expected = ((picture / 255 - mean) / std).transpose(2, 0, 1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_pictures_of_any_sizes_share_a_batch_and_each_gets_its_own_answer():
    model = Means()
    pipeline = made({"image": {}, "classes": {**LOGITS, "top": 2}}, model)
    colours = [(255, 0, 51), (0, 255, 51), (51, 0, 255)]
    works = [
        asked(pipeline, np.full((5 + n, 30 - n, 3), colour, np.uint8))
        for n, colour in enumerate(colours)
    ]
    assert len({work.key for work in works}) == 1
    for colour, results in zip(colours, answered(pipeline, model, *works), strict=True):
        logits = np.array(colour) / 25.5
        powers = np.exp(logits - logits.max())
        best = np.argsort(-logits)[:2]
        assert results["labels"].tolist() == best.tolist()
        np.testing.assert_allclose(results["scores"], (powers / powers.sum())[best], rtol=1e-4)
    assert len(model.runs) == 1
    assert model.wanted == [("logits",)]


def test_requests_for_other_parts_of_the_answer_share_a_batch_and_other_sizes_of_inputs_do_not():
    pipeline = made({"image": {"input": "input"}, "classes": LOGITS}, Doubling())
    picture, one, two = photo(3, 3), np.ones((1, 1), np.float32), np.ones((1, 2), np.float32)
    keys = []
    for outputs, factor in ((("scores", "labels"), one), (("labels",), one), (("labels",), two)):
        inputs = {"input": picture, "factor": factor}
        work = Work(inputs, outputs, print, lambda: False)
        pipeline.measure(work)
        keys.append(work.key)
    assert keys[0] == keys[1] != keys[2]


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 70),
    columns=st.integers(1, 70),
    crop=st.floats(0.01, 1),
)
def test_a_crop_is_the_centre_in_the_models_proportions(rows, columns, crop):
    picture = photo(rows, columns)
    pipeline = made({"image": {"crop": crop}}, Means())
    scale = crop * min(rows / 8, columns / 6)
    height, width = max(1, round(8 * scale)), max(1, round(6 * scale))
    top, left = (rows - height) // 2, (columns - width) // 2
    cut = np.ascontiguousarray(picture[top : top + height, left : left + width])
    (found,) = pipeline.join([asked(pipeline, picture)])["input"]
    np.testing.assert_array_equal(found, ImageInput(8, 6)(cut))


def test_swapped_and_filled_as_asked():
    picture = np.full((4, 24, 3), (10, 20, 30), np.uint8)
    plan = {"image": {"letterbox": True, "fill": 255, "swap": True, "std": [1 / 255] * 3}}
    (found,) = made(plan, Means()).join([asked(made(plan, Means()), picture)])["input"]
    assert found[:, 0, 0].tolist() == pytest.approx([255] * 3)
    assert found[:, 3, 0].tolist() == pytest.approx([30, 20, 10], rel=1e-4)


def test_a_read_only_picture_is_taken_as_it_is():
    picture = np.frombuffer(photo(9, 9).tobytes(), np.uint8).reshape(9, 9, 3)
    pipeline = made({"image": {"crop": 1}}, Means())
    assert pipeline.join([asked(pipeline, picture)])["input"].shape == (1, 3, 8, 6)


def test_a_picture_without_another_step_gives_the_models_outputs():
    model = Means()
    pipeline = made({"image": {}}, model)
    works = [asked(pipeline, np.full((3, 3, 3), level, np.uint8)) for level in (0, 255)]
    black, white = answered(pipeline, model, *works)
    assert black["logits"].tolist() == [[0, 0, 0]]
    np.testing.assert_allclose(white["sums"], [144], rtol=1e-5)


def test_a_picture_that_is_too_large_is_refused():
    pipeline = made({"image": {}}, Means())
    asked(pipeline, np.zeros((MAX_SIDE, 1, 3), np.uint8))
    for shape in ((MAX_SIDE + 1, 1, 3), (1, MAX_SIDE + 1, 3)):
        with pytest.raises(InvalidTensor, match="8 x 6") as caught:
            asked(pipeline, np.zeros(shape, np.uint8))
        assert caught.value.details == {"tensor": "input"}


class Doubling(Means):
    """Takes a factor besides the picture."""

    inputs = (*Means.inputs, TensorSpec("factor", "FP32", (-1, 1)))

    def run(self, inputs, outputs=()):
        found = super().run(inputs, outputs)
        return {name: array * inputs["factor"] for name, array in found.items()}


def test_other_inputs_are_joined_as_they_are():
    model = Doubling()
    pipeline = made({"image": {"input": "input"}, "classes": {**LOGITS, "top": 1}}, model)
    assert pipeline.signature.inputs["factor"].shape == (1, 1)
    picture = np.full((3, 3, 3), (255, 0, 0), np.uint8)
    works = [
        asked(pipeline, picture, factor=np.array([[factor]], np.float32)) for factor in (0, 100)
    ]
    none, sure = answered(pipeline, model, *works)
    np.testing.assert_allclose([none["scores"][0], sure["scores"][0]], [1 / 3, 1], rtol=1e-4)
    (alone,) = answered(pipeline, model, works[1])
    assert alone["labels"].tolist() == [0]


BOXES = [
    (32, 32, 16, 8, 0.9, 1), (33, 32, 16, 8, 0.8, 1), (10, 20, 4, 4, 0.6, 0),
    (50, 50, 6, 6, 0.1, 0),
]  # fmt: skip


@pytest.mark.parametrize(
    ("image", "rows", "columns", "scale", "offset"),
    [
        # columns, rows of the picture for one of the input, and what lies left of and above it.
        ({}, 128, 256, (4, 2), (0, 0)),
        ({"letterbox": True}, 128, 256, (4, 4), (0, -64)),
        ({"letterbox": True}, 256, 128, (4, 4), (-64, 0)),
        ({"crop": 1}, 128, 256, (2, 2), (64, 0)),
        ({"crop": 0.5}, 128, 256, (1, 1), (96, 32)),
    ],
)
def test_boxes_lie_in_the_pictures_own_pixels(image, rows, columns, scale, offset):
    model = Detector(BOXES)
    pipeline = made({"image": image, "detect": {}}, model)
    (found,) = answered(pipeline, model, asked(pipeline, photo(rows, columns)))
    np.testing.assert_allclose(found["scores"], [0.9, 0.6])
    assert found["classes"].tolist() == [1, 0]
    for box, (x, y, width, height, *_) in zip(found["boxes"], (BOXES[0], BOXES[2]), strict=True):
        corners = np.array(
            [[x - width / 2, y - height / 2], [x + width / 2, y + height / 2]], np.float32
        )
        expected = np.clip(corners * scale + offset, 0, (columns, rows))
        np.testing.assert_allclose(box, expected.ravel(), atol=1e-3)


def test_a_plans_limits_of_a_detector_hold():
    detect = {"confidence": 0.05, "overlap": 1, "limit": 3}
    model = Detector(BOXES)
    pipeline = made({"image": {}, "detect": detect}, model)
    (found,) = answered(pipeline, model, asked(pipeline, photo(64, 64)))
    np.testing.assert_allclose(found["scores"], [0.9, 0.8, 0.6])


def test_nothing_found_is_an_answer():
    pipeline = made({"image": {}, "detect": {}}, Detector([]))
    (found,) = answered(pipeline, Detector([]), asked(pipeline, photo(20, 20)))
    assert [found[name].shape for name in ("boxes", "scores", "classes")] == [(0, 4), (0,), (0,)]


def test_opening_warms_up_and_tells_the_time(tmp_path):
    model = Means()
    plan = json_format.ParseDict({"image": {}, "classes": LOGITS}, model_pb2.Pipeline())
    _, own_ns = open_pipeline(plan, model, threads=1, cache=tmp_path)
    assert [run.shape for run in model.runs] == [(1, 3, 8, 6)] * 2
    assert own_ns > 0


def test_a_model_that_gives_something_else_is_not_opened(tmp_path):
    class Flat(Means):
        def run(self, inputs, outputs=()):
            return {"logits": super().run(inputs)["logits"].ravel()}

    plan = json_format.ParseDict({"image": {}, "classes": LOGITS}, model_pb2.Pipeline())
    with pytest.raises(EngineFailed, match=r"'logits' has shape \[3\] for 1 pictures"):
        open_pipeline(plan, Flat(), threads=1, cache=tmp_path)
    with pytest.raises(InvalidPlan, match="detect"):
        open_pipeline(model_pb2.Pipeline(image={}, detect={}), Means(), threads=1, cache=tmp_path)
