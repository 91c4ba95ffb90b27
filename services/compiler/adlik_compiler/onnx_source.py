"""Makes one self-contained ONNX file of a pushed model, whose weights may be in files beside it."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adlik_common.bundle import safe_name
from adlik_common.errors import AdlikError, InvalidModel, MissingExternalData, TooLarge

# The key without which no tensor can name an external file (onnx.proto, TensorProto.external_data).
_LOCATION = b"location"
_PROTOBUF_LIMIT = 2**31 - 1


def self_contained(source: Path, folder: Path) -> Path:
    """Returns an ONNX file that refers to no other: the source itself where it does not.

    Args:
        source: The model, with the files it refers to in the same folder.
        folder: Where a new file is written if one is needed.

    Raises:
        UnsafePath: It refers to a file outside its folder.
        MissingExternalData: It refers to a file that is not there.
        InvalidModel: It is no ONNX model.
        TooLarge: With its weights it is over the format's limit of 2 GiB.
    """
    if not _mentions_files(source):
        return source
    import onnx  # a quarter of a second that most models do not need

    try:
        model = onnx.load(source, load_external_data=False)
        external = [t for t in _tensors(model) if t.data_location == onnx.TensorProto.EXTERNAL]
        for tensor in external:
            _check_location(tensor, source.parent)
        onnx.load_external_data_for_model(model, str(source.parent))
    except AdlikError:
        raise
    except Exception as error:  # protobuf's and onnx's own have no common class
        raise InvalidModel(
            f"The ONNX model can't be read: {error}", cure="Check it with onnx.checker."
        ) from error
    if not external:
        return source
    if model.ByteSize() > _PROTOBUF_LIMIT:
        raise TooLarge("The model has over 2 GiB of weights: one ONNX file can't hold them.")
    inlined = folder / "inlined.onnx"
    onnx.save(model, inlined)
    return inlined


def _tensors(model: Any) -> Iterator[Any]:
    """Yields every tensor of a model: weights, constants, and those of nested graphs."""
    graphs = [model.graph]
    nodes = [node for function in model.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
            nodes += graph.node
            continue
        for attribute in nodes.pop().attribute:
            yield attribute.t
            yield from attribute.tensors
            graphs += [attribute.g] if attribute.HasField("g") else []
            graphs += attribute.graphs


def _mentions_files(source: Path) -> bool:
    with source.open("rb") as file:
        if not source.stat().st_size:
            raise InvalidModel("The file is empty.", cure="Push the model again.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return data.find(_LOCATION) >= 0


def _check_location(tensor: Any, folder: Path) -> None:
    location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    if not (folder / safe_name(location)).is_file():
        raise MissingExternalData(
            f"The tensor '{tensor.name}' is in the file '{location}', which was not pushed.",
            cure="Push the model together with its external data files.",
        )
