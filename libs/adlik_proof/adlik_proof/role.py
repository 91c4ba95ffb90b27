"""What an input means to a model."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Role:
    """What an input's numbers are used as.

    Attributes:
        bounds: Sizes of what they index: a number, the name of an open axis, or 0 where unknown.
        is_size: They are sizes, counts or shapes.
        is_shape: They are the shape that something is reshaped to.
        constants: Numbers that the model compares them with.
        texts: Texts that the model knows.
    """

    bounds: list[int | str] = field(default_factory=list)
    is_size: bool = False
    is_shape: bool = False
    constants: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)

    @property
    def is_index(self) -> bool:
        """Whether they index something."""
        return bool(self.bounds)
