"""The child that runs random graphs: of a seed, or from a file. See `__main__.py`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from adlik_kernels import UnsupportedGraph, configure, load_model
from adlik_kernels.plans import costs, layouts

from tests.conformance.children import serve
from tests.conformance.judge import NEAR, Reference, judged
from tests.fuzz.findings import read_finding
from tests.fuzz.generate import generated
from tests.fuzz.guards import algorithms, fenced, poison

WINOGRAD = 5e-5
"""What `judge.NEAR` is where a convolution may be computed by Winograd's algorithm."""

Feeds = list[dict[str, np.ndarray]]


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """Says what became of a graph.

    Returns:
        "verdict": "right", "wrong" (with words), or "invalid", where ONNX Runtime can't run it;
        "plans": how many of the nodes run in plans.
    """
    found = generated(job["seed"]) if "seed" in job else read_finding(Path(job["path"]))
    verdicts = []
    for drawn in (False, True):
        with algorithms(drawn=drawn):
            verdicts.append(checked(*found))
        if verdicts[-1]["verdict"] != "right" or not verdicts[-1]["plans"]:
            break
    return verdicts[-1]


def checked(model: onnx.ModelProto, feeds: Feeds) -> dict[str, Any]:
    """See `answer`."""
    try:
        reference = Reference(model)
        for feed in feeds:
            reference(feed)
    except Exception as error:  # noqa: BLE001 # ONNX Runtime's have no class of their own
        return {"verdict": "invalid", "words": str(error)[:200]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        try:
            loaded = load_model(path)
        except UnsupportedGraph as error:
            return {"verdict": "right", "plans": 0, "words": error.message}
        except Exception as error:  # noqa: BLE001 # as above: it loads there
            return {"verdict": "wrong", "words": f"load: {type(error).__name__}: {error}"}
        plans = sum(part.nodes for part in loaded.parts if part.engine == "kernels")
        words = _plain(reference, loaded, feeds)
        if not words and plans:
            words = _guarded(path, reference, loaded, feeds)
    return {"verdict": "wrong" if words else "right", "plans": plans, "words": words}


def _plain(reference: Reference, loaded: Any, feeds: Feeds) -> str:
    """Every input against the reference, the first once more when others have been there."""
    for feed in (*feeds, feeds[0]):
        try:
            got = loaded(feed)
        except Exception as error:  # noqa: BLE001 # whatever it is, the reference answers
            if reference.fails_optimized(feed):
                continue
            return f"{_sizes(feed)}: {type(error).__name__}: {error}"
        if words := judged(reference, feed, got, _near(loaded)):
            return f"{_sizes(feed)}: {words}"
    return ""


def _near(loaded: Any) -> float:
    """Part of the largest number that answers may differ by: Winograd rounds by more."""
    operators = (o for graph in loaded.graphs if graph is not None for o in graph.operators)
    has_convolutions = any(operator.kind == "conv" for operator in operators)
    return WINOGRAD if has_convolutions and layouts.known_costs is not costs.known_costs else NEAR


def _guarded(path: Path, reference: Reference, loaded: Any, feeds: Feeds) -> str:
    """The same answers, wherever arrays lie and whatever lay there before.

    They are the same bit by bit where ONNX Runtime has no part in them: its sums depend on where
    arrays begin.
    """
    near = _near(loaded)
    is_exact = all(part.engine == "kernels" for part in loaded.parts)
    for side in ("end", "begin"):
        with fenced(side) as (fence, plans):
            again = load_model(path)
            for feed in feeds:
                if not all(a.size for a in feed.values()) and reference.fails_optimized(feed):
                    continue
                want = loaded(feed)
                for _ in range(2):
                    got = again({name: fence.copy(array) for name, array in feed.items()})
                    for plan in plans:
                        poison(plan)
                    words = _same(want, got)
                    if words and (is_exact or judged(reference, feed, got, near)):
                        return f"{_sizes(feed)}, arrays elsewhere ({side}): {words}"
            fence.check()
    return ""


def _same(want: dict[str, Any], got: dict[str, Any]) -> str:
    for name, array in want.items():
        if not np.array_equal(array, got[name], equal_nan=True):
            return f"{name} is another"
    return ""


def _sizes(feed: dict[str, np.ndarray]) -> str:
    return " ".join(f"{name}{list(array.shape)}" for name, array in feed.items())


if __name__ == "__main__":
    configure(cache=Path(sys.argv[1]), threads=int(sys.argv[2]) if sys.argv[2:] else 2)
    serve(answer)
