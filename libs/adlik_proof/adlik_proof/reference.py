"""Runs the pushed model as it is served, and plainly: without any optimisation of the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from adlik_common.errors import AdlikError
from adlik_common.tensors import TensorSpec
from adlik_runtimes import onnxruntime
from onnx import numpy_helper

from adlik_proof.choices import Choice, choices_of, expose, levels_of
from adlik_proof.noise import moved_inputs
from adlik_proof.role import Role
from adlik_proof.roles import fills_gaps, has_steps, roles_of

Array = np.ndarray[Any, np.dtype[Any]]

MAX_MOVED_BYTES = 256 * 2**20
"""Size of a model up to which its weights are moved, too: a copy of them is needed."""
SHAKE = 2.0**-9
"""Relative move of inputs that flips some of what is rounded inside a model."""
_WEIGHTED = {"Conv", "ConvTranspose", "Gather", "Gemm", "GRU", "LSTM", "MatMul", "RNN"}
_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE}


class Reference:
    """The pushed model, run by ONNX Runtime.

    Args:
        path: ONNX file, its weights inside.
        threads: Threads of a run; 0: the engine's choice.

    Attributes:
        inputs: What it takes, with the names of open axes.
        roles: What its inputs mean to it.
        choices: Its outputs of indices.
        levels: Its outputs of levels that floats were rounded to.
        fills_gaps: NaN is an ordinary number to it.
        has_steps: A small change inside it can move an output by a step.
        model: It, as it is served.
        path: Its file.

    Raises:
        AdlikError: It can't be loaded.
    """

    def __init__(self, path: Path, threads: int = 0) -> None:
        self.path = path
        self.model = onnxruntime.ENGINE.load(path, threads=threads)
        self.inputs: Sequence[TensorSpec] = self.model.inputs
        proto = onnx.load(path, load_external_data=False)
        self.roles: dict[str, Role] = roles_of(proto)
        self.choices: list[Choice] = choices_of(proto)
        self.levels = levels_of(proto)
        self.fills_gaps = fills_gaps(proto)
        self.has_steps = has_steps(proto)
        self._plain = _Plain(path, threads, self.choices)
        self._moved = _Plain(path, threads, self.choices, move=True)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Returns the outputs as they are served."""
        return self.model.run(inputs)

    def accepts(self, inputs: Mapping[str, Array]) -> bool:
        """Whether it runs on these inputs."""
        try:
            self.model.run(inputs)
        except AdlikError:
            return False
        return True

    def run_plainly(self, inputs: Mapping[str, Array]) -> dict[str, Array] | None:
        """Returns outputs, and scores behind indices, without optimisation; None where it fails."""
        return self._plain.run(inputs)

    def run_moved(self, inputs: Mapping[str, Array], seed: int) -> dict[str, Array] | None:
        """Returns the same with inputs and weights moved by one unit in the last place."""
        return self._moved.run(moved_inputs(inputs, seed))

    def run_shaken(self, inputs: Mapping[str, Array], seed: int) -> dict[str, Array] | None:
        """Returns the plain outputs for inputs that are moved enough to flip what is rounded."""
        return self._plain.run(moved_inputs(inputs, seed, SHAKE))

    def close(self) -> None:
        """Gives the memory of the plain forms back; the model itself stays."""
        self._plain.close()
        self._moved.close()


class _Plain:
    """A session without optimisation, loaded when it is first needed."""

    def __init__(
        self, path: Path, threads: int, choices: list[Choice], *, move: bool = False
    ) -> None:
        self._path, self._threads, self._choices, self._move = path, threads, choices, move
        self._session: Any = None
        self._names: list[str] = []
        self._failed = False

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array] | None:
        """Returns all outputs by name, None where it fails: there is less evidence then."""
        try:
            if self._session is None and not self._failed:
                self._session = onnxruntime.load_plainly(self._source(), self._threads)
                self._names = [output.name for output in self._session.get_outputs()]
            if self._failed:
                return None
            arrays = self._session.run(self._names, dict(inputs))
        except Exception:  # noqa: BLE001 - its errors have no class of their own
            self._failed = self._session is None
            return None
        return dict(zip(self._names, arrays, strict=True))

    def close(self) -> None:
        """Gives its memory back."""
        self._session, self._failed = None, True

    def _source(self) -> Path | bytes:
        is_large = self._path.stat().st_size > MAX_MOVED_BYTES
        if not self._choices and (is_large or not self._move):
            return self._path
        model = onnx.load(self._path)
        if self._choices:
            model = expose(model, self._choices)
        if self._move and not is_large:
            move_weights(model)
        source: bytes = model.SerializeToString()
        return source


def move_weights(model: onnx.ModelProto) -> None:
    """Moves the weights of products, convolutions and tables by one unit in the last place."""
    names = {
        name
        for node in model.graph.node
        if node.op_type in _WEIGHTED
        for name in (node.input[:1] if node.op_type == "Gather" else node.input)
    }
    for number, weight in enumerate(model.graph.initializer):
        if weight.name in names and weight.data_type in _FLOATS:
            array = numpy_helper.to_array(weight)
            moved = moved_inputs({"": array}, number)[""]
            weight.CopyFrom(numpy_helper.from_array(moved, weight.name))
