"""Evidence that this machine has gathered, kept for the next variants of the same version."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from adlik_proto.adlik.model.v1 import model_pb2

from adlik_compiler.verify import Effort

MOST = 8
"""Versions whose evidence is kept; the oldest go."""


class KeptEvidence:
    """A folder of evidence, each file named by what it was gathered of.

    Args:
        folder: Made when it is first needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def place(self, digests: Sequence[str], samples: model_pb2.ArtifactRef, effort: Effort) -> Path:
        """Returns the file for a model, its samples and how much is gathered."""
        parts = [
            *digests,
            samples.digest,
            json.dumps(asdict(effort), sort_keys=True),
            *(metadata.version(name) for name in ("adlik-proof", "onnxruntime", "numpy")),
        ]
        return self._folder / f"{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()}.npz"

    def keep(self, made: Path, place: Path) -> None:
        """Moves a file to its place; what is older than the newest few goes."""
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = place.with_suffix(f".{os.getpid()}")
        shutil.move(made, partial)
        partial.replace(place)
        files = sorted(self._folder.glob("*.npz"), key=lambda file: file.stat().st_mtime)
        for file in files[:-MOST]:
            file.unlink(missing_ok=True)
