"""Rewrites of a graph that change nothing but the order of sums: what must not be refused."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, shape_inference, version_converter

from benchmarks.proof_cases import truth
from benchmarks.proof_cases.case import Array, node

Model = onnx.ModelProto
Rewrite = Callable[[Model], Model | None]
_COMMUTING = ("Add", "Mul", "Max", "Min", "And", "Or")


class Weights:
    """The weights of a model, to read and to change."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self._by_name = {weight.name: weight for weight in model.graph.initializer}

    def get(self, name: str) -> Array | None:
        weight = self._by_name.get(name)
        return None if weight is None else numpy_helper.to_array(weight)

    def set(self, name: str, array: Array) -> None:
        self._by_name[name].CopyFrom(numpy_helper.from_array(array, name))

    def add(self, name: str, array: Array) -> str:
        weight = self.model.graph.initializer.add()
        weight.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))
        self._by_name[name] = weight
        return name


def copied(model: Model) -> Model:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def replaced(
    model: Model, change: Callable[[onnx.NodeProto, Weights], list[onnx.NodeProto] | None]
) -> Model | None:
    """Returns a copy in which some nodes are others, None where none is."""
    copy = copied(model)
    weights = Weights(copy)
    nodes, any_changed = [], False
    for old in list(copy.graph.node):
        new = change(old, weights)
        any_changed = any_changed or new is not None
        nodes += [old] if new is None else new
    if not any_changed:
        return None
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def identities(model: Model) -> Model | None:
    def change(old: onnx.NodeProto, _: Weights) -> list[onnx.NodeProto] | None:
        if len(old.output) != 1:
            return None
        new, name = copied_node(old), old.output[0]
        new.output[0] = f"{name}/before"
        return [new, node("Identity", [f"{name}/before"], [name])]

    return replaced(model, change)


def transposes(model: Model) -> Model | None:
    """Two transposes that cancel each other, after every product and convolution."""
    ranks = _ranks(model)

    def change(old: onnx.NodeProto, _: Weights) -> list[onnx.NodeProto] | None:
        rank = ranks.get(old.output[0], 0)
        if old.op_type not in ("Conv", "MatMul", "Gemm") or rank < 2:
            return None
        new, name, order = copied_node(old), old.output[0], list(range(rank))[::-1]
        new.output[0] = f"{name}/before"
        return [
            new,
            node("Transpose", [f"{name}/before"], [f"{name}/turned"], perm=order),
            node("Transpose", [f"{name}/turned"], [name], perm=order),
        ]

    return replaced(model, change)


def commuted(model: Model) -> Model | None:
    def change(old: onnx.NodeProto, _: Weights) -> list[onnx.NodeProto] | None:
        if old.op_type not in _COMMUTING or len(old.input) != 2:
            return None
        new = copied_node(old)
        new.input[0], new.input[1] = old.input[1], old.input[0]
        return [new]

    return replaced(model, change)


def gemm_apart(model: Model) -> Model | None:
    """Gemm as a product and a sum."""

    def change(old: onnx.NodeProto, _: Weights) -> list[onnx.NodeProto] | None:
        if old.op_type != "Gemm" or old.attribute or len(old.input) != 3:
            return None
        name = old.output[0]
        return [
            node("MatMul", list(old.input[:2]), [f"{name}/product"]),
            node("Add", [f"{name}/product", old.input[2]], [name]),
        ]

    return replaced(model, change)


def gemm_joined(model: Model) -> Model | None:
    """A product of tables and the row that is added to it as one Gemm."""
    ranks, copy = _ranks(model), copied(model)
    weights = Weights(copy)
    nodes = list(copy.graph.node)
    made = {old.output[0]: old for old in nodes}
    readers = [name for old in nodes for name in old.input]
    for old in nodes:
        if old.op_type != "Add":
            continue
        product, row = made.get(old.input[0]), weights.get(old.input[1])
        if product is None or product.op_type != "MatMul" or row is None or row.ndim != 1:
            continue
        table = weights.get(product.input[1])
        if ranks.get(product.input[0]) != 2 or table is None or readers.count(old.input[0]) != 1:
            continue
        joined = node("Gemm", [*product.input, old.input[1]], list(old.output))
        at = nodes.index(old)
        nodes[at] = joined
        nodes.remove(product)
        del copy.graph.node[:]
        copy.graph.node.extend(nodes)
        return copy
    return None


def split_columns(model: Model) -> Model | None:
    """Products in two halves of their columns, joined again."""

    def change(old: onnx.NodeProto, weights: Weights) -> list[onnx.NodeProto] | None:
        table = weights.get(old.input[1]) if old.op_type == "MatMul" else None
        if table is None or table.ndim != 2 or table.shape[1] < 2:
            return None
        name, half = old.output[0], table.shape[1] // 2
        parts = [table[:, :half], table[:, half:]]
        names = [weights.add(f"{name}/w{at}", part) for at, part in enumerate(parts)]
        return [
            *(node("MatMul", [old.input[0], w], [f"{w}/out"]) for w in names),
            node("Concat", [f"{w}/out" for w in names], [name], axis=-1),
        ]

    return replaced(model, change)


def split_sums(model: Model) -> Model | None:
    """Convolutions as the sum of two, each over half of the channels."""

    def change(old: onnx.NodeProto, weights: Weights) -> list[onnx.NodeProto] | None:
        kernel = weights.get(old.input[1]) if old.op_type == "Conv" else None
        if kernel is None or kernel.shape[1] < 2:
            return None
        name, half = old.output[0], kernel.shape[1] // 2
        first, second = kernel.copy(), kernel.copy()
        first[:, half:], second[:, :half] = 0, 0
        left, right = copied_node(old), copied_node(old)
        left.input[1], left.output[0] = weights.add(f"{name}/w0", first), f"{name}/left"
        right.input[1], right.output[0] = weights.add(f"{name}/w1", second), f"{name}/right"
        del right.input[2:]
        return [left, right, node("Add", [f"{name}/left", f"{name}/right"], [name])]

    return replaced(model, change)


def scaled_weights(model: Model) -> Model | None:
    """Twice the weights and half of the product: exact in floats."""

    def change(old: onnx.NodeProto, weights: Weights) -> list[onnx.NodeProto] | None:
        is_product = old.op_type == "MatMul" or (old.op_type == "Conv" and len(old.input) == 2)
        table = weights.get(old.input[1]) if is_product else None
        if table is None or table.dtype.kind != "f":
            return None
        new, name = copied_node(old), old.output[0]
        new.input[1] = weights.add(f"{name}/double", table * table.dtype.type(2))
        new.output[0] = f"{name}/twice"
        half = weights.add(f"{name}/half", np.asarray(0.5, table.dtype))
        return [new, node("Mul", [f"{name}/twice", half], [name])]

    return replaced(model, change)


def padded_before(model: Model) -> Model | None:
    """Convolutions whose padding is a node of its own."""
    opset = next(o.version for o in model.opset_import if not o.domain)

    def change(old: onnx.NodeProto, weights: Weights) -> list[onnx.NodeProto] | None:
        pads = next((list(a.ints) for a in old.attribute if a.name == "pads"), [])
        if old.op_type != "Conv" or not any(pads) or opset < 11:
            return None
        new, half = copied_node(old), len(pads) // 2
        kept = [a for a in old.attribute if a.name != "pads"]
        del new.attribute[:]
        new.attribute.extend(kept)
        name = old.output[0]
        wide = np.array([0, 0, *pads[:half], 0, 0, *pads[half:]], np.int64)
        new.input[0] = f"{name}/padded"
        return [
            node("Pad", [old.input[0], weights.add(f"{name}/pads", wide)], [f"{name}/padded"]),
            new,
        ]

    return replaced(model, change)


def newer_opset(model: Model) -> Model | None:
    try:
        return version_converter.convert_version(model, 21)
    except Exception:  # noqa: BLE001 - the converter's errors have no class of their own
        return None


def with_constants(model: Model) -> Model | None:
    """Weights as Constant nodes."""
    copy = copied(model)
    weights = list(copy.graph.initializer)
    if not weights:
        return None
    nodes = [node("Constant", [], [weight.name], value=weight) for weight in weights]
    old = list(copy.graph.node)
    del copy.graph.initializer[:], copy.graph.node[:]
    copy.graph.node.extend([*nodes, *old])
    return copy


def saved_by_onnxruntime(model: Model) -> Model | None:
    """What ONNX Runtime makes of it, for this machine."""
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "saved.onnx")
        truth.session(model, save=file)
        return onnx.load(file)


def plain(model: Model) -> Model:
    return model


REWRITES: dict[str, Rewrite] = {
    "identities": identities,
    "transposes that cancel": transposes,
    "operands the other way round": commuted,
    "Gemm apart": gemm_apart,
    "Gemm joined": gemm_joined,
    "products in halves": split_columns,
    "convolutions in halves": split_sums,
    "weights doubled and halved": scaled_weights,
    "padding of its own": padded_before,
    "newer opset": newer_opset,
    "weights as constants": with_constants,
    "saved by ONNX Runtime": saved_by_onnxruntime,
}


def bf16_weights(model: Model) -> Model | None:
    """Weights rounded to bfloat16."""
    return _rounded_weights(model, _bf16)


def int8_weights(model: Model) -> Model | None:
    """Weights rounded to 8 bits, each output channel on its own scale."""

    def rounded(array: Array) -> Array:
        axis = tuple(range(1, array.ndim)) if array.ndim > 2 else (0,)
        scale = np.abs(array).max(axis=axis, keepdims=True) / 127
        scale = np.where(scale > 0, scale, 1)
        return (np.round(array / scale) * scale).astype(np.float32)

    return _rounded_weights(model, rounded)


def _bf16(array: Array) -> Array:
    bits = array.astype(np.float32).view(np.uint32)
    even = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return (even & np.uint32(0xFFFF0000)).view(np.float32)


def _rounded_weights(model: Model, rounded: Callable[[Array], Array]) -> Model | None:
    copy = copied(model)
    weights, changed = Weights(copy), False
    for old in copy.graph.node:
        if old.op_type in ("Conv", "ConvTranspose", "MatMul", "Gemm", "LSTM", "GRU"):
            for name in list(old.input)[1:3]:
                array = weights.get(name)
                if array is not None and array.dtype == np.float32 and array.ndim > 1:
                    weights.set(name, rounded(array))
                    changed = True
    return copy if changed else None


def copied_node(old: onnx.NodeProto) -> onnx.NodeProto:
    new = onnx.NodeProto()
    new.CopyFrom(old)
    return new


def _ranks(model: Model) -> dict[str, int]:
    try:
        graph = shape_inference.infer_shapes(model).graph
    except Exception:  # noqa: BLE001 - no shapes, no rewrite
        return {}
    return {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }


def rewritten(model: Model) -> Iterator[tuple[str, Model]]:
    """Yields every rewrite that applies, by name."""
    for name, rewrite in REWRITES.items():
        new = rewrite(model)
        if new is not None:
            yield name, new
