"""Runs jobs in children that may crash or hang: that is a finding, and the rest goes on.

A child reads one JSON job a line and answers each with one JSON line.
"""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

SECONDS = 120.0
"""A job that takes longer hangs."""


class Child:
    """A process that answers jobs; one that ended is started again for the next job."""

    def __init__(self, module: str, *arguments: str) -> None:
        self._command = [sys.executable, "-W", "ignore", "-m", module, *arguments]
        self._process: subprocess.Popen[str] | None = None

    def answer(self, job: Any) -> Any:
        """The child's answer, or {"crash": why} if it gave none."""
        process = self._started()
        alarm = threading.Timer(SECONDS, process.kill)
        alarm.start()
        try:
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            alarm.cancel()
        if line:
            return json.loads(line)
        code = self._end()
        return {"crash": signal.Signals(-code).name if code < 0 else f"exit {code}"}

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
            )
        return self._process

    def _end(self) -> int:
        """Waits for the process and closes what led to it; returns its exit status."""
        process, self._process = self._process, None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        code = process.wait()
        process.stdout.close()
        return code

    def close(self) -> None:
        if self._process is not None:
            self._end()


def answers(
    module: str, *arguments: str, jobs: Iterable[Any], children: int = 2
) -> Iterator[tuple[Any, Any]]:
    """Gives every job with its answer, in the order in which they come.

    Args:
        module: What the children run.
        arguments: Their arguments.
        jobs: What to ask them.
        children: How many there are.
    """
    waiting, found = iter(jobs), queue.SimpleQueue()
    lock = threading.Lock()

    def work() -> None:
        child = Child(module, *arguments)
        while True:
            with lock:
                job = next(waiting, None)
            if job is None:
                break
            found.put((job, child.answer(job)))
        child.close()
        found.put(None)

    for _ in range(children):
        threading.Thread(target=work, daemon=True).start()
    ended = 0
    while ended < children:
        pair = found.get()
        if pair is None:
            ended += 1
        else:
            yield pair


def serve(answer: Any) -> None:
    """The child's side: answers each line of standard input.

    Whatever else writes to standard output, such as a library's warning, goes to standard error.
    """
    import os

    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        out.write(json.dumps(answer(json.loads(line))) + "\n")
        out.flush()
