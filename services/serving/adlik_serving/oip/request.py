"""What an inference asks for, and the check of it against the model's signature."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy.typing as npt
from adlik_common.errors import InvalidRequest, InvalidTensor
from adlik_common.tensors import TensorSpec, check_tensor

Array = npt.NDArray[Any]
Buffer = bytes | bytearray | memoryview

MAX_RANK = 32


class RequestedOutput(NamedTuple):
    """An output that the caller wants.

    Attributes:
        name: The output's name.
        binary: JSON only: answer with raw bytes behind the JSON rather than numbers in it.
        classes: Answer with this many best classes instead of the tensor; 0: the tensor.
    """

    name: str
    binary: bool = False
    classes: int = 0


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A decoded request whose tensors fit the model.

    Attributes:
        id: The caller's own id, given back with the answer.
        inputs: Every input of the model by name; views of the request's body where it was raw.
        outputs: What to answer with, in the caller's order.
    """

    id: str
    inputs: dict[str, Array]
    outputs: tuple[RequestedOutput, ...]


class Answer(NamedTuple):
    """An encoded response.

    Attributes:
        buffers: The body, in parts that are written one behind the other.
        json_length: Bytes of the body that are JSON where raw tensors follow them, else 0.
    """

    buffers: list[Buffer]
    json_length: int = 0


class ModelLabel(NamedTuple):
    """The model's name and version as the answer states them."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Signature:
    """The inputs and outputs of a model, by name, in the model's order.

    Attributes:
        inputs: What clients send.
        outputs: What they get.
        all_outputs: What is answered where no output is named.
        scanned: Whether raw bytes of an input have to be looked at: strings, booleans.
    """

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    all_outputs: tuple[RequestedOutput, ...] = field(init=False)
    scanned: bool = field(init=False)

    def __post_init__(self) -> None:
        scanned = any(spec.datatype in ("BYTES", "BOOL") for spec in self.inputs.values())
        object.__setattr__(self, "scanned", scanned)
        object.__setattr__(self, "all_outputs", tuple(map(RequestedOutput, self.outputs)))

    @classmethod
    def of(cls, inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> Signature:
        """Returns the signature of a model with these tensors."""
        return cls({spec.name: spec for spec in inputs}, {spec.name: spec for spec in outputs})

    def check_input(
        self, name: str, datatype: str, shape: Sequence[int], seen: Mapping[str, Array]
    ) -> TensorSpec:
        """Returns the spec of an input; raises `InvalidTensor` unless the tensor fits it."""
        spec = self.inputs.get(name)
        if spec is None:
            raise InvalidTensor(
                f"The model has no input '{name}'; it takes {_listed(self.inputs)}.",
                cure="Use the names of the model's metadata.",
                tensor=name,
            )
        if name in seen:
            raise InvalidTensor(f"Input '{name}' is given twice.", tensor=name)
        if datatype == "BF16":
            raise InvalidTensor(
                f"Input '{name}' is BF16, which is not accepted.",
                cure=f"Send it as {spec.datatype}; the model computes in its own precision.",
                tensor=name,
            )
        check_tensor(spec, datatype, shape)
        if len(shape) > MAX_RANK:
            raise InvalidTensor(
                f"Input '{name}' has {len(shape)} dimensions; at most {MAX_RANK} are read.",
                tensor=name,
            )
        return spec

    def check_complete(self, inputs: Mapping[str, Array]) -> None:
        """Raises `InvalidTensor` where an input of the model is missing."""
        if len(inputs) != len(self.inputs):
            missing = [name for name in self.inputs if name not in inputs]
            raise InvalidTensor(
                f"Missing input {_listed(missing)}; the model takes {_listed(self.inputs)}.",
                cure="Send every input of the model's metadata.",
            )

    def check_outputs(self, outputs: Sequence[RequestedOutput]) -> tuple[RequestedOutput, ...]:
        """Returns the wanted outputs (none named: all); raises `InvalidTensor` for unknown ones."""
        if not outputs:
            return self.all_outputs
        seen: set[str] = set()
        for output in outputs:
            if output.name not in self.outputs:
                raise InvalidTensor(
                    f"The model has no output '{output.name}'; it gives {_listed(self.outputs)}.",
                    cure="Use the names of the model's metadata.",
                    tensor=output.name,
                )
            if output.name in seen:
                raise InvalidTensor(f"Output '{output.name}' is asked for twice.")
            seen.add(output.name)
        return tuple(outputs)


_MEMORY = "shared_memory_region"
_SEQUENCE = "sequence_id"


def check_parameters(parameters: Mapping[str, object], where: str) -> None:
    """Refuses parameters that ask for what is not here; others do no harm.

    Args:
        parameters: Those of a request, an input or an output, by name; null means not set.
        where: What they are of, e.g. "input 'x'".

    Raises:
        InvalidRequest: The tensor is to pass through shared memory, or requests are to be one
            sequence: an answer without it would be a wrong one.
    """
    if parameters.get(_MEMORY) is not None:
        raise InvalidRequest(
            f"The {where} is to pass through shared memory, which is not supported.",
            cure="Send tensors with the request, and take them from the answer.",
        )
    if parameters.get(_SEQUENCE):
        raise InvalidRequest(
            f"The {where} is part of a sequence; requests are answered each for itself.",
            cure="Give the state as inputs, and take it from the outputs.",
        )


class Codec(Protocol):
    """One way to write requests and answers: the modules whose names end with `_body`."""

    def decoding_work(self, body: Buffer, json_length: int, signature: Signature) -> int:
        """Returns how many bytes of a body `decode` has to look at one by one."""
        ...

    def decode(self, body: Buffer, json_length: int, signature: Signature) -> InferRequest:
        """Returns the request in a body; raises `InvalidRequest` or `InvalidTensor`."""
        ...

    def encode(
        self, request: InferRequest, model: ModelLabel, outputs: Mapping[str, Array]
    ) -> Answer:
        """Returns the answer's body."""
        ...

    def encoding_work(self, request: InferRequest, outputs: Mapping[str, Array]) -> int:
        """Returns how many elements of the outputs `encode` has to write one by one."""
        ...


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
