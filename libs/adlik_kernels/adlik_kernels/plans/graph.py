"""From an ONNX model to fused operators: what a plan will compute, and in which order.

Convolutions and products take the bias, the batch normalisation, the sum with another branch and
the activation that follow them. A model with any other operator is refused with the operator's
name.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adlik_kernels.errors import KernelError

Array = NDArray[np.float32]


class UnsupportedGraph(KernelError):
    """A model with something that plans do not know."""


@dataclass(frozen=True, slots=True, eq=False)
class Operator:
    """One fused operator.

    Attributes:
        kind: "conv", "depthwise", "dense", "max", "mean", "sum", "map" or "softmax".
        inputs: Names of the values it reads; the second of "conv" and "dense" is the residual.
        output: Name of the value it makes.
        w: Weights, [filters, channels, rows, columns] or [depth, columns].
        bias: [filters] or [columns].
        window: Rows and columns of a window.
        stride: Steps of the window.
        padding: Rows and columns around the picture.
        activation: One of `workload.ACTIVATION_NAMES`, or "".
    """

    kind: str
    inputs: tuple[str, ...]
    output: str
    w: Array | None = None
    bias: Array | None = None
    window: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    activation: str = ""


@dataclass(frozen=True, slots=True)
class Graph:
    """A model as fused operators.

    Attributes:
        input: Name of its one input.
        output: Name of its one output.
        input_name: The input as the model names it.
        output_name: The output as the model names it.
        shapes: Shape of every value without the batch: (height, width, channels) or (columns,).
        operators: What to compute, in order.
        batch: The batch that the model was exported for; 0 for any.
    """

    input: str
    output: str
    input_name: str
    output_name: str
    shapes: dict[str, tuple[int, ...]]
    operators: tuple[Operator, ...]
    batch: int


def read_onnx(path: Path) -> Graph:
    """Reads an ONNX model.

    Args:
        path: The file; its weights are inside or beside it.

    Raises:
        UnsupportedGraph: It has an operator, an attribute or a shape that plans do not know.
    """
    import onnx

    model = onnx.load(path)
    return _Reader(model.graph).read()


@dataclass(slots=True)
class _Reader:
    """Walks through the nodes once; `made` holds operators by the value that they make."""

    graph: Any
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    alias: dict[str, str] = field(default_factory=dict)
    made: dict[str, Operator] = field(default_factory=dict)
    uses: Counter[str] = field(default_factory=Counter)
    flat: dict[str, tuple[int, int, int]] = field(default_factory=dict)

    def read(self) -> Graph:
        from onnx import numpy_helper

        self.constants = {t.name: numpy_helper.to_array(t) for t in self.graph.initializer}
        inputs = [value for value in self.graph.input if value.name not in self.constants]
        if len(inputs) != 1 or len(self.graph.output) != 1:
            raise UnsupportedGraph("A plan has one input and one output.")
        dims = inputs[0].type.tensor_type.shape.dim
        batch, *rest = (dim.dim_value for dim in dims)
        if 0 in rest or len(rest) not in {1, 3}:
            raise UnsupportedGraph(
                f"The input's shape {[batch, *rest]} is not [batch, channels, height, width] "
                "or [batch, columns] with known sizes."
            )
        name = inputs[0].name
        self.shapes[name] = (rest[1], rest[2], rest[0]) if len(rest) == 3 else (rest[0],)
        for node in self.graph.node:
            self.uses.update(set(node.input))
        self.uses.update([self.graph.output[0].name])
        for node in self.graph.node:
            self._node(node)
        last = self.graph.output[0].name
        output = self._name(last)
        if output in self.flat:
            raise UnsupportedGraph("A plan cannot end by flattening pictures.")
        operators = tuple(self.made.values())
        return Graph(name, output, name, last, self.shapes, operators, batch)

    def _node(self, node: Any) -> None:
        readers: dict[str, Callable[[Any, dict[str, Any]], None]] = {
            "Conv": self._conv,
            "Gemm": self._gemm,
            "MatMul": self._matmul,
            "BatchNormalization": self._batch_norm,
            "Add": self._add,
            "Mul": self._mul,
            "Clip": self._clip,
            "MaxPool": self._pool,
            "AveragePool": self._pool,
            "GlobalAveragePool": self._global_pool,
            "ReduceMean": self._reduce_mean,
            "Flatten": self._flatten,
            "Reshape": self._flatten,
            "Squeeze": self._flatten,
            "Softmax": self._softmax,
            "Constant": self._constant,
            "Identity": self._same,
            "Dropout": self._same,
        }
        activation = _ACTIVATIONS.get(node.op_type)
        if activation:
            self._activate(self._name(node.input[0]), node.output[0], activation)
            return
        reader = readers.get(node.op_type)
        if reader is None:
            raise UnsupportedGraph(f"A plan does not know the operator {node.op_type}.")
        reader(node, _attributes(node))

    def _name(self, name: str) -> str:
        while name in self.alias:
            name = self.alias[name]
        return name

    def _const(self, name: str) -> NDArray[Any]:
        if name not in self.constants:
            raise UnsupportedGraph(f"{name} is computed; a plan needs it to be constant.")
        return self.constants[name]

    def _emit(self, operator: Operator, shape: tuple[int, ...]) -> None:
        self.made[operator.output] = operator
        self.shapes[operator.output] = shape

    def _picture(self, name: str) -> tuple[int, int, int]:
        shape = self.shapes[name]
        if len(shape) != 3 or name in self.flat:
            raise UnsupportedGraph(f"{name} is no picture.")
        return shape[0], shape[1], shape[2]

    def _conv(self, node: Any, attributes: dict[str, Any]) -> None:
        w = self._const(node.input[1]).astype(np.float32)
        source = self._name(node.input[0])
        height, width, channels = self._picture(source)
        groups = attributes.get("group", 1)
        depthwise = groups == channels == w.shape[0] > 1
        if (groups != 1 and not depthwise) or set(attributes.get("dilations", [1])) != {1}:
            raise UnsupportedGraph("A plan knows no grouped or dilated convolutions.")
        if w.ndim != 4 or w.shape[1] != channels // groups:
            raise UnsupportedGraph("A plan knows convolutions of pictures only.")
        window, stride = (w.shape[2], w.shape[3]), _pair(attributes.get("strides", [1, 1]))
        padding = _padding(attributes, window, stride, (height, width))
        bias = self._const(node.input[2]).astype(np.float32) if len(node.input) > 2 else None
        size = _slid((height, width), window, stride, padding)
        operator = Operator(
            kind="depthwise" if depthwise else "conv",
            inputs=(source,),
            output=node.output[0],
            w=w,
            bias=bias,
            window=window,
            stride=stride,
            padding=padding,
        )
        self._emit(operator, (*size, w.shape[0]))

    def _gemm(self, node: Any, attributes: dict[str, Any]) -> None:
        scaled = attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0
        if scaled or attributes.get("transA", 0):
            raise UnsupportedGraph("A plan knows Gemm with alpha and beta 1 and x as it is.")
        w = self._const(node.input[1]).astype(np.float32)
        if attributes.get("transB", 0):
            w = w.T
        bias = None
        if len(node.input) > 2:
            bias = np.broadcast_to(self._const(node.input[2]), (1, w.shape[1]))[0]
        self._dense(self._name(node.input[0]), node.output[0], w, bias)

    def _matmul(self, node: Any, _: dict[str, Any]) -> None:
        w = self._const(node.input[1]).astype(np.float32)
        if w.ndim != 2:
            raise UnsupportedGraph("A plan knows products with a matrix of weights only.")
        self._dense(self._name(node.input[0]), node.output[0], w, None)

    def _dense(self, source: str, output: str, w: Array, bias: NDArray[Any] | None) -> None:
        if source in self.flat:
            # The picture lies channels last: turn the weights round instead of the picture.
            height, width, channels = self.flat[source]
            turned = w.reshape(channels, height, width, -1).transpose(1, 2, 0, 3)
            w = turned.reshape(height * width * channels, -1)
        elif len(self.shapes[source]) != 1:
            raise UnsupportedGraph(f"{source} is a picture; a product needs it flat.")
        kept = None if bias is None else np.ascontiguousarray(bias, np.float32)
        operator = Operator("dense", (source,), output, np.ascontiguousarray(w), kept)
        self._emit(operator, (w.shape[1],))

    def _batch_norm(self, node: Any, attributes: dict[str, Any]) -> None:
        before = self._only_use(self._name(node.input[0]))
        if before is None or before.kind not in _CONVOLUTIONS or before.activation:
            raise UnsupportedGraph("A plan knows batch normalisation behind a convolution only.")
        scale, shift, mean, variance = (
            self._const(name).astype(np.float64) for name in node.input[1:5]
        )
        factor = scale / np.sqrt(variance + attributes.get("epsilon", 1e-5))
        assert before.w is not None
        bias = 0.0 if before.bias is None else before.bias
        folded = replace(
            before,
            w=(before.w * factor[:, None, None, None]).astype(np.float32),
            bias=((bias - mean) * factor + shift).astype(np.float32),
        )
        self._replace(before, folded, node.output[0])

    def _add(self, node: Any, _: dict[str, Any]) -> None:
        for place in (0, 1):
            if node.input[place] in self.constants:
                self._add_constant(node, place)
                return
        left, right = (self._name(name) for name in node.input)
        if self.shapes[left] != self.shapes[right] or left == right:
            raise UnsupportedGraph("A plan adds two values of one shape.")
        for base, other in ((right, left), (left, right)):
            before = self._only_use(base)
            if before is not None and _takes_residual(before):
                fused = replace(before, inputs=(before.inputs[0], other))
                self._replace(before, fused, node.output[0])
                return
        operator = Operator("sum", (left, right), node.output[0])
        self._emit(operator, self.shapes[left])

    def _add_constant(self, node: Any, place: int) -> None:
        value, source = self._const(node.input[place]), self._name(node.input[1 - place])
        before = self._only_use(source)
        fits = before is not None and before.kind == "dense" and before.bias is None
        if before is None or not fits or before.activation or value.size != self.shapes[source][0]:
            raise UnsupportedGraph("A plan adds a constant to a product, as its bias, only.")
        bias = value.reshape(-1).astype(np.float32)
        self._replace(before, replace(before, bias=bias), node.output[0])

    def _mul(self, node: Any, _: dict[str, Any]) -> None:
        """Reads x * sigmoid(x); a plan knows no other product of two values."""
        left, right = (self._name(name) for name in node.input)
        for x, gate in ((left, right), (right, left)):
            made = self._only_use(gate)
            if made is not None and made.inputs == (x,) and made.activation == "sigmoid":
                del self.made[gate]
                self.uses[x] -= 1
                self._activate(x, node.output[0], "silu")
                return
        raise UnsupportedGraph("A plan multiplies only x with sigmoid(x).")

    def _clip(self, node: Any, attributes: dict[str, Any]) -> None:
        low, high = attributes.get("min"), attributes.get("max")
        if len(node.input) > 1 and node.input[1]:
            low = float(self._const(node.input[1]))
        if len(node.input) > 2 and node.input[2]:
            high = float(self._const(node.input[2]))
        names: dict[tuple[Any, Any], str] = {(0.0, 6.0): "relu6", (0.0, None): "relu"}
        if (low, high) not in names:
            raise UnsupportedGraph(f"A plan knows no clipping to {low}..{high}.")
        self._activate(self._name(node.input[0]), node.output[0], names[low, high])

    def _activate(self, source: str, output: str, activation: str) -> None:
        before = self._only_use(source)
        if before is not None and before.kind in _ACTIVE and not before.activation:
            self._replace(before, replace(before, activation=activation), output)
            return
        self._emit(Operator("map", (source,), output, activation=activation), self.shapes[source])

    def _pool(self, node: Any, attributes: dict[str, Any]) -> None:
        source = self._name(node.input[0])
        height, width, channels = self._picture(source)
        window = _pair(attributes["kernel_shape"])
        stride = _pair(attributes.get("strides", [1, 1]))
        padding = _padding(attributes, window, stride, (height, width))
        counts = attributes.get("count_include_pad", 0) and any(padding)
        if attributes.get("ceil_mode", 0) or set(attributes.get("dilations", [1])) != {1} or counts:
            raise UnsupportedGraph("A plan knows plain pooling: no ceil_mode, dilation or padding.")
        kind = "max" if node.op_type == "MaxPool" else "mean"
        size = _slid((height, width), window, stride, padding)
        operator = Operator(
            kind, (source,), node.output[0], window=window, stride=stride, padding=padding
        )
        self._emit(operator, (*size, channels))

    def _global_pool(self, node: Any, _: dict[str, Any]) -> None:
        source = self._name(node.input[0])
        height, width, channels = self._picture(source)
        operator = Operator("mean", (source,), node.output[0], window=(height, width))
        self._emit(operator, (1, 1, channels))

    def _reduce_mean(self, node: Any, attributes: dict[str, Any]) -> None:
        axes = attributes.get("axes")
        if axes is None and len(node.input) > 1:
            axes = self._const(node.input[1]).tolist()
        if sorted(axis % 4 for axis in axes or []) != [2, 3]:
            raise UnsupportedGraph("A plan knows the mean over height and width only.")
        self._global_pool(node, attributes)
        if not attributes.get("keepdims", 1):
            self.shapes[node.output[0]] = (self.shapes[node.output[0]][2],)

    def _flatten(self, node: Any, attributes: dict[str, Any]) -> None:
        source, output = self._name(node.input[0]), node.output[0]
        shape = self.shapes[source]
        if node.op_type == "Reshape":
            target = self._const(node.input[1]).tolist()
            whole = len(target) == 2 and target[1] in {-1, math.prod(shape)}
        else:
            whole = attributes.get("axis", 1) == 1
        if not whole or (node.op_type == "Squeeze" and shape[:2] != (1, 1)):
            raise UnsupportedGraph(f"A plan flattens pictures only; {node.name} does not.")
        if len(shape) == 1 or shape[:2] == (1, 1):
            self.alias[output] = source
            self.uses[source] += self.uses[output] - 1
            self.shapes[source] = (math.prod(shape),)
            return
        self.alias[output] = source
        self.uses[source] += self.uses[output] - 1
        self.flat[source] = (shape[0], shape[1], shape[2])

    def _softmax(self, node: Any, attributes: dict[str, Any]) -> None:
        source = self._name(node.input[0])
        if attributes.get("axis", -1) not in {1, -1} or len(self.shapes[source]) != 1:
            raise UnsupportedGraph("A plan knows softmax over columns only.")
        self._emit(Operator("softmax", (source,), node.output[0]), self.shapes[source])

    def _constant(self, node: Any, attributes: dict[str, Any]) -> None:
        from onnx import numpy_helper

        self.constants[node.output[0]] = numpy_helper.to_array(attributes["value"])

    def _same(self, node: Any, _: dict[str, Any]) -> None:
        source = self._name(node.input[0])
        self.alias[node.output[0]] = source
        self.uses[source] += self.uses[node.output[0]] - 1

    def _only_use(self, name: str) -> Operator | None:
        """The operator that makes a value, if nobody but the node at hand reads it."""
        return self.made.get(name) if self.uses[name] == 1 else None

    def _replace(self, before: Operator, after: Operator, output: str) -> None:
        """Puts a fused operator in the place of the node at hand, behind all that it reads."""
        shape = self.shapes.pop(before.output)
        del self.made[before.output]
        self._emit(replace(after, output=output), shape)


_CONVOLUTIONS = {"conv", "depthwise"}
_ACTIVE = {*_CONVOLUTIONS, "dense", "sum"}
"""Operators that an activation behind them joins."""

_ACTIVATIONS = {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "HardSwish": "hardswish",
    "Gelu": "gelu",
}


def _takes_residual(operator: Operator) -> bool:
    plain = len(operator.inputs) == 1 and not operator.activation
    return operator.kind in {"conv", "dense"} and plain


def _attributes(node: Any) -> dict[str, Any]:
    import onnx

    return {found.name: onnx.helper.get_attribute_value(found) for found in node.attribute}


def _pair(values: Sequence[int]) -> tuple[int, int]:
    if len(values) != 2:
        raise UnsupportedGraph("A plan knows windows of two dimensions only.")
    return values[0], values[1]


def _slid(
    size: tuple[int, int],
    window: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
) -> tuple[int, int]:
    """Rows and columns that a window gives."""
    rows, columns = (
        (s + 2 * p - w) // d + 1 for s, p, w, d in zip(size, padding, window, stride, strict=True)
    )
    return rows, columns


def _padding(
    attributes: dict[str, Any],
    window: tuple[int, int],
    stride: tuple[int, int],
    size: tuple[int, int],
) -> tuple[int, int]:
    kind = attributes.get("auto_pad", b"NOTSET")
    if kind in {b"SAME_UPPER", b"SAME_LOWER"}:
        wanted = [
            max((-(-s // d) - 1) * d + w - s, 0)
            for s, w, d in zip(size, window, stride, strict=True)
        ]
        pads = [wanted[0] // 2, wanted[1] // 2, -(-wanted[0] // 2), -(-wanted[1] // 2)]
    else:
        pads = list(attributes.get("pads", [0, 0, 0, 0]))
    if pads[:2] != pads[2:]:
        raise UnsupportedGraph(f"A plan knows padding that is alike on both sides, not {pads}.")
    return pads[0], pads[1]
