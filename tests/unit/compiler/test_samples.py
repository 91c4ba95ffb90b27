"""Samples fit the model or are refused; made-up ones are the same every time."""

from __future__ import annotations

import numpy as np
import pytest
from adlik_common.errors import InvalidSamples
from adlik_common.tensors import TensorSpec
from adlik_compiler.samples import generate_samples, read_samples
from adlik_runtimes.onnxruntime import ENGINE

X = TensorSpec("x", "FP32", (-1, 4))


def npz(tmp_path, **arrays):
    path = tmp_path / "samples.npz"
    np.savez(path, **arrays)
    return path


def test_samples_keep_their_labels_in_a_random_but_fixed_order(tmp_path):
    x = np.repeat(np.arange(50, dtype=np.float32)[:, None], 4, axis=1)
    path = npz(tmp_path, x=x, labels=np.arange(50))
    first, second = (read_samples(path, [X], limit=20) for _ in range(2))
    assert len(first.runs) == 20
    assert [run["x"][0, 0] for run in first.runs] == list(first.labels)
    assert list(first.labels) == list(second.labels)
    assert list(first.labels) != sorted(first.labels)
    assert all(run["x"].shape == (1, 4) for run in first.runs)


def test_a_fixed_number_of_rows_takes_that_many_samples_at_once(tmp_path):
    path = npz(tmp_path, x=np.zeros((10, 4), np.float32), labels=np.zeros(10, np.int64))
    samples = read_samples(path, [TensorSpec("x", "FP32", (3, 4))], limit=99)
    assert [run["x"].shape for run in samples.runs] == [(3, 4)] * 3
    assert samples.labels is None


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"y": np.zeros((2, 4), np.float32)},
        {"x": np.zeros((2, 5), np.float32)},
        {"x": np.zeros((2, 4), np.float64)},
        {"x": np.zeros((0, 4), np.float32)},
        {"x": np.float32(1)},
    ],
    ids=["none", "name", "shape", "dtype", "no samples", "scalar"],
)
def test_what_does_not_fit_is_refused(tmp_path, arrays):
    with pytest.raises(InvalidSamples):
        read_samples(npz(tmp_path, **arrays), [X], limit=8)


def test_an_archive_with_objects_or_without_sense_is_refused(tmp_path):
    with pytest.raises(InvalidSamples):
        read_samples(npz(tmp_path, x=np.array([{}, {}])), [X], limit=8)
    bad = tmp_path / "bad.npz"
    bad.write_bytes(b"PK\x03\x04 not really")
    with pytest.raises(InvalidSamples):
        read_samples(bad, [X], limit=8)


def test_made_up_samples_are_the_same_every_time_and_run(save):
    model = ENGINE.load(save())
    first, second = generate_samples(model), generate_samples(model)
    assert first.source == "generated"
    assert first.labels is None
    for left, right in zip(first.runs, second.runs, strict=True):
        np.testing.assert_array_equal(left["x"], right["x"])
    assert model.run(first.runs[0])["scores"].shape == (1, 10)
    assert not np.array_equal(first.runs[0]["x"], first.runs[1]["x"])
