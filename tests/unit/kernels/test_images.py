"""Image preparation against a float64 reference written another way."""

import numpy as np
import pytest
from adlik_kernels import ImageInput, InvalidOperand, stack
from hypothesis import given, settings
from hypothesis import strategies as st

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def picture(rows, columns, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (rows, columns, 3)).astype(np.uint8)


def resized(image, height, width):
    """Bilinear with half-pixel centres and clamped edges, by np.interp along each axis."""

    def along(array, size, axis):
        count = array.shape[axis]
        places = (np.arange(size) + 0.5) * count / size - 0.5
        return np.apply_along_axis(lambda v: np.interp(places, np.arange(count), v), axis, array)

    return along(along(image.astype(np.float64), height, 0), width, 1)


def reference(image, height, width, mean, std, swap):
    real = resized(image[..., ::-1] if swap else image, height, width) / 255
    return ((real - mean) / std).transpose(2, 0, 1)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 60),
    columns=st.integers(1, 60),
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    swap=st.booleans(),
)
def test_random_sizes(rows, columns, height, width, swap):
    image = picture(rows, columns)
    got = ImageInput(height, width, MEAN, STD, swap=swap)(image)
    want = reference(image, height, width, MEAN, STD, swap)
    np.testing.assert_allclose(got, want, atol=2e-5)


def test_a_large_picture_is_shared_and_the_same():
    image = picture(480, 640)
    want = reference(image, 224, 224, MEAN, STD, swap=True)
    np.testing.assert_allclose(ImageInput(224, 224, MEAN, STD, swap=True)(image), want, atol=2e-5)


@pytest.mark.parametrize(("rows", "columns"), [(30, 60), (60, 30), (7, 7), (1, 50), (50, 1)])
def test_a_letterbox_keeps_proportions_and_fills_the_rest(rows, columns):
    image = picture(rows, columns)
    prepare = ImageInput(32, 32, letterbox=True, fill=51)
    placed = prepare.placement(rows, columns)
    assert max(placed.height, placed.width) == 32
    got = prepare(image)
    inside = np.zeros((32, 32), bool)
    window = (
        slice(placed.top, placed.top + placed.height),
        slice(placed.left, placed.left + placed.width),
    )
    inside[window] = True
    np.testing.assert_allclose(got[:, ~inside], 0.2, atol=1e-6)
    want = reference(image, placed.height, placed.width, (0, 0, 0), (1, 1, 1), swap=False)
    np.testing.assert_allclose(got[:, *window], want, atol=2e-5)


def test_a_quantized_input_is_within_one_level():
    image = picture(50, 70)
    got = ImageInput(33, 40, MEAN, STD, scale=0.0187, zero=114)(image)
    real = reference(image, 33, 40, MEAN, STD, swap=False)
    want = np.clip(np.rint(real / 0.0187) + 114, 0, 255)
    assert got.dtype == np.uint8
    assert np.abs(got.astype(int) - want).max() <= 1


def test_a_batch_of_different_pictures():
    prepare = ImageInput(20, 30, MEAN, STD)
    images = [picture(10, 10), picture(40, 50), picture(20, 30)]
    batch = stack(images, prepare)
    assert batch.shape == (3, 3, 20, 30)
    for image, row in zip(images, batch, strict=True):
        assert (row == prepare(image)).all()


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.tuples(*[st.integers(1, 40)] * 2),
    before=st.tuples(*[st.integers(0, 9)] * 2),
    after=st.tuples(*[st.integers(0, 9)] * 2),
    quantized=st.booleans(),
)
def test_a_cut_is_prepared_where_it_lies(sizes, before, after, quantized):
    (rows, columns), (top, left) = sizes, before
    whole = picture(top + rows + after[0], left + columns + after[1])
    cut = whole[top : top + rows, left : left + columns]
    prepare = ImageInput(13, 11, MEAN, STD, scale=0.0187 * quantized, zero=114)
    np.testing.assert_array_equal(prepare(cut), prepare(np.ascontiguousarray(cut)))


def test_a_row_of_padding_is_never_read_as_a_picture():
    whole = np.full((5, 8, 3), 255, np.uint8)
    whole[:, :4] = 0
    assert not ImageInput(6, 6)(whole[:, :4]).any()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 8, 3), np.uint8)[::-1],
        np.broadcast_to(np.zeros((1, 8, 3), np.uint8), (4, 8, 3)),
        np.zeros((4, 8, 4), np.uint8)[:, :, :3],
        np.zeros((4, 8, 3), np.float32)[:, :4],
        np.zeros((4, 8, 3), np.uint8)[:, :, ::-1],
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 8, 3), np.uint8)[:, ::2],
    ],
)
def test_bad_pictures_are_refused(image):
    with pytest.raises(InvalidOperand):
        ImageInput(8, 8)(image)


def test_bad_results_and_settings_are_refused():
    image = picture(4, 4)
    for out in (np.zeros((3, 8, 7), np.float32), np.zeros((3, 8, 8), np.uint8)):
        with pytest.raises(InvalidOperand):
            ImageInput(8, 8)(image, out=out)
    with pytest.raises(InvalidOperand):
        stack([], ImageInput(8, 8))
    with pytest.raises(InvalidOperand):
        ImageInput(8, 8, std=(0.0, 1.0, 1.0))
