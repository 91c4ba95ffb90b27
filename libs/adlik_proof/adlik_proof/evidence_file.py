"""Evidence as a file: gathered by one process, used by those that check variants."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from adlik_proof.evidence import Evidence, Run
from adlik_proof.noise import Noise

Array = np.ndarray[Any, np.dtype[Any]]

_PLAIN_FIELDS = (
    "source", "scores_noise", "axes", "independent", "dependence", "missing", "shared", "levels",
    "unrunnable",
)  # fmt: skip
_NOISE = ("rms", "peak", "spread", "step")


def save(found: Evidence, path: Path) -> None:
    """Writes evidence as an NPZ archive that holds no pickled objects."""
    arrays: dict[str, Array] = {}

    def keep(array: Array) -> str:
        key = f"a{len(arrays)}"
        arrays[key] = array.astype(np.str_) if array.dtype == np.object_ else array
        return key

    def keep_all(by_name: Mapping[str, Array]) -> dict[str, str]:
        return {name: keep(np.asarray(array)) for name, array in by_name.items()}

    meta: dict[str, Any] = {name: getattr(found, name) for name in _PLAIN_FIELDS}
    meta["runs"] = [
        {
            "kind": run.kind, "group": run.group, "label": run.label,
            "inputs": keep_all(run.inputs), "expected": keep_all(run.expected),
            "unsure": keep_all(run.unsure), "scores": keep_all(run.scores),
        }
        for run in found.runs
    ]  # fmt: skip
    meta["noise"] = {
        group: {
            name: {"axis": known.axis, **{part: keep(getattr(known, part)) for part in _NOISE}}
            for name, known in outputs.items()
        }
        for group, outputs in found.noise.items()
    }
    meta["timed"] = keep_all(found.timed)
    with path.open("wb") as file:
        arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
        np.savez(file, allow_pickle=False, **arrays)


def load(path: Path) -> Evidence:
    """Returns what `save` has written."""
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        meta = json.loads(archive["meta"].tobytes())

        def get(key: str) -> Array:
            array: Array = archive[key]
            return array.astype(np.object_) if array.dtype.kind == "U" else array

        def get_all(by_name: Mapping[str, str]) -> dict[str, Array]:
            return {name: get(key) for name, key in by_name.items()}

        runs = [
            Run(
                run["kind"], run["group"], get_all(run["inputs"]), get_all(run["expected"]),
                run["label"], get_all(run["unsure"]), get_all(run["scores"]),
            )
            for run in meta["runs"]
        ]  # fmt: skip
        noise = {
            group: {
                name: Noise(n["axis"], *(get(n[part]) for part in _NOISE))
                for name, n in outputs.items()
            }
            for group, outputs in meta["noise"].items()
        }
        timed = get_all(meta["timed"])
    plain = {name: meta[name] for name in _PLAIN_FIELDS}
    return Evidence(runs=runs, noise=noise, timed=timed, **plain)
