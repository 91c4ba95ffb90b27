"""Tells a model's format by its first bytes, never by its name."""

from __future__ import annotations

from adlik_common.errors import InvalidModel, UnsupportedFormat

HEAD_BYTES = 16

# First bytes, what they are, and how to get from there to a format that is served.
_KNOWN: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a zip archive (PyTorch, Keras 3 or SavedModel)", "Export the model to ONNX."),
    (b"\x89HDF\r\n", "an HDF5 file (Keras)", "Export the model to ONNX, e.g. by model.export()."),
    (b"\x80", "a Python pickle, which is never opened", "Export the model to ONNX."),
    (b"<", "XML (OpenVINO IR?)", "Push the ONNX file that it was made from."),
    (b"\x1f\x8b", "a gzip archive", "Unpack it and push the model file."),
)


def sniff(head: bytes) -> str:
    """Returns the format of a file that begins with these bytes: "onnx".

    Raises:
        InvalidModel: The file is empty or nothing known.
        UnsupportedFormat: It is a known format that can't be pushed.
    """
    if not head:
        raise InvalidModel("The model file is empty.", cure="Push the whole file.")
    if head[4:8] == b"TFL3":
        raise UnsupportedFormat("The file is a TFLite model.", cure="Push ONNX instead.")
    for magic, what, cure in _KNOWN:
        if head.startswith(magic):
            raise UnsupportedFormat(f"The file is {what}; ONNX is expected.", cure=cure)
    # An ONNX file is a protobuf message that begins with ir_version: field 1, a small number.
    if head[0] == 0x08 and len(head) > 1 and head[1] < 0x80:
        return "onnx"
    raise InvalidModel(
        "The file is no model of a known format.", cure="Push a model in ONNX format."
    )
