"""Ways in which a compiler makes a graph wrong: what is lost, swapped, or computed coarsely."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import TensorProto

from benchmarks.proof_cases import truth
from benchmarks.proof_cases.case import Case, node
from benchmarks.proof_cases.rewrites import Model, Weights, copied, copied_node, replaced

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU")
_SMALL = {"alpha": 1.1, "epsilon": 30.0}


def bias_lost(model: Model, _: Case) -> Iterator[Model]:
    """The first bias and the last are zeros."""
    weights = Weights(model)
    names = [
        name
        for old in model.graph.node
        if old.op_type in ("Conv", "Gemm", "Add", "LSTM", "GRU")
        for name in old.input[1:]
        if (array := weights.get(name)) is not None
        and array.dtype.kind == "f"
        and _is_bias(old, name, array)
    ]
    for name in dict.fromkeys([*names[:1], *names[-1:]]):
        copy = copied(model)
        changed = Weights(copy)
        array = changed.get(name)
        changed.set(name, np.zeros_like(array))
        yield copy


def _is_bias(old: onnx.NodeProto, name: str, array) -> bool:
    if old.op_type in ("LSTM", "GRU"):
        return len(old.input) > 3 and old.input[3] == name
    return array.ndim == 1 and name != old.input[0]


def filters_swapped(model: Model, _: Case) -> Iterator[Model]:
    """Two output channels of the first layer are swapped."""
    copy = copied(model)
    weights = Weights(copy)
    for old in copy.graph.node:
        kernel = weights.get(old.input[1]) if old.op_type in ("Conv", "Gemm", "MatMul") else None
        if kernel is None or kernel.ndim < 2:
            continue
        table = kernel.copy()
        view = table if old.op_type == "Conv" else np.moveaxis(table, -1, 0)
        if len(view) < 2:
            continue
        view[[0, 1]] = view[[1, 0]]
        weights.set(old.input[1], table)
        yield copy
        return


def weights_zeroed(model: Model, _: Case) -> Iterator[Model]:
    """One column of the last layer's weights is lost."""
    copy = copied(model)
    weights = Weights(copy)
    for old in reversed(copy.graph.node):
        kernel = weights.get(old.input[1]) if old.op_type in _LAYERS else None
        if kernel is not None and kernel.ndim > 1:
            table = kernel.copy()
            table[0] = 0
            weights.set(old.input[1], table)
            yield copy
            return


def padding_moved(model: Model, _: Case) -> Iterator[Model]:
    """What is padded above is padded below and the other way round."""

    def change(old: onnx.NodeProto, _: Weights) -> list[onnx.NodeProto] | None:
        new, is_changed = copied_node(old), False
        for attribute in new.attribute:
            if attribute.name == "pads" and any(attribute.ints):
                pads, half = list(attribute.ints), len(attribute.ints) // 2
                moved = [pads[half:], pads[:half]]
                if moved[0] == pads[:half]:  # even: all of it on one side
                    moved = [[a + b for a, b in zip(*moved, strict=True)], [0] * half]
                attribute.ints[:] = [*moved[0], *moved[1]]
                is_changed = True
            if attribute.name == "auto_pad" and attribute.s.startswith(b"SAME"):
                attribute.s = b"SAME_UPPER" if attribute.s == b"SAME_LOWER" else b"SAME_LOWER"
                is_changed = True
        return [new] if is_changed else None

    new = replaced(model, change)
    if new is not None:
        yield new


def setting_changed(model: Model, _: Case) -> Iterator[Model]:
    """A small number of an operator's settings is another: slopes, epsilons."""

    def change(old: onnx.NodeProto, _: Weights) -> list[onnx.NodeProto] | None:
        new, is_changed = copied_node(old), False
        for attribute in new.attribute:
            if attribute.name in _SMALL and old.op_type != "Gemm":
                attribute.f *= _SMALL[attribute.name]
                is_changed = True
            if attribute.name in ("count_include_pad", "linear_before_reset", "align_corners"):
                attribute.i = 1 - attribute.i
                is_changed = True
            if attribute.name == "coordinate_transformation_mode":
                attribute.s = b"asymmetric" if attribute.s != b"asymmetric" else b"half_pixel"
                is_changed = True
        return [new] if is_changed else None

    new = replaced(model, change)
    if new is not None:
        yield new


def axis_changed(model: Model, _: Case) -> Iterator[Model]:
    """Softmax over the neighbouring axis; directions of recurrent nets turned."""

    def change(old: onnx.NodeProto, _: Weights) -> list[onnx.NodeProto] | None:
        new = copied_node(old)
        if old.op_type in ("Softmax", "LogSoftmax"):
            axis = next((a.i for a in old.attribute if a.name == "axis"), 1)
            del new.attribute[:]
            new.attribute.extend(node("X", [], [], axis=axis - 1 if axis else 1).attribute)
            return [new]
        for attribute in new.attribute:
            if attribute.name == "direction" and attribute.s == b"reverse":
                attribute.s = b"forward"
                return [new]
        return None

    new = replaced(model, change)
    if new is not None:
        yield new


def comparisons_off(model: Model, _: Case) -> Iterator[Model]:
    """Over a limit also where it is reached; rounded up where halves fall to even."""
    others = {
        "Greater": "GreaterOrEqual",
        "Less": "LessOrEqual",
        "GreaterOrEqual": "Greater",
        "LessOrEqual": "Less",
    }

    def change(old: onnx.NodeProto, weights: Weights) -> list[onnx.NodeProto] | None:
        if old.op_type in others:
            new = copied_node(old)
            new.op_type = others[old.op_type]
            return [new]
        if old.op_type != "Round":
            return None
        name = old.output[0]
        half = weights.add(f"{name}/half", np.float32(0.5))
        return [
            node("Add", [old.input[0], half], [f"{name}/up"]),
            node("Floor", [f"{name}/up"], [name]),
        ]

    new = replaced(model, change)
    if new is not None:
        yield new


def ties_the_other_way(model: Model, _: Case) -> Iterator[Model]:
    """Of equal scores the last comes first: TopK on what is turned round."""

    def change(old: onnx.NodeProto, weights: Weights) -> list[onnx.NodeProto] | None:
        if old.op_type != "TopK":
            return None
        name = old.input[0]
        starts, ends, axes, steps = (
            weights.add(f"{name}/{word}", np.array([number], np.int64))
            for word, number in (("start", -1), ("end", -(2**31)), ("axis", -1), ("step", -1))
        )
        new = copied_node(old)
        new.input[0], places = f"{name}/turned", old.output[1]
        new.output[1] = f"{places}/turned"
        return [
            node("Slice", [name, starts, ends, axes, steps], [f"{name}/turned"]),
            new,
            node("Shape", [name], [f"{name}/shape"], start=-1),
            node(
                "Sub",
                [f"{name}/shape", weights.add(f"{name}/one", np.array([1], np.int64))],
                [f"{name}/last"],
            ),
            node("Sub", [f"{name}/last", f"{places}/turned"], [places]),
        ]

    new = replaced(model, change)
    if new is not None:
        yield new


def computed_in(kind: int) -> Callable[[Model, Case], Iterator[Model]]:
    """Returns what rounds every layer's result and weights to a smaller float."""

    def make(model: Model, _: Case) -> Iterator[Model]:
        def change(old: onnx.NodeProto, _: Weights) -> list[onnx.NodeProto] | None:
            if old.op_type not in _LAYERS or not old.output[0]:
                return None
            new, name = copied_node(old), old.output[0]
            new.output[0] = f"{name}/wide"
            return [
                new,
                node("Cast", [f"{name}/wide"], [f"{name}/short"], to=kind),
                node("Cast", [f"{name}/short"], [name], to=TensorProto.FLOAT),
            ]

        if any(
            value.type.tensor_type.elem_type == TensorProto.FLOAT for value in model.graph.input
        ):
            new = replaced(model, change)
            if new is not None:
                yield new

    return make


def activations_saturated(model: Model, case: Case) -> Iterator[Model]:
    """The last layer but one is clipped at two thirds of what it reaches."""
    inner = [
        n.output[0]
        for n in model.graph.node
        if n.op_type in ("Relu", "LeakyRelu", "Conv", "Gemm", "MatMul")
    ]
    outputs = {output.name for output in model.graph.output}
    inner = [name for name in inner if name not in outputs]
    if not inner:
        return
    name = inner[-1]
    wider = copied(model)
    wider.graph.output.append(onnx.ValueInfoProto(name=name))
    seen = truth.load(wider, plain=True)
    random = np.random.default_rng(4)
    values = [seen.run(case.feed(random, 3))[name] for _ in range(6)]
    top = max(float(np.nanmax(np.abs(value), initial=0)) for value in values) / 1.5

    def change(old: onnx.NodeProto, weights: Weights) -> list[onnx.NodeProto] | None:
        if name not in old.output:
            return None
        dtype = values[0].dtype
        low, high = (
            weights.add(f"{name}/{sign}", np.asarray(sign * top, dtype)) for sign in (-1, 1)
        )
        new = copied_node(old)
        new.output[0] = f"{name}/free"
        return [new, node("Clip", [f"{name}/free", low, high], [name])]

    new = replaced(model, change)
    if new is not None:
        yield new


TAMPERINGS: dict[str, Callable[[Model, Case], Iterator[Model]]] = {
    "bias lost": bias_lost,
    "filters swapped": filters_swapped,
    "weights zeroed": weights_zeroed,
    "padding on the other side": padding_moved,
    "setting changed": setting_changed,
    "axis changed": axis_changed,
    "comparison off at the limit": comparisons_off,
    "ties the other way": ties_the_other_way,
    "computed in fp16": computed_in(TensorProto.FLOAT16),
    "computed in bf16": computed_in(TensorProto.BFLOAT16),
    "activations saturated": activations_saturated,
}
