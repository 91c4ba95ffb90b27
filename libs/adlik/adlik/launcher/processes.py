"""A child process of a local mesh: dies with its parent, logs to a file, is restarted."""

from __future__ import annotations

import contextlib
import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

MAX_LOG_BYTES = 20 * 1024 * 1024
FIRST_PAUSE_SECONDS = 0.2
MAX_PAUSE_SECONDS = 10.0
# A process that ran this long has recovered: its next crash is restarted at once again.
STEADY_SECONDS = 30.0

_PR_SET_PDEATHSIG = 1


class Child:
    """A process that is started again when it ends by itself.

    Args:
        name: For logs and messages.
        command: Program and arguments.
        environment: All of its variables.
        log: File that its output is appended to; begun anew when it grew too large.
    """

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path
    ) -> None:
        self.name = name
        self._command, self._environment, self._log = command, environment, log
        self._process: subprocess.Popen[bytes] | None = None
        self._pause = FIRST_PAUSE_SECONDS
        self._started = self._restart_at = 0.0

    @property
    def pid(self) -> int | None:
        """The process's id, None before it was started."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Starts the process."""
        if self._log.exists() and self._log.stat().st_size > MAX_LOG_BYTES:
            self._log.rename(self._log.with_suffix(".old.log"))
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=dict(self._environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - the launcher has one thread
            )
        self._started, self._restart_at = time.monotonic(), 0.0

    def mend(self) -> str:
        """Starts the process again if it has ended and its pause is over.

        Returns:
            What happened, in words; "" where nothing did.
        """
        if self._process is None or self._process.poll() is None:
            return ""
        now = time.monotonic()
        if not self._restart_at:
            if now - self._started > STEADY_SECONDS:
                self._pause = FIRST_PAUSE_SECONDS
            self._restart_at = now + self._pause
            self._pause = min(2 * self._pause, MAX_PAUSE_SECONDS)
            return f"{self.name} ended ({self._how()}); starting it again; log: {self._log}"
        if now >= self._restart_at:
            self.start()
        return ""

    def stop(self) -> None:
        """Asks the process to end."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)

    def wait(self, seconds: float) -> None:
        """Waits for the end, and kills what has not ended by then."""
        if self._process is None:
            return
        try:
            self._process.wait(max(seconds, 0.1))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _how(self) -> str:
        assert self._process is not None
        code = self._process.returncode
        return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def _die_with_parent() -> None:
    """Runs in the child: a killed launcher leaves nothing behind, and Ctrl-C is the launcher's."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
