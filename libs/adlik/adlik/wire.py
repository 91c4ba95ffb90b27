"""Between proto3 JSON and the dataclasses of `adlik.records`."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

Record = TypeVar("Record")


def from_json(cls: type[Record], data: Mapping[str, Any]) -> Record:
    """Returns a record from the proto3 JSON mapping of its message.

    Absent fields keep their defaults, 64-bit integers may be strings, and fields that a newer
    server adds are ignored.
    """
    hints: dict[str, Any] = _hints(cls)  # type: ignore[arg-type] # classes are hashable
    values = {name: _decode(hints[name], data[name]) for name in hints if name in data}
    return cls(**values)


def to_json(value: Any) -> Any:  # noqa: PLR0911 - one line for each kind of value
    """Returns a record as JSON values: objects by field name, times in ISO 8601, no NaN."""
    if is_dataclass(value):
        return {f.name: to_json(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Enum):
        return value.name.lower()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(name): to_json(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@cache
def _hints(cls: Hashable) -> dict[str, Any]:
    return get_type_hints(cls)


def _decode(hint: Any, value: Any) -> Any:
    if value is None:
        return None
    if isinstance(hint, UnionType):
        hint = next(arm for arm in get_args(hint) if arm is not NoneType)
    if is_dataclass(hint) and isinstance(hint, type):
        return from_json(hint, value)
    if get_origin(hint) is tuple:
        return tuple(_decode(get_args(hint)[0], item) for item in value)
    if get_origin(hint) is Mapping:
        return {name: _decode(get_args(hint)[1], item) for name, item in value.items()}
    if hint is datetime:
        return datetime.fromisoformat(value)
    return hint(value)
