"""How fast a schedule is, measured in a pinned child process that may crash or hang."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from adlik_kernels import configuration
from adlik_kernels.errors import MeasureFailed
from adlik_kernels.schedules.schedule import Schedule
from adlik_kernels.workload import Workload


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one trial found.

    Attributes:
        seconds: Time of one call, from turns with the baseline.
        baseline_seconds: Time of one call with the workload's default schedule.
    """

    seconds: float
    baseline_seconds: float

    @property
    def speed(self) -> float:
        """How many times faster than the default schedule."""
        return self.baseline_seconds / self.seconds


class Meter:
    """Measures schedules in a child process; use it as a context.

    Args:
        threads: Threads that share a call.
        burst: Seconds of one turn of a measurement.
        patience: Seconds after which a trial is given up and its child killed.
        program: The child's program; another one stands in for it in tests.
    """

    def __init__(
        self,
        threads: int,
        *,
        burst: float = 0.004,
        patience: float = 20.0,
        program: tuple[str, ...] = (sys.executable, "-m", "adlik_kernels.search.trial"),
    ) -> None:
        self.threads, self.burst, self.patience, self.program = threads, burst, patience, program
        self._child: subprocess.Popen[bytes] | None = None
        self._cache = tempfile.TemporaryDirectory(prefix="adlik-kernels-trials-")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the child and removes what it compiled."""
        self._end()
        self._cache.cleanup()

    def measure(self, workload: Workload, schedule: Schedule) -> Measurement:
        """Measures one schedule.

        Args:
            workload: What is computed; its rows must be known.
            schedule: How.

        Raises:
            MeasureFailed: The child crashed, hung, or computed a wrong result.
        """
        request = {
            "workload": workload.key,
            "schedule": schedule.to_dict(),
            "threads": self.threads,
            "burst": self.burst,
        }
        reply = self._exchange(request)
        if "error" in reply:
            raise MeasureFailed(f"{schedule} on {workload.key}: {reply['error']}.")
        return Measurement(reply["seconds"], reply["baseline_seconds"])

    def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        child = self._child or self._begin()
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(json.dumps(request).encode() + b"\n")
            child.stdin.flush()
        except BrokenPipeError:
            line = b""
        else:
            ready, _, _ = select.select([child.stdout], [], [], self.patience)
            line = child.stdout.readline() if ready else b"{}"
        if line == b"{}":
            self._end()
            raise MeasureFailed(f"The trial took more than {self.patience} s and was killed.")
        if not line:
            code = child.wait()
            self._end()
            raise MeasureFailed(f"The trial's process died with the code {code}.")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _begin(self) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(self.program, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdin is not None
        cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        settings = {
            "cache": self._cache.name,
            "level": configuration.configured().level,
            "cores": cores[: self.threads],
            "threads": self.threads,
        }
        child.stdin.write(json.dumps(settings).encode() + b"\n")
        self._child = child
        return child

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue  # what was not yet written is of no interest to a dead child
