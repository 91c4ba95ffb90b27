"""Tuning records: an append-only file of JSON lines, one measured schedule a line.

A line is an object with these members; two files are merged by writing one behind the other.

    format     1
    workload   "dense-fp32-64x1024x1024": operator, element type, rows x columns x depth, or
               "conv-fp32-56x56x64-64x3x3-1x1x1x1": height x width x channels,
               filters x window, stride x padding (two numbers, or four: above, left, below,
               right); then only where they are not 1: "-d2x2", dilation, and "-g32", groups;
               "-bb", "-lb" or "-bl" for blocked layouts of operands and result
    target     "znver4-avx512": LLVM's name of the processor, and the instruction level
    threads    threads that shared the call
    schedule   the fields of `space.Schedule`
    seconds    time of one call
    speed      how many times faster than the default schedule, measured in turns with it
"""

from __future__ import annotations

import fcntl
import functools
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from adlik_kernels.errors import InvalidRecord, InvalidSchedule
from adlik_kernels.schedules.schedule import Schedule
from adlik_kernels.workload import LAYOUTS, Conv2d, Dense, Workload

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Record:
    """One measured schedule; see the module for its fields."""

    workload: str
    target: str
    threads: int
    schedule: Schedule
    seconds: float
    speed: float

    def to_json(self) -> str:
        """Returns the record's line, without its end."""
        return json.dumps({"format": FORMAT, **asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, line: str) -> Record:
        """Reads a line.

        Raises:
            InvalidRecord: The line does not follow the format.
        """
        try:
            values = json.loads(line)
            if values.pop("format") != FORMAT:
                raise InvalidRecord(f"This is not a record of format {FORMAT}: {line[:80]!r}.")
            schedule = Schedule.from_dict(values.pop("schedule"))
            record = cls(schedule=schedule, **values)
            workload_of(record.workload)
            numbers = (record.threads, record.seconds, record.speed)
            if not all(isinstance(n, int | float) and n > 0 for n in numbers):
                raise InvalidRecord(f"Numbers of a record are above 0: {line[:80]!r}.")
        except (ValueError, TypeError, KeyError, AttributeError, InvalidSchedule) as error:
            if isinstance(error, InvalidRecord):
                raise
            raise InvalidRecord(f"This is not a tuning record: {line[:80]!r}.") from error
        return record


class Database:
    """The records of one file.

    Args:
        path: The file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, record: Record) -> None:
        """Appends a record; several processes may do so at once."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(record.to_json() + "\n")

    def merge(self, records: Iterable[Record]) -> int:
        """Appends records that are not there yet and returns how many they were."""
        known = {record.to_json() for record in self}
        fresh = [record for record in records if record.to_json() not in known]
        for record in fresh:
            self.add(record)
        return len(fresh)

    def __iter__(self) -> Iterator[Record]:
        if not self.path.exists():
            return
        text = self.path.read_text()
        lines = text.splitlines()
        # A last line without its end was cut off while it was written.
        whole = lines if text.endswith("\n") else lines[:-1]
        for number, line in enumerate(whole, 1):
            try:
                yield Record.from_json(line)
            except InvalidRecord as error:
                raise InvalidRecord(
                    f"{self.path}, line {number}: {error.message}", cure="Remove the line."
                ) from error


@functools.cache
def shipped() -> tuple[Record, ...]:
    """Returns the records that come with this package."""
    folder = resources.files("adlik_kernels.schedules") / "records"
    lines = (
        line
        for file in sorted(folder.iterdir(), key=lambda file: file.name)
        if file.name.endswith(".jsonl")
        for line in file.read_text().splitlines()
    )
    return tuple(Record.from_json(line) for line in lines)


@functools.lru_cache(maxsize=4096)
def workload_of(key: str) -> Workload:
    """Returns the workload that a record's key names.

    Raises:
        InvalidRecord: It names none.
    """
    try:
        operator, dtype, *shapes = key.split("-")
        if operator == "dense":
            rows, columns, depth = _numbers(*shapes)
            return Dense(rows, columns, depth, dtype)
        if operator != "conv":
            raise InvalidRecord(f"{key!r} is not the key of a workload.")
        return _conv_of(dtype, *shapes)
    except (ValueError, TypeError, IndexError) as error:
        raise InvalidRecord(f"{key!r} is not the key of a workload.") from error


def _conv_of(dtype: str, size: str, window: str, steps: str, *more: str) -> Conv2d:
    (height, width, channels), (filters, rows, columns) = _numbers(size), _numbers(window)
    down, across, *pads = _numbers(steps)
    padding = (pads[0], pads[1]) if len(pads) == 2 else (pads[0], pads[1], pads[2], pads[3])
    return Conv2d(
        height=height,
        width=width,
        channels=channels,
        filters=filters,
        kernel=(rows, columns),
        stride=(down, across),
        padding=padding,
        dtype=dtype,
        **{field: value for text in more for field, value in _extra(text).items()},
    )


def _extra(text: str) -> dict[str, Any]:
    """The fields that a word behind the sizes of a convolution stands for, and their values."""
    if text in {"bb", "lb", "bl"}:
        layouts = {layout[0]: layout for layout in LAYOUTS}
        return {"in_layout": layouts[text[0]], "out_layout": layouts[text[1]]}
    if text[0] == "d":
        down, across = _numbers(text[1:])
        return {"dilation": (down, across)}
    if text[0] == "g":
        return {"groups": int(text[1:])}
    raise ValueError(text)


def _numbers(*shapes: str) -> list[int]:
    return [int(number) for shape in shapes for number in shape.split("x")]
