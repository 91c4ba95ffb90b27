"""Puts a pushed model's artifacts into a folder as the files that engines and converters expect."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from pathlib import Path

from adlik_proto.adlik.model.v1 import model_pb2

from adlik_common.artifacts import ArtifactStore
from adlik_common.bundle import safe_name


async def materialise(
    artifacts: ArtifactStore, source: model_pb2.ModelSource, folder: Path
) -> Path:
    """Returns the model file in a new folder, the files that it refers to beside it.

    Args:
        artifacts: Where the bytes are.
        source: The model.
        folder: Made here; must not exist.

    Raises:
        UnsafePath: An external file's name points outside the folder.
        NotFound: An artifact is gone.
    """
    folder.mkdir()
    stored = await artifacts.fetch(source.artifact)
    model = folder / f"model.{source.format}"
    if not source.external_files:
        model.symlink_to(stored)
        return model
    # Engines refuse external data behind links, so these are copies.
    await asyncio.to_thread(shutil.copyfile, stored, model)
    for file in source.external_files:
        target = folder / safe_name(file.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(shutil.copyfile, await artifacts.fetch(file.artifact), target)
    return model


async def materialise_once(
    artifacts: ArtifactStore, source: model_pb2.ModelSource, folder: Path
) -> Path:
    """Returns the model file for reading, in a folder that stays where it needs one.

    Args:
        artifacts: Where the bytes are.
        source: The model.
        folder: Where models with external files are kept, a folder each.
    """
    if not source.external_files:
        return await artifacts.fetch(source.artifact)
    name = hashlib.sha256(source.SerializeToString(deterministic=True)).hexdigest()
    kept = folder / name
    if not kept.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{name}.{os.getpid()}"
        shutil.rmtree(partial, ignore_errors=True)
        await materialise(artifacts, source, partial)
        partial.replace(kept)
    return kept / f"model.{source.format}"
