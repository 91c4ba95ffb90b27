"""Puts artifacts into a folder as the files that a conversion expects."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from adlik_common.artifacts import ArtifactStore
from adlik_common.bundle import safe_name
from adlik_proto.adlik.model.v1 import model_pb2


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
