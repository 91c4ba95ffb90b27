"""Reads what the gateway must know of an ONNX file, in place: its signature and external files.

No ML framework and no copy: the file is mapped and only small fields are looked at. Numbers are
those of onnx.proto, the format's published schema.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from adlik_common.bundle import safe_name
from adlik_common.errors import InvalidModel, InvalidRequest
from adlik_common.tensors import TensorSpec, axis_name
from adlik_common.wire import Field, fields

MAX_FIELDS = 5_000_000
MAX_GRAPH_DEPTH = 20

_DATATYPES = {
    1: "FP32", 2: "UINT8", 3: "INT8", 4: "UINT16", 5: "INT16", 6: "INT32", 7: "INT64",
    8: "BYTES", 9: "BOOL", 10: "FP16", 11: "FP64", 12: "UINT32", 13: "UINT64", 16: "BF16",
}  # fmt: skip
_EXTERNAL = 1
_Dim = tuple[int, str]


class _Model:
    GRAPH, FUNCTIONS = 7, 25


class _Graph:
    NODE, INITIALIZER, INPUT, OUTPUT, SPARSE_INITIALIZER = 1, 5, 11, 12, 15
    WEIGHTS = (INITIALIZER, SPARSE_INITIALIZER)


class _Function:
    NODE, ATTRIBUTE = 7, 11


class _Type:
    TENSOR, DENOTATION = 1, 6


class _Node:
    ATTRIBUTE = 5


class _Attribute:
    TENSOR, GRAPH, TENSORS, GRAPHS, SPARSE, SPARSES = 5, 6, 10, 11, 22, 23


class _Tensor:
    NAME, EXTERNAL_DATA, DATA_LOCATION = 8, 13, 14


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """What an ONNX file says of itself.

    Attributes:
        inputs: What it takes, without the weights that old files list among the inputs.
        outputs: What it gives.
        external_files: Relative names of the files that hold weights.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    external_files: tuple[str, ...]


def read_onnx(path: Path) -> OnnxFile:
    """Returns a file's signature and external files.

    Raises:
        InvalidModel: The file is cut off or is no ONNX model.
        UnsafePath: An external file lies outside the upload.
    """
    if not path.stat().st_size:
        raise InvalidModel("The ONNX file is empty.", cure="Push the whole file.")
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    # Not closed by hand: an error's traceback may still hold views of it.
    try:
        return _Reader(has_external=mapped.find(b"location") >= 0).read(memoryview(mapped))
    except InvalidRequest as error:
        raise InvalidModel(
            f"The ONNX file can't be read: {error.message}",
            cure="Check that the upload is complete, e.g. with onnx.checker.",
        ) from None


class _Reader:
    """Walks one file, with a bound on the work a hostile file can cause."""

    def __init__(self, *, has_external: bool) -> None:
        self._left = MAX_FIELDS
        self._has_external = has_external
        self._external: set[str] = set()

    def read(self, view: memoryview) -> OnnxFile:
        graph = self._graph_of(view)
        inputs: list[TensorSpec] = []
        outputs: list[TensorSpec] = []
        weights: set[str] = set()
        nodes = 0
        for field in self._fields(graph):
            if field.number == _Graph.INPUT:
                inputs.append(self._spec(field.view, is_output=False))
            elif field.number == _Graph.OUTPUT:
                outputs.append(self._spec(field.view, is_output=True))
            elif field.number == _Graph.NODE:
                nodes += 1
                self._node(field.view, 1)
            elif field.number in _Graph.WEIGHTS:
                weights.add(self._graph_weight(field))
        if not outputs or not nodes:
            raise InvalidModel(
                f"The ONNX graph has {nodes} nodes and {len(outputs)} outputs.",
                cure="Export the whole model again.",
            )
        taken = tuple(spec for spec in inputs if spec.name not in weights)
        for spec in (*taken, *outputs):
            _check_served(spec)
        return OnnxFile(taken, tuple(outputs), tuple(sorted(self._external)))

    def _graph_of(self, view: memoryview) -> memoryview:
        graph = None
        for field in self._fields(view):
            if field.number == _Model.GRAPH:
                if graph is not None:  # protobuf would merge them; no exporter writes that
                    raise InvalidModel("The file holds two ONNX graphs.")
                graph = field.view
            elif field.number == _Model.FUNCTIONS:
                self._function(field.view)
        if graph is None:
            raise InvalidModel("The file holds no ONNX graph.", cure="Push an ONNX model.")
        return graph

    def _fields(self, view: memoryview) -> Iterator[Field]:
        for field in fields(view):
            self._left -= 1
            if self._left < 0:
                raise InvalidModel("The ONNX file has too many fields to be a model.")
            yield field

    def _spec(self, view: memoryview, *, is_output: bool) -> TensorSpec:
        name, datatype = "", 0
        dims: tuple[_Dim, ...] | None = None
        for field in self._fields(view):  # ValueInfoProto
            if field.number == 1:
                name = field.text
            elif field.number == 2:
                datatype, dims = self._tensor_type(name, field.view)
        if datatype not in _DATATYPES:
            raise InvalidModel(
                f"'{name}' has a type that can't be served (ONNX type {datatype}).",
                cure="Export the model with tensors of numbers, booleans or texts.",
            )
        if dims is None:
            if not is_output:
                raise InvalidModel(
                    f"The input '{name}' has an open number of dimensions.",
                    cure="Export the model with inputs of known rank.",
                )
            dims = ((-1, ""),)  # of unknown rank: any size is the nearest that can be said
        return TensorSpec(
            name, _DATATYPES[datatype], tuple(d[0] for d in dims), tuple(d[1] for d in dims)
        )

    def _tensor_type(self, name: str, view: memoryview) -> tuple[int, tuple[_Dim, ...] | None]:
        datatype = 0
        dims: tuple[_Dim, ...] | None = None
        for choice in self._fields(view):  # TypeProto
            if choice.number == _Type.DENOTATION:
                continue
            if choice.number != _Type.TENSOR:
                raise InvalidModel(
                    f"'{name}' is no tensor (a sequence, map or optional).",
                    cure="Export the model with tensor inputs and outputs.",
                )
            for field in self._fields(choice.view):  # TypeProto.Tensor
                if field.number == 1:
                    datatype = field.signed
                elif field.number == 2:
                    dims = tuple(
                        self._dimension(dim.view)
                        for dim in self._fields(field.view)
                        if dim.number == 1
                    )
        return datatype, dims

    def _dimension(self, view: memoryview) -> _Dim:
        """Returns a dimension's size, -1 where it is open, and its name, "" where it has none."""
        size, name = -1, ""
        for field in self._fields(view):  # TensorShapeProto.Dimension
            if field.number == 1:
                size = field.signed
            elif field.number == 2:
                name = field.text
        # Some exporters write 0 or -1 for "any size".
        return (size, "") if size > 0 else (-1, axis_name(name))

    def _weight(self, view: memoryview) -> str:
        name, external, location = "", "", 0
        for field in self._fields(view):  # TensorProto
            if field.number == _Tensor.NAME:
                name = field.text
            elif field.number == _Tensor.DATA_LOCATION:
                location = field.signed & 0xFFFFFFFF  # what protobuf keeps of an enum
            elif field.number == _Tensor.EXTERNAL_DATA:
                entry = {f.number: f.text for f in self._fields(field.view)}
                if entry.get(1) == "location":
                    external = entry.get(2, "")
        if location == _EXTERNAL:
            self._external.add(safe_name(external))
        return name

    def _graph_weight(self, field: Field) -> str:
        if field.number == _Graph.SPARSE_INITIALIZER:
            return self._sparse_weight(field.view)
        return self._weight(field.view)

    def _sparse_weight(self, view: memoryview) -> str:
        """Returns the name of a sparse weight: that of its values."""
        name = ""
        for field in self._fields(view):  # SparseTensorProto: values, indices
            if field.number in (1, 2):
                found = self._weight(field.view)
                name = found if field.number == 1 else name
        return name

    def _function(self, view: memoryview) -> None:
        for field in self._fields(view):
            if field.number == _Function.NODE:
                self._node(field.view, 1)
            elif field.number == _Function.ATTRIBUTE:
                self._attribute(field.view, 1)

    def _node(self, view: memoryview, depth: int) -> None:
        """Looks for external weights inside a node's attributes and their graphs."""
        if not self._has_external:
            return
        if depth > MAX_GRAPH_DEPTH:
            raise InvalidModel("The ONNX file's graphs are nested too deeply.")
        for field in self._fields(view):
            if field.number == _Node.ATTRIBUTE:
                self._attribute(field.view, depth)

    def _attribute(self, view: memoryview, depth: int) -> None:
        for field in self._fields(view):
            if field.number in (_Attribute.TENSOR, _Attribute.TENSORS):
                self._weight(field.view)
            elif field.number in (_Attribute.SPARSE, _Attribute.SPARSES):
                self._sparse_weight(field.view)
            elif field.number in (_Attribute.GRAPH, _Attribute.GRAPHS):
                self._subgraph(field.view, depth)

    def _subgraph(self, view: memoryview, depth: int) -> None:
        for field in self._fields(view):
            if field.number == _Graph.NODE:
                self._node(field.view, depth + 1)
            elif field.number in _Graph.WEIGHTS:
                self._graph_weight(field)


def _check_served(spec: TensorSpec) -> None:
    """Raises `InvalidModel` for a datatype that the protocol has and the engines don't give out."""
    if spec.datatype == "BF16":
        raise InvalidModel(
            f"'{spec.name}' is BF16: inside of a model the engines compute with it, but they "
            "neither take nor give such tensors.",
            cure="Cast inputs from FP32 and outputs to FP32 in the graph.",
        )
