"""A push as its user lives it: asking all the time while better variants take over."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from adlik.client import Client
from adlik.errors import AdlikError
from adlik.records import Change, Model, Pushed

from tests.mesh import PATIENCE_SECONDS


@dataclass
class Asking:
    """Clients in a loop: what they were answered, when, and what went wrong after the first answer.

    Attributes:
        answers: Time and outputs of each answer.
        errors: Everything but answers since the first answer.
    """

    answers: list[tuple[datetime, dict[str, np.ndarray]]] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)


@contextlib.contextmanager
def asking(
    url: str, name: str, inputs: Mapping[str, np.ndarray], clients: int = 1
) -> Iterator[Asking]:
    """Asks without a pause until the block ends."""
    found = Asking()
    over = threading.Event()

    def ask() -> None:
        with Client(url, timeout=PATIENCE_SECONDS) as client:
            while not over.is_set():
                try:
                    outputs = client.infer(name, inputs)
                except AdlikError as error:
                    if found.answers:
                        found.errors.append(error)
                    time.sleep(0.05)
                else:
                    found.answers.append((datetime.now(UTC), outputs))

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        over.set()
        for thread in threads:
            thread.join()


@dataclass(frozen=True)
class Story:
    """What was seen of one push."""

    pushed: Pushed
    model: Model
    asked: Asking
    changes: list[Change]
