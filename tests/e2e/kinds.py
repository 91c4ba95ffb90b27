"""Small models of the kinds that matter to requests which share a run, and different requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from tests.unit.proof.models import I64, NODE, TEXT, F, mlp, model, normal

CLIENTS = 8
BOOL = onnx.TensorProto.BOOL

Inputs = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Kind:
    """A model of a kind.

    Attributes:
        name: Of the kind and of the model.
        made: The model.
        request: Makes the inputs of one of the `CLIENTS` clients; one of them may be refused.
        shares_runs: Whether requests may be run together.
        samples: Makes samples to calibrate with; None: there are none, and no int8.
    """

    name: str
    made: onnx.ModelProto
    request: Callable[[int], Inputs]
    shares_runs: bool
    samples: Callable[[], Inputs] | None = None

    def requests(self) -> Sequence[Inputs]:
        """Returns what each client asks."""
        return [self.request(number) for number in range(CLIENTS)]


def rows(width: int) -> Callable[[int], Inputs]:
    """Returns a maker of one to five rows; NaN in one client's, a wrong width in another's."""

    def request(number: int) -> Inputs:
        made = normal(1 + number % 5, width + (number == 7), seed=100 + number)
        if number == 5:
            made[0, 1] = np.nan
        return {"x": made}

    return request


def tokens(number: int) -> Inputs:
    """Rows and lengths differ; some clients' lengths are equal and may share a run."""
    random = np.random.default_rng(number)
    return {"ids": random.integers(0, 50, (1 + number % 3, (3, 7, 7, 12)[number % 4]))}


def two_sizes(number: int) -> Inputs:
    """Queries and keys, each of a number of their own."""
    return {
        "q": normal(1 + number % 4, 6, seed=200 + number),
        "k": normal(2 + number % 3, 6, seed=300 + number),
    }


def words(number: int) -> Inputs:
    """Texts, some of them unknown to the model."""
    known = ["red", "green", "blue", "", "weiß", "no such colour"]
    chosen = [known[(number + at) % len(known)] for at in range(1 + number % 4)]
    return {"s": np.array(chosen, np.object_)}


def steps(number: int) -> Inputs:
    """A sequence with the state that another has left: batch is the second axis."""
    batch = 1 + number % 3
    return {
        "x": normal(2 + number % 4, batch, 3, seed=400 + number),
        "h": normal(1, batch, 4, seed=500 + number),
    }


def _one(nodes: Sequence[onnx.NodeProto], kind: int, *, weights: Inputs | None = None):
    """A model [n, 6] to [n, 6]."""
    return model(nodes, [("x", F, ["n", 6])], [("y", kind, ["n", 6])], weights or {})


_AXIS = {"axis": np.array(0, np.int64), "axes": np.array([0], np.int64)}

MEAN = _one(
    [
        NODE("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1),
        NODE("Mul", ["m", "weak"], ["w"]),
        NODE("Add", ["x", "w"], ["y"]),
    ],
    F,
    weights={"weak": np.array(0.02, np.float32)},
)
SUMS = _one(
    [
        NODE("Greater", ["x", "zero"], ["p"]),
        NODE("Cast", ["p"], ["i"], to=I64),
        NODE("CumSum", ["i", "axis"], ["y"]),
    ],
    I64,
    weights={"zero": np.array(0, np.float32), "axis": _AXIS["axis"]},
)
RANKS = _one(
    [
        NODE("Shape", ["x"], ["shape"]),
        NODE("Gather", ["shape", "first"], ["n"], axis=0),
        NODE("TopK", ["x", "n"], ["sorted", "y"], axis=0),
    ],
    I64,
    weights={"first": np.array([0], np.int64)},
)
LARGEST = _one(
    [NODE("ReduceMax", ["x"], ["m"], axes=[0], keepdims=1), NODE("Equal", ["x", "m"], ["y"])],
    BOOL,
)
ATTENTION = model(
    [
        NODE("Gather", ["table", "ids"], ["x"]),
        NODE("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
        NODE("MatMul", ["x", "t"], ["scores"]),
        NODE("Softmax", ["scores"], ["shares"], axis=-1),
        NODE("MatMul", ["shares", "x"], ["y"]),
    ],
    [("ids", I64, ["n", "t"])],
    [("y", F, ["n", "t", 8])],
    {"table": normal(50, 8)},
)
PAIRS = model(
    [NODE("Transpose", ["k"], ["t"], perm=[1, 0]), NODE("MatMul", ["q", "t"], ["y"])],
    [("q", F, ["n", 6]), ("k", F, ["m", 6])],
    [("y", F, ["n", "m"])],
)
LABELS = model(
    [
        NODE(
            "LabelEncoder", ["s"], ["y"], domain="ai.onnx.ml",
            keys_strings=["red", "green", "blue", "weiß"], values_int64s=[1, 2, 3, 2**40],
            default_int64=-1,
        )
    ],
    [("s", TEXT, ["n"])],
    [("y", I64, ["n"])],
)  # fmt: skip
GRU = model(
    [NODE("GRU", ["x", "w", "r", "", "", "h"], ["all", "y"], hidden_size=4)],
    [("x", F, ["time", "batch", 3]), ("h", F, [1, "batch", 4])],
    [("y", F, [1, "batch", 4])],
    {"w": normal(1, 12, 3), "r": normal(1, 12, 4)},
)
GAPS = _one(
    [
        NODE("IsNaN", ["x"], ["gap"]),
        NODE("Where", ["gap", "zero", "x"], ["filled"]),
        NODE("MatMul", ["filled", "w"], ["y"]),
    ],
    F,
    weights={"zero": np.array(0, np.float32), "w": normal(6, 6)},
)

KINDS = [
    Kind("rows", mlp("Identity"), rows(16), True, lambda: {"x": normal(64, 16, seed=9)}),
    Kind("gaps", GAPS, rows(6), True),
    Kind("tokens", ATTENTION, tokens, True),
    Kind("texts", LABELS, words, True),
    Kind("weak-mean", MEAN, rows(6), False),
    Kind("running-sums", SUMS, rows(6), False),
    Kind("ranks", RANKS, rows(6), False),
    Kind("largest", LARGEST, rows(6), False),
    Kind("pairs", PAIRS, two_sizes, False),
    Kind("state", GRU, steps, False),
]
