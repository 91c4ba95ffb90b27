"""From ONNX nodes to fused operators, in one walk.

A node becomes an operator, or changes the operator before it (a bias, an activation, a sum with
another branch), or makes a *view*: something that exists only as a part of an operator to come,
such as the scores of an attention. What no reader knows is refused by its number, so that the
rest can still be planned.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from adlik_kernels.plans.folding import folded
from adlik_kernels.plans.graph import Array, Graph, Node, Operator, Size, UnsupportedGraph, Value
from adlik_kernels.plans.probe import Dims

LEVEL_TYPES = {2: np.uint8, 3: np.int8}
"""Element types of levels, by ONNX' numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A value that only exists as a part of an operator to come.

    Attributes:
        kind: What it is, such as "heads" or "scores".
        sources: Names of the real values behind it.
        nodes: Numbers of the nodes that made it.
        facts: What else its readers need.
    """

    kind: str
    sources: tuple[str, ...]
    nodes: tuple[int, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Reader:
    """Walks through nodes once.

    Attributes:
        constants: Arrays by name; those that follow from others join them.
        batch: The batch that the model was exported for; 0 for any.
        opset: Version of ONNX' operators.
        dims: Shapes of the model's values, as far as they are known.
        types: Element types of the model's values, as ONNX numbers them.
        values: What is known of every real value.
        made: Operators by the value that they make, in order.
        views: Views by name.
        sizes: Shapes that the model computes with, by name.
        alias: Other names of values.
        uses: How many readers a value has, but for those of its sizes.
        measured: Names of values whose sizes are read.
    """

    constants: MutableMapping[str, Array]
    batch: int = 0
    opset: int = 17
    dims: Mapping[str, Dims] = field(default_factory=dict)
    types: Mapping[str, int] = field(default_factory=dict)
    values: dict[str, Value] = field(default_factory=dict)
    made: dict[str, Operator] = field(default_factory=dict)
    views: dict[str, View] = field(default_factory=dict)
    sizes: dict[str, tuple[Size, ...]] = field(default_factory=dict)
    alias: dict[str, str] = field(default_factory=dict)
    uses: Counter[str] = field(default_factory=Counter)
    measured: set[str] = field(default_factory=set)

    def read(
        self,
        nodes: Sequence[Node],
        given: Mapping[str, Value],
        outputs: Sequence[str],
        readers: Mapping[str, Callable[[Reader, Node], None]],
    ) -> Graph:
        """Reads nodes.

        Args:
            nodes: What to read, in order.
            given: Values that come from outside, by name.
            outputs: Names of the values that are wanted.
            readers: What reads a node, by its kind.

        Raises:
            UnsupportedGraph: With the numbers of the nodes that a plan can't take.
        """
        self.values.update(given)
        for node in nodes:
            if node.kind == "Shape":
                self.measured.update(node.inputs)
            else:
                self.uses.update(name for name in set(node.inputs) if name)
        self.uses.update(outputs)
        for node in nodes:
            try:
                if found := folded(node, self.constants, self.opset):
                    self.constants.update(found)
                else:
                    readers[node.kind](self, node)
            except UnsupportedGraph as error:
                numbers = error.nodes or (node.number,)
                raise UnsupportedGraph(error.message, numbers) from error
            except (LookupError, TypeError, ValueError) as error:
                # An attribute is missing or is none that ONNX knows: not a plan's to judge.
                message = f"A plan can't read this {node.kind}: {error}"
                raise UnsupportedGraph(message, (node.number,)) from error
        makers = {name: node.number for node in nodes for name in node.outputs}
        ends = tuple(self._end(name, makers.get(name)) for name in outputs)
        read = {name for operator in self.made.values() for name in operator.inputs}
        inputs = tuple(name for name in given if name in read or name in ends)
        for operator in self.made.values():
            self._check_known(operator, makers)
        operators = tuple(self.made.values())
        return Graph(inputs, ends, tuple(outputs), dict(self.values), operators, self.batch)

    def _check_known(self, operator: Operator, makers: Mapping[str, int]) -> None:
        """Checks that an operator knows its columns: those of a mask of keys may be open."""
        for place, name in enumerate(operator.inputs):
            value, is_mask = self.values[name], operator.kind == "attention" and place == 3
            if not is_mask and (not value.columns or (value.is_picture and not value.is_known)):
                made = (makers[operator.output],) if operator.output in makers else ()
                raise UnsupportedGraph(f"A plan can't compute with the sizes of {name}.", made)

    def _end(self, name: str, maker: int | None) -> str:
        """The value behind an output: numbers or levels, as the model says."""
        try:
            found = self.real(name)
        except UnsupportedGraph as error:
            made = () if maker is None else (maker,)
            raise UnsupportedGraph(error.message, (*error.nodes, *made)) from error
        value, made = self.values[found], () if maker is None else (maker,)
        if (value.levels is not None) != (self.types.get(name) in LEVEL_TYPES):
            raise UnsupportedGraph(f"A plan can't tell whether {name} are levels.", made)
        if value.is_picture and not value.is_known:
            raise UnsupportedGraph(f"A plan can't give what has the sizes of {name}.", made)
        return found

    def name(self, name: str) -> str:
        """Returns the name that a value was made by."""
        while name in self.alias:
            name = self.alias[name]
        return name

    def view(self, name: str, *kinds: str) -> View | None:
        """Returns a view of one of some kinds, None for anything else."""
        found = self.views.get(self.name(name))
        return found if found is not None and found.kind in kinds else None

    def real(self, name: str) -> str:
        """Returns the name of a float32 value that operators can read.

        Raises:
            UnsupportedGraph: There is only a part of an operator that never came, a constant, or
                nothing.
        """
        name = self.name(name)
        found = self.views.get(name)
        if found is not None and found.kind in REALIZERS:
            return REALIZERS[found.kind](self, name, found)
        if found is not None:
            raise UnsupportedGraph(f"A plan can't take {found.kind} by itself.", found.nodes)
        if name not in self.values:
            raise UnsupportedGraph(f"A plan can't compute {name}.")
        return name

    def constant(self, name: str) -> Array | None:
        """Returns a constant, None for what is computed."""
        return self.constants.get(self.name(name))

    def needed(self, name: str) -> Array:
        """Returns what must be constant.

        Raises:
            UnsupportedGraph: It is computed.
        """
        found = self.constant(name)
        if found is None:
            raise UnsupportedGraph(f"{name} is computed; a plan needs it to be constant.")
        return found

    def number(self, name: str) -> float | None:
        """Returns a constant of one number, None for anything else.

        Every value has two axes or more, so a number of one axis leaves shapes as they are.
        """
        found = self.constant(name)
        if found is None or found.size != 1 or found.ndim > 2:
            return None
        return float(found.reshape(-1)[0])

    def rank(self, name: str) -> int:
        """Returns the axes of a value in the model, 0 where they are not known."""
        return len(self.dims.get(name, ()))

    def emit(self, operator: Operator, value: Value) -> None:
        """Adds an operator and what it makes."""
        self.made[operator.output] = operator
        self.values[operator.output] = value

    def only_maker(self, name: str) -> Operator | None:
        """Returns the operator that makes a value if nobody but the node at hand reads it."""
        return self.made.get(name) if self.uses[name] == 1 else None

    def remake(
        self, before: Operator, after: Operator, output: str, value: Value | None = None
    ) -> None:
        """Puts a changed operator in the place of the node at hand, behind all that it reads."""
        kept = self.values.pop(before.output)
        del self.made[before.output]
        self.emit(replace(after, output=output), value or kept)

    def rename(self, output: str, source: str) -> None:
        """Lets a node's output be another name of its input.

        Raises:
            UnsupportedGraph: It is the very same name.
        """
        if output == source:
            raise UnsupportedGraph(f"{output} is made of itself.")
        self.alias[output] = source
        self.uses[source] += self.uses[output] - 1

    def look(
        self, node: Node, kind: str, sources: tuple[str, ...], *behind: View, **facts: Any
    ) -> None:
        """Makes a node's output a view.

        Args:
            node: The node.
            kind: What the view is.
            sources: Real values behind it.
            behind: Views that it was made of.
            facts: What else its readers need.
        """
        nodes = (*dict.fromkeys(n for view in behind for n in view.nodes), node.number)
        self.views[node.outputs[0]] = View(kind, sources, nodes, facts)

    def is_batch(self, size: Size) -> bool:
        """Whether a size is the batch."""
        return size == "batch" or (self.batch > 0 and size == self.batch)


REALIZERS: dict[str, Callable[[Reader, str, View], str]] = {}
"""How a view of a kind becomes a real value after all."""
