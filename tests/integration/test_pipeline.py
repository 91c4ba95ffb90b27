"""A model pushed with a pipeline to a whole mesh: pictures in, classes and boxes out."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from adlik.cli import app
from adlik.errors import AdlikError
from adlik.pictures import IMAGENET_MEAN, IMAGENET_STD, preprocess
from adlik_kernels import ImageInput
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from typer.testing import CliRunner

from examples import mobilenet, photos
from examples import pipeline as example
from tests.mesh import QUICK_PLAN, Mesh
from tests.unit.optimizer import graphs

SIDE = 32
CLASSES = 20
PIPELINE = {
    "image": {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "crop": 0.875},
    "classes": {"output": "logits", "top": 3},
}
PLAN = {**QUICK_PLAN, "pipeline": PIPELINE}


def cli(mesh, *arguments):
    """Runs the `adlik` command in this process."""
    return CliRunner().invoke(app, [*map(str, arguments), "--url", mesh.http])


def save_classifier(path):
    """Writes a random network from input [n, 3, 32, 32] to logits [n, 20]."""
    rng = np.random.default_rng(4)
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["c"], strides=[4, 4]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("MatMul", ["f", "head"], ["logits"]),
    ]
    onnx.save(
        graphs.model(
            nodes,
            [("input", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
            [("logits", TensorProto.FLOAT, ["n", CLASSES])],
            [graphs.weight(rng, "w", 16, 3, 4, 4), _head(rng)],
        ),
        path,
    )
    return path


def _head(rng):
    """Returns weights of the scores, each of a whole region, so that small shifts change little."""
    coarse = rng.standard_normal((16, 2, 1, 2, 1, CLASSES)) * 0.05
    fine = np.broadcast_to(coarse, (16, 2, 4, 2, 4, CLASSES))
    return numpy_helper.from_array(fine.reshape(16 * 64, CLASSES).astype(np.float32), "head")


def save_detector(path):
    """Writes a network that finds one box, the more surely the redder the picture is."""
    box = np.zeros((1, 6, 10), np.float32)
    box[0, :4, 3] = 16, 16, 8, 4
    box[0, 5, 3] = 1
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["means"], axes=[2, 3], keepdims=0),
        helper.make_node("Slice", ["means", "first", "second", "axis"], ["red"]),
        helper.make_node("Unsqueeze", ["red", "axis"], ["redness"]),
        helper.make_node("Mul", ["redness", "scaled"], ["scores"]),
        helper.make_node("Add", ["scores", "placed"], ["raw"]),
    ]
    scaled, placed = box.copy(), box.copy()
    scaled[0, :4], placed[0, 4:] = 0, 0
    weights = {
        "first": np.array([0]), "second": np.array([1]), "axis": np.array([1]),
        "scaled": scaled, "placed": placed,
    }  # fmt: skip
    onnx.save(
        graphs.model(
            nodes,
            [("input", TensorProto.FLOAT, ["n", 3, SIDE, SIDE])],
            [("raw", TensorProto.FLOAT, ["n", 6, 10])],
            [numpy_helper.from_array(value, name) for name, value in weights.items()],
        ),
        path,
    )
    return path


def photo(width, height, seed=0):
    """Returns a smooth picture of its own, as pictures of the world are."""
    rng = np.random.default_rng(seed)
    few = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8))
    return few.resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pipelines")


@pytest.fixture(scope="module")
def mesh(folder):
    with Mesh(folder / "mesh") as running:
        yield running


@pytest.fixture(scope="module")
def classifier(mesh, folder):
    """The model pushed twice: plain, and with a pipeline."""
    path = save_classifier(folder / "classifier.onnx")
    mesh.push("plain", path)
    found = mesh.push("piped", path, **PLAN)
    assert found.release.pushed.plan.pipeline.classes.top == 3
    return "piped"


def best(mesh, tensor):
    """Returns the plain model's best classes and their probabilities."""
    (logits,) = mesh.client.infer("plain", {"input": tensor})["logits"].astype(np.float64)
    powers = np.exp(logits - logits.max())
    order = np.argsort(-logits)[:3]
    return order, powers[order] / powers.sum()


def prepared(picture):
    return preprocess(picture, (1, 3, SIDE, SIDE))


def test_metadata_tells_what_to_send_and_what_comes(mesh, classifier):
    said = mesh.client.metadata(classifier)
    (taken,) = said["inputs"]
    assert (taken["name"], taken["datatype"]) == ("input", "UINT8")
    assert [int(size) for size in taken["shape"]] == [-1, -1, 3]
    assert [(t["name"], t["datatype"]) for t in said["outputs"]] == [
        ("scores", "FP32"), ("labels", "INT64"),
    ]  # fmt: skip


SIZES = [(32, 32), (96, 80), (64, 150), (400, 300)]


@pytest.mark.parametrize("size", SIZES)
def test_a_picture_gives_the_classes_that_it_gives_prepared_by_the_client(mesh, classifier, size):
    picture = photo(*size)
    found = mesh.client.infer(classifier, {"input": np.asarray(picture)})
    labels, probabilities = best(mesh, prepared(picture))
    assert found["labels"][0] == labels[0]
    # Pillow smooths what it makes smaller and cuts at fractions of a pixel.
    np.testing.assert_allclose(found["scores"], probabilities, atol=0.05)


def test_the_kernel_librarys_own_input_gives_the_same_scores(mesh, classifier):
    picture = np.asarray(photo(64, 64))
    cut = np.ascontiguousarray(picture[4:60, 4:60])
    tensor = ImageInput(SIDE, SIDE, IMAGENET_MEAN, IMAGENET_STD)(cut)[None]
    found = mesh.client.infer(classifier, {"input": picture})
    labels, probabilities = best(mesh, tensor)
    assert found["labels"].tolist() == labels.tolist()
    np.testing.assert_allclose(found["scores"], probabilities, rtol=1e-4)


def test_pictures_of_many_sizes_at_once_each_get_their_own_classes(mesh, classifier):
    pictures = [photo(33 + n, 60 - n, seed=n) for n in range(24)]

    def ask(picture):
        return mesh.client.infer(classifier, {"input": np.asarray(picture)})["labels"][0]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, pictures))
    assert found == [ask(picture) for picture in pictures]
    assert len(set(found)) > 1


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros((1, 3, SIDE, SIDE), np.float32), "UINT8"),
        (np.zeros((SIDE, SIDE, 4), np.uint8), "-1, -1, 3"),
        (np.zeros((1, SIDE, SIDE, 3), np.uint8), "-1, -1, 3"),
        (np.zeros((20_000, 2, 3), np.uint8), "20000 rows"),
    ],
)
def test_what_is_no_picture_is_refused(mesh, classifier, array, said):
    with pytest.raises(AdlikError) as caught:
        mesh.client.infer(classifier, {"input": array})
    assert caught.value.code == "INVALID_TENSOR"
    assert said in str(caught.value)


def test_a_plan_that_does_not_fit_the_model_is_refused_by_field_and_cure(mesh, folder):
    model, plan = save_classifier(folder / "other.onnx"), folder / "plan.json"
    plan.write_text(json.dumps({"pipeline": {"image": {}, "classes": {"top": 21}}}))
    done = cli(mesh, "push", model, "--plan", plan)
    assert done.exit_code == 1
    assert "INVALID_PLAN: pipeline.classes.top is 21." in done.stderr
    assert "from 1 to 20" in done.stderr
    plan.write_text(json.dumps({"pipeline": {"image": {"means": [0, 0, 0]}}}))
    done = cli(mesh, "push", model, "--plan", plan)
    assert "means" in done.stderr
    assert "letterbox" in done.stderr


def test_the_command_sends_a_photo_and_prints_classes(mesh, classifier, folder):
    picture = photo(40, 50)
    picture.save(folder / "photo.png")
    labels, _ = best(mesh, prepared(picture))
    done = cli(mesh, "infer", classifier, folder / "photo.png", "--json")
    ((first, *others),) = json.loads(done.stdout)
    assert first["class"] == labels[0]
    assert len(others) == 2
    (folder / "names.txt").write_text("\n".join(f"class {n}" for n in range(CLASSES)))
    options = ("--labels", folder / "names.txt", "--top", 1)
    said = cli(mesh, "infer", classifier, folder / "photo.png", *options).stdout
    assert f"class {labels[0]}" in said
    assert said.count("class ") == 2  # the heading's and the first one's
    refused = cli(mesh, "infer", classifier, folder / "photo.png", "--mean", "0,0,0")
    assert "its plan says the mean" in refused.stderr
    assert "a picture and get its best classes" in cli(mesh, "show", classifier).stdout
    assert cli(mesh, "bench", classifier, "--seconds", 0.2, "--json").exit_code == 0


def test_a_detectors_boxes_lie_in_the_pictures_pixels(mesh, folder):
    pipeline = {"image": {"letterbox": True}, "detect": {"confidence": 0.5}}
    model = save_detector(folder / "detector.onnx")
    mesh.push("detector", model, **{**QUICK_PLAN, "pipeline": pipeline})
    Image.new("RGB", (128, 128), (255, 0, 0)).save(folder / "red.png")
    Image.new("RGB", (2560, 2560), (255, 0, 0)).save(folder / "large.png")
    Image.new("RGB", (128, 128), (0, 0, 255)).save(folder / "blue.png")
    (found,) = json.loads(cli(mesh, "infer", "detector", folder / "red.png", "--json").stdout)
    assert found["class"] == 1
    np.testing.assert_allclose(found["box"], [48, 56, 80, 72], atol=0.01)
    (found,) = json.loads(cli(mesh, "infer", "detector", folder / "large.png", "--json").stdout)
    np.testing.assert_allclose(found["box"], [960, 1120, 1600, 1440], atol=0.5)
    assert "1.0000" in cli(mesh, "infer", "detector", folder / "red.png").stdout
    assert "nothing found" in cli(mesh, "infer", "detector", folder / "blue.png").stdout
    assert "get boxes" in cli(mesh, "show", "detector").stdout


def test_the_example_sees_in_photographs_what_they_show(mesh, folder):
    model = folder / "mobilenet.onnx"
    mobilenet.export(model)
    mesh.push(example.NAME, model, **QUICK_PLAN, **example.PLAN)
    files = photos.write_photos(folder / "photos")
    for name, word in photos.EXPECTED.items():
        classes = example.classify(mesh.client, example.NAME, files[name])
        assert word in classes[0][0].lower() + classes[1][0].lower()
