"""Pushed samples: only archives that fit the model, and nothing else than `InvalidSamples`."""

import io
import random
import zipfile

import numpy as np
import pytest
from adlik_common.errors import InvalidSamples
from adlik_common.tensors import TensorSpec
from adlik_gateway.upload.samples import check_samples
from numpy.lib import format as npy

INPUTS = (TensorSpec("x", "FP32", (-1, 3, -1)), TensorSpec("ids", "INT64", (1,)))
X = np.arange(4 * 3 * 5, dtype=np.float32).reshape(4, 3, 5)
IDS = np.arange(4)


@pytest.fixture
def checked(tmp_path):
    """Checks arrays, or the bytes of an archive."""

    def check(archive=None, *, inputs=INPUTS, max_bytes=10**6, **arrays):
        path = tmp_path / "s.npz"
        if archive is None:
            np.savez(path, **{"x": X, "ids": IDS, **arrays})
        else:
            path.write_bytes(archive)
        return check_samples(path, inputs, max_bytes=max_bytes)

    return check


def archive(members, compression=zipfile.ZIP_STORED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as made:
        for name, data in members.items():
            made.writestr(name, data)
    return out.getvalue()


def saved(array, version=None):
    out = io.BytesIO()
    npy.write_array(out, array, version, allow_pickle=True)
    return out.getvalue()


def header(text, version=b"\x01\x00"):
    size = len(text).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    return b"\x93NUMPY" + version + size + text.encode()


def claiming(shape, descr="<f4"):
    return header(f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n")


@pytest.mark.parametrize("labels", [None, np.zeros(4, np.int64), np.zeros(4, np.uint8)])
def test_arrays_that_fit_are_counted(checked, labels):
    assert checked(**({} if labels is None else {"labels": labels})) == 4


def test_the_order_in_memory_and_compression_do_not_matter(checked, tmp_path):
    assert checked(x=np.asfortranarray(X)) == 4
    np.savez_compressed(tmp_path / "c.npz", x=X, ids=IDS)
    assert check_samples(tmp_path / "c.npz", INPUTS, max_bytes=10**6) == 4


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_the_format_is_read(checked, version):
    members = {"x.npy": saved(X, version), "ids.npy": saved(IDS, version)}
    assert checked(archive(members)) == 4


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_values_that_are_no_numbers_are_counted_and_refused(checked, bad, dtype):
    x = X.astype(dtype)
    x[2, 1, 3] = x[0, 0, 0] = bad
    datatype = {"float16": "FP16", "float32": "FP32", "float64": "FP64"}[dtype]
    with pytest.raises(InvalidSamples, match="2 values that are NaN"):
        checked(x=x, inputs=(TensorSpec("x", datatype, (-1, 3, 5)), INPUTS[1]))


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"x": X.astype(np.float64)}, "dtype float64"),
        ({"x": X.astype(">f4")}, "dtype >f4"),
        ({"x": X.view([("r", "<f4")])}, "dtype"),
        ({"x": X[:, :2]}, r"shape \[4, 2, 5\]"),
        ({"x": X[..., None]}, "shape"),
        ({"x": X.astype(object)}, "dtype object"),
        ({"x": np.float32(1)}, r"shape \[\]"),
        ({"y": X}, "hold 'y'"),
        ({"x": X[:3]}, "different numbers"),
        ({"labels": np.zeros(3, np.int64)}, "different numbers"),
        ({"x": X[:0], "ids": IDS[:0]}, "or none"),
        ({"labels": np.zeros((4, 1), np.int64)}, "labels"),
        ({"labels": np.zeros(4, np.float32)}, "labels"),
        ({"labels": np.array(["a"] * 4)}, "labels"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(checked, arrays, said):
    with pytest.raises(InvalidSamples, match=said) as caught:
        checked(**arrays)
    assert caught.value.cure


def test_a_missing_input_is_named(checked):
    with pytest.raises(InvalidSamples, match=r"lack .*\['ids'\]"):
        checked(archive({"x.npy": saved(X)}))


@pytest.mark.parametrize(
    "data",
    [
        claiming("(1000000000, 3, 1000)"),
        claiming(f"({10**30}, 3, 0)"),
        claiming("(-1, 3, 5)") + X.tobytes(),
        claiming("(-4, 3, -5)") + X.tobytes(),
        claiming("(4, 3, 5)") + X.tobytes()[:-1],
        claiming("(4, 3, 5)", "<U0"),
        claiming("(4, 3, 5)", "|O") + b"cposix\nsystem\n(S'id'\ntR.",
        claiming("4"),
        claiming("(4.0, 3, 5)"),
        header("{"),
        header("[" * 200),
        header("(" * 90 + "'"),
        header("{'descr': '<f4'}"),
        header("{'descr': '<f4', 'fortran_order': 1j, 'shape': (1,)}"),
        header("\0" * 20),
        header("-" * 9000 + "1"),
        header("{'descr': [], 'fortran_order': False, 'shape': (4,)}"),
        b"\x93NUMPY\x09\x09",
        b"\x93NUMPY",
        b"no array",
        b"",
    ],
)
def test_hostile_members_are_refused(checked, data):
    with pytest.raises(InvalidSamples):
        checked(archive({"x.npy": data, "ids.npy": saved(IDS)}))


def test_a_bomb_is_refused_by_its_size_unpacked(checked):
    bomb = archive({"x.npy": claiming("(1,)") + bytes(5_000_000)}, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 10_000
    with pytest.raises(InvalidSamples, match="unpack to more"):
        checked(bomb)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"x" * 1000, b"PK\x05\x06" + bytes(18)])
def test_what_is_no_archive_is_refused(checked, data):
    with pytest.raises(InvalidSamples):
        checked(data)


@pytest.mark.parametrize(
    "compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_archives_with_flipped_bytes_are_read_or_refused(checked, compression):
    good = archive({"x.npy": saved(X), "ids.npy": saved(IDS)}, compression)
    assert checked(good) == 4
    rng, refused = random.Random(1), 0
    for turn in range(400):
        broken = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        if turn % 4 == 0:
            del broken[rng.randrange(len(broken)) :]
        try:
            assert checked(bytes(broken)) > 0
        except InvalidSamples:
            refused += 1
    assert refused > 100


@pytest.mark.filterwarnings("ignore")  # numpy warns of what it finds strange in a header
def test_headers_with_flipped_bytes_are_read_or_refused(checked):
    good, rng, refused = saved(X), random.Random(2), 0
    for _ in range(600):
        broken = bytearray(good)
        for _ in range(rng.randint(1, 3)):
            broken[rng.randrange(128)] = rng.choice(b"'\"()[]{},:-019azTF\\\n\0\xff")
        try:
            checked(archive({"x.npy": bytes(broken), "ids.npy": saved(IDS)}))
        except InvalidSamples:
            refused += 1
    assert refused > 300
