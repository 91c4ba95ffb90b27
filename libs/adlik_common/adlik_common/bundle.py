"""Several files as one artifact: a zip, stored and not compressed, always of the same bytes."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from adlik_common.errors import CorruptArtifact, TooLarge, UnsafePath

MEDIA_TYPE = "application/zip"
MAX_FILES = 1000
_EPOCH = (1980, 1, 1, 0, 0, 0)
# What zipfile raises of broken bytes; OSError also of names that can't stand side by side.
_UNREADABLE = (
    zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, RuntimeError,
)  # fmt: skip


def pack(folder: Path, files: Sequence[str], archive: Path) -> None:
    """Writes files of a folder into a zip whose bytes depend on their names and contents only."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as out:
        for name in sorted(files):
            entry = zipfile.ZipInfo(safe_name(name), date_time=_EPOCH)
            with (folder / name).open("rb") as source, out.open(entry, "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)


def unpack(archive: Path, folder: Path, *, max_bytes: int) -> None:
    """Writes a bundle's files into a folder.

    Raises:
        UnsafePath: A name points outside the folder.
        TooLarge: The files together have more than `max_bytes`.
        CorruptArtifact: The archive can't be read.
    """
    try:
        with zipfile.ZipFile(archive) as source:
            entries = source.infolist()
            size = sum(entry.file_size for entry in entries)
            if len(entries) > MAX_FILES or size > max_bytes:
                raise TooLarge(f"The bundle holds {len(entries)} files of {size} bytes in all.")
            for entry in entries:
                target = folder / safe_name(entry.filename)
                target.parent.mkdir(parents=True, exist_ok=True)
                with source.open(entry) as data, target.open("wb") as out:
                    shutil.copyfileobj(data, out, 1 << 20)
    except _UNREADABLE as error:
        raise CorruptArtifact(f"The bundle can't be unpacked: {error}.") from error


def safe_name(name: str) -> str:
    """Returns a relative file name; raises `UnsafePath` where it leaves its folder."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name or "\0" in name:
        raise UnsafePath(
            f"The file name '{name[:80]}' points outside the upload.",
            cure="Use names relative to the model file, without '..'.",
        )
    return str(path)
