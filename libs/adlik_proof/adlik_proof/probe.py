"""Runs a model on inputs that may end the process: engines abort on some without elements."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from adlik_common.errors import AdlikError
from adlik_runtimes import onnxruntime

Array = np.ndarray[Any, np.dtype[Any]]

ANSWERED, REFUSED, CRASHED = "answered", "refused", "crashed"
_SECONDS = 60.0


class Apart:
    """Tries inputs in a copy of this process, while this one goes on.

    A copy starts at once, where a new interpreter would import everything again. Nothing else may
    be under way in this process when it is made.

    Args:
        model: ONNX file, its weights inside.
        inputs: Sets of inputs.
    """

    def __init__(self, model: Path, inputs: Sequence[Mapping[str, Array]]) -> None:
        self._model, self._inputs = model, list(inputs)
        self._context = multiprocessing.get_context("fork")
        if self._inputs:
            self._start(0)

    def became(self) -> list[str]:
        """Returns what ONNX Runtime has done with each set of inputs, once all were tried."""
        became = [CRASHED] * len(self._inputs)
        first = 0
        while first < len(became):
            words = self._words()
            became[first : first + len(words)] = words
            first += len(words) + 1  # the one behind the last has ended the process: not again
            if first < len(became):
                self._start(first)
        return became

    def _start(self, first: int) -> None:
        self._said, tell = self._context.Pipe(duplex=False)
        self._process = self._context.Process(
            target=_try_each, args=(tell, self._model, self._inputs[first:]), daemon=True
        )
        self._process.start()
        tell.close()
        self._give_up = monotonic() + _SECONDS

    def _words(self) -> list[str]:
        """Returns what the copy has said until it ended; one that hangs is ended."""
        words: list[str] = []
        try:
            while self._said.poll(max(0.0, self._give_up - monotonic())):
                words.append(self._said.recv())
        except EOFError:
            pass
        self._said.close()
        self._process.kill()
        self._process.join()
        return words


def try_apart(model: Path, inputs: Sequence[Mapping[str, Array]]) -> list[str]:
    """Returns what `Apart` finds, at once."""
    return Apart(model, inputs).became()


def _try_each(tell: Connection, model: Path, inputs: Sequence[Mapping[str, Array]]) -> None:
    faulthandler.disable()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # an engine's last words are of no use
        os.dup2(nowhere, stream)
    # One thread: those of this process's sessions are not in its copy.
    loaded = onnxruntime.ENGINE.load(model, threads=1)
    for one in inputs:
        try:
            loaded.run(one)
        except AdlikError:
            tell.send(REFUSED)
        else:
            tell.send(ANSWERED)
