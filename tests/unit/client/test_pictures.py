"""Pictures into tensors, scores into labels."""

import json
import random

import numpy as np
import pytest
from adlik.errors import AdlikError
from adlik.pictures import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    LONGEST_SENT,
    load_labels,
    load_picture,
    pixels,
    preprocess,
    probabilities,
    takes_pixels,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

SIDES = st.integers(1, 300)


def normalized(colour):
    return (np.array(colour) / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)


@given(SIDES, SIDES, st.sampled_from([(-1, 3, 32, 48), (1, 32, 48, 3), (-1, 3, -1, -1)]))
def test_any_picture_fits_any_input(width, height, shape):
    picture = Image.new("RGB", (width, height), (200, 100, 50))
    batch = preprocess(picture, shape)
    filled = tuple(224 if size < 0 else size for size in shape[1:])
    assert batch.shape == (1, *filled)
    assert batch.dtype == np.float32
    assert batch.flags["C_CONTIGUOUS"]
    pixels = batch[0] if shape[3] == 3 else batch[0].transpose(1, 2, 0)
    np.testing.assert_allclose(
        pixels, np.broadcast_to(normalized((200, 100, 50)), pixels.shape), atol=1e-5
    )


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000))
def test_a_pipeline_is_sent_no_more_than_models_see(width, height):
    sent, (across, down) = pixels(Image.new("RGB", (width, height), (9, 8, 7)))
    rows, columns, channels = sent.shape
    assert (sent.dtype, channels) == (np.uint8, 3)
    longest = max(width, height)
    assert max(rows, columns) <= LONGEST_SENT
    assert max(rows, columns) == longest or max(rows, columns) >= LONGEST_SENT // 2
    assert (columns * across, rows * down) == pytest.approx((width, height))
    assert (sent == (9, 8, 7)).all()


@pytest.mark.parametrize(
    ("datatype", "shape", "taken"),
    [
        ("UINT8", ["-1", "-1", "3"], True), ("UINT8", [-1, -1, 3], True),
        ("UINT8", [-1, 224, 3], False), ("FP32", [-1, -1, 3], False),
        ("UINT8", [-1, 3, 224, 224], False),
    ],
)  # fmt: skip
def test_metadata_tells_whether_a_model_takes_pixels(datatype, shape, taken):
    assert takes_pixels({"name": "x", "datatype": datatype, "shape": shape}) is taken


def test_a_very_long_picture_costs_no_more_than_what_is_cut_out_of_it():
    """Resized whole to 256 on its short side, this one would have 5 million columns."""
    assert preprocess(Image.new("RGB", (20_000, 1)), (1, 3, 224, 224)).shape == (1, 3, 224, 224)


def test_the_centre_is_taken_and_the_edges_are_left():
    picture = Image.new("RGB", (300, 100), "black")
    picture.paste((255, 255, 255), (125, 25, 175, 75))
    batch = preprocess(picture, (1, 3, 64, 64), mean=(0, 0, 0), std=(1, 1, 1))[0]
    assert batch[:, 32, 32].min() > 0.99
    assert batch[:, :, [0, -1]].max() < 0.01
    np.testing.assert_allclose(batch, batch[:, :, ::-1], atol=0.05)
    np.testing.assert_allclose(batch, batch[:, ::-1], atol=0.05)


@pytest.mark.parametrize("shape", [(1, 4, 8, 8), (3, 8, 8), (1, 1, 8, 8), ()])
def test_inputs_that_are_no_pictures_are_refused(shape):
    with pytest.raises(AdlikError) as caught:
        preprocess(Image.new("RGB", (8, 8)), shape)
    assert caught.value.code == "INVALID_TENSOR"


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "I;16"])
def test_pictures_of_any_mode_become_rgb(tmp_path, mode):
    path = tmp_path / ("p.tiff" if mode == "CMYK" else "p.png")
    Image.new(mode, (5, 4)).save(path)
    assert (load_picture(path).mode, load_picture(path).size) == ("RGB", (5, 4))


@pytest.mark.parametrize("kind", ["png", "jpeg", "gif", "bmp", "tiff", "webp"])
@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it finds strange in a file
def test_broken_pictures_are_pictures_or_refused(tmp_path, kind):
    path = tmp_path / "p"
    noise = np.random.default_rng(0).integers(0, 255, (20, 20, 3)).astype(np.uint8)
    Image.fromarray(noise).save(path, kind)
    good, rng, refused = path.read_bytes(), random.Random(0), 0
    for turn in range(200):
        broken = bytearray(good)
        for _ in range(rng.randint(1, 5)):
            broken[rng.randrange(min(len(broken), 300))] = rng.randrange(256)
        path.write_bytes(broken[: rng.randrange(len(broken))] if turn % 2 else broken)
        try:
            assert load_picture(path).mode == "RGB"
        except AdlikError as error:
            refused += 1
            if error.code != "INVALID_PICTURE":
                raise
    assert refused > 20


@pytest.mark.parametrize("name", ["none.png", "folder"])
def test_what_is_no_file_is_refused(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(AdlikError, match=name):
        load_picture(tmp_path / name)


@given(arrays.arrays("float32", (3, 5), elements=st.floats(-100, 100, width=32)))
def test_scores_become_probabilities_in_the_same_order(scores):
    found = probabilities(scores)
    np.testing.assert_allclose(found.sum(axis=-1), 1, rtol=1e-2)
    assert (found >= 0).all()
    for row, chances in zip(scores, found, strict=True):
        assert (np.diff(chances[np.argsort(row, kind="stable")]) >= 0).all()


def test_probabilities_stay_what_they_are():
    given_ones = np.array([[0.25, 0.75], [1, 0]], np.float32)
    assert probabilities(given_ones) is given_ones


def test_labels_are_read_from_text_json_and_imagenet(tmp_path):
    (tmp_path / "l.txt").write_text("cat\ndog\n")
    (tmp_path / "l.json").write_text(json.dumps(["cat", "dog"]))
    for name in ("l.txt", "l.json"):
        assert load_labels(str(tmp_path / name)) == ["cat", "dog"]
    assert len(load_labels("imagenet")) == 1000


@pytest.mark.parametrize("text", ["5", "{", "{}", '"cat"', "[1]", "null", "[[]]", "\udcff"])
def test_other_labels_are_refused(tmp_path, text):
    (tmp_path / "l.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(AdlikError) as caught:
        load_labels(str(tmp_path / "l.json"))
    assert caught.value.code == "INVALID_LABELS"
