"""Bundles: the same bytes for the same files, and nothing leaves the folder it is unpacked to."""

import os
import random
import zipfile

import pytest
from adlik_common.bundle import MAX_FILES, pack, safe_name, unpack
from adlik_common.errors import CorruptArtifact, TooLarge, UnsafePath
from hypothesis import given
from hypothesis import strategies as st


def zipped(path, entries, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return path


def folder_of(path, files):
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def test_the_same_files_give_the_same_bytes_and_come_back(tmp_path):
    files = {"model.xml": b"<net/>", "model.bin": os.urandom(3_000_000), "a/b.bin": b""}
    packed = []
    for turn, names in enumerate([list(files), list(reversed(files))]):
        folder = folder_of(tmp_path / str(turn), files)
        os.utime(folder / "model.bin", (turn * 1e6, turn * 1e6))
        (folder / "model.xml").chmod(0o600 if turn else 0o644)
        pack(folder, names, tmp_path / f"{turn}.zip")
        packed.append((tmp_path / f"{turn}.zip").read_bytes())
    assert packed[0] == packed[1]
    unpack(tmp_path / "0.zip", tmp_path / "out", max_bytes=10**7)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in files} == files


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "..", ".", "", "a\\..\\x", "a\0b"])
def test_names_that_leave_their_folder_are_refused(name, tmp_path):
    with pytest.raises(UnsafePath):
        safe_name(name)
    if name and "\0" not in name:  # zipfile itself refuses the one and cuts the other
        with pytest.raises(UnsafePath):
            unpack(zipped(tmp_path / "z", [(name, b"x")]), tmp_path / "out", max_bytes=10)
        assert not (tmp_path / "x").exists()


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_a_safe_name_lies_below_its_folder_and_is_safe_again(name):
    try:
        safe = safe_name(name)
    except UnsafePath:
        return
    assert safe_name(safe) == safe
    assert os.path.normpath(f"/folder/{safe}").startswith("/folder/")


def test_a_bomb_is_refused_before_anything_is_written(tmp_path):
    bomb = zipped(tmp_path / "z", [("a", bytes(10_000_000))], compression=zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 20_000
    with pytest.raises(TooLarge):
        unpack(bomb, tmp_path / "out", max_bytes=9_999_999)
    assert not (tmp_path / "out").exists()


def test_too_many_files_are_refused(tmp_path):
    many = zipped(tmp_path / "z", [(str(i), b"") for i in range(MAX_FILES + 1)])
    with pytest.raises(TooLarge):
        unpack(many, tmp_path / "out", max_bytes=10**9)


def test_a_file_that_claims_to_be_small_is_not_written_beyond_its_claim(tmp_path):
    data = bytearray(
        zipped(
            tmp_path / "z", [("a", bytes(1_000_000))], compression=zipfile.ZIP_DEFLATED
        ).read_bytes()
    )
    claimed = (1_000_000).to_bytes(4, "little")
    data = data.replace(claimed, (10).to_bytes(4, "little"))
    (tmp_path / "z").write_bytes(data)
    with pytest.raises(CorruptArtifact):
        unpack(tmp_path / "z", tmp_path / "out", max_bytes=100)
    assert (tmp_path / "out" / "a").stat().st_size <= 10


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_broken_archives_are_corrupt_artifacts(tmp_path, compression):
    good = zipped(
        tmp_path / "z", [("a", b"ab" * 200), ("b/c", b"x" * 50)], compression=compression
    ).read_bytes()
    rng = random.Random(0)
    failed = 0
    for turn in range(300):
        broken = bytearray(good)
        for _ in range(rng.randint(1, 4)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        if turn % 3 == 0:
            del broken[rng.randrange(len(broken)) :]
        (tmp_path / "z").write_bytes(broken)
        try:
            unpack(tmp_path / "z", tmp_path / "out" / str(turn), max_bytes=10_000)
        except (CorruptArtifact, UnsafePath, TooLarge):
            failed += 1
    assert failed > 100


def test_a_file_where_a_folder_is_wanted_is_a_corrupt_artifact(tmp_path):
    with pytest.raises(CorruptArtifact):
        unpack(zipped(tmp_path / "z", [("a", b""), ("a/b", b"")]), tmp_path / "o", max_bytes=9)
