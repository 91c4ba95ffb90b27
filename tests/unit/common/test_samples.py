"""One rule for samples: which arrays are how many runs of which inputs."""

from __future__ import annotations

import numpy as np
import pytest
from adlik_common.errors import InvalidSamples
from adlik_common.samples import LABELS, Layout, labels_name, layout_of, read_samples
from adlik_common.tensors import TensorSpec

ROWS = TensorSpec("x", "FP32", (-1, 4))
FIXED = TensorSpec("x", "FP32", (4, 3))
SCALAR = TensorSpec("k", "INT64", ())
STATE = TensorSpec("state", "FP32", (2, -1, 8))
TEXTS = TensorSpec("s", "BYTES", (-1, 2))
F4 = np.dtype("f4")


@pytest.mark.parametrize(
    ("spec", "dtype", "shape", "layout"),
    [
        (ROWS, F4, (9, 4), Layout(runs=9, rows=1)),
        (ROWS, F4, (9, 5, 4), Layout(runs=9, rows=0)),
        (FIXED, F4, (9, 3), Layout(runs=2, rows=4)),
        (FIXED, F4, (9, 4, 3), Layout(runs=9, rows=0)),
        (SCALAR, np.dtype("i8"), (), Layout(runs=0, rows=0)),
        (SCALAR, np.dtype("i8"), (9,), Layout(runs=9, rows=0)),
        (STATE, F4, (9, 2, 1, 8), Layout(runs=9, rows=0)),
        (STATE, F4, (4, 1, 8), Layout(runs=2, rows=2)),
        (TEXTS, np.dtype("U7"), (9, 2), Layout(runs=9, rows=1)),
    ],
)
def test_an_array_holds_rows_or_whole_inputs(spec, dtype, shape, layout):
    assert layout_of(spec, dtype, shape) == layout


@pytest.mark.parametrize(
    ("spec", "dtype", "shape"),
    [
        (ROWS, F4, ()),
        (ROWS, F4, (9,)),
        (ROWS, F4, (9, 5)),
        (ROWS, np.dtype("f8"), (9, 4)),
        (ROWS, np.dtype(">f4"), (9, 4)),
        (ROWS, np.dtype("U7"), (9, 4)),
        (STATE, F4, (9, 3, 1, 8)),
        (SCALAR, np.dtype("i8"), (9, 1)),
    ],
)
def test_what_does_not_fit_is_refused_with_the_cure(spec, dtype, shape):
    with pytest.raises(InvalidSamples) as caught:
        layout_of(spec, dtype, shape)
    assert caught.value.cure


@pytest.fixture
def read(tmp_path):
    def reading(inputs, **arrays):
        np.savez(tmp_path / "s.npz", **arrays)
        return read_samples(tmp_path / "s.npz", inputs)

    return reading


def test_inputs_of_different_forms_make_runs_together(read):
    x = np.arange(9 * 4, dtype="f4").reshape(9, 4)
    state = np.arange(9 * 2 * 1 * 8, dtype="f4").reshape(9, 2, 1, 8)
    found = read([ROWS, SCALAR, STATE], x=x, k=np.array(7), state=state)
    assert found.count == 9
    run = found.run(5)
    np.testing.assert_array_equal(run["x"], x[5:6])
    np.testing.assert_array_equal(run["state"], state[5])
    assert run["k"].shape == ()
    assert run["k"] == 7


def test_first_dimensions_of_different_sizes_are_counted_each_by_its_own(read):
    size = TensorSpec("shape", "INT64", (2,))
    one = TensorSpec("x", "FP32", (1, 12))
    found = read([one, size], x=np.ones((8, 12), "f4"), shape=np.arange(16))
    assert found.count == 8
    assert found.run(3)["shape"].tolist() == [6, 7]
    with pytest.raises(InvalidSamples, match="different numbers"):
        read([one, size], x=np.ones((8, 12), "f4"), shape=np.arange(8))


def test_rows_of_an_open_input_are_shared_out_over_the_runs_of_the_others(read):
    nodes, edges = TensorSpec("n", "FP32", (-1, 3)), TensorSpec("e", "INT64", (2, -1))
    found = read([nodes, edges], n=np.ones((16, 3), "f4"), e=np.zeros((16, 5), np.int64))
    assert found.count == 8
    assert {name: array.shape for name, array in found.run(7).items()} == {"n": (2, 3), "e": (2, 5)}


def test_an_input_called_labels_is_an_input(read):
    spec = TensorSpec(LABELS, "FP32", (-1, 4))
    assert labels_name([spec]) == ""
    found = read([spec], labels=np.ones((9, 4), "f4"))
    assert found.labels is None
    assert found.run(0)[LABELS].shape == (1, 4)


def test_texts_come_as_texts(read):
    found = read([TEXTS], s=np.array([["a", "weiß"], ["", "c"]]))
    assert found.run(0)["s"].dtype == np.object_
    assert found.run(0)["s"].tolist() == [["a", "weiß"]]


@pytest.mark.parametrize("count", [1, 7, 15, 16, 33, 500])
def test_what_calibrates_does_not_judge_where_there_are_enough(read, count):
    found = read([ROWS], x=np.ones((count, 4), "f4"), labels=np.arange(count))
    calibrating, judging = set(found.calibrating()), set(found.judging())
    assert calibrating | judging == set(range(count))
    assert found.is_shared == (count < 16)
    assert calibrating & judging == (set(range(count)) if count < 16 else set())
    assert found.judging() == read([ROWS], x=np.ones((count, 4), "f4")).judging()


def test_what_is_no_archive_is_refused(tmp_path):
    (tmp_path / "s.npz").write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(InvalidSamples):
        read_samples(tmp_path / "s.npz", [ROWS])
    np.savez(tmp_path / "o.npz", x=np.array([{}, {}]))
    with pytest.raises(InvalidSamples):
        read_samples(tmp_path / "o.npz", [ROWS])
