"""LLVM in a child process: an error that ends it is an error here, and ends nothing else.

The child is started when there is first something to compile (0.1 s, beside which the first module
is written), stays for the next, and ends after a minute without any.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Any

from adlik_kernels.errors import BuildFailed
from adlik_kernels.machine.target import Target

PATIENCE = 600.0
"""Seconds after which a compilation counts as hung: the longest take one, on a busy machine ten."""

_PROGRAM = (sys.executable, "-I", str(Path(__file__).with_name("compiler_child.py")))

_TAIL = 600
"""Letters of what LLVM said last that an error repeats."""


class Compiler:
    """Compiles LLVM assembly in a child process, one module at a time.

    Args:
        patience: Seconds after which a compilation is given up and its child killed.
        program: The child's program; another one stands in for it in tests.
    """

    def __init__(self, *, patience: float = PATIENCE, program: tuple[str, ...] = _PROGRAM) -> None:
        self._patience, self._program = patience, program
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None

    def start(self) -> None:
        """Starts the child, if none is there: it gets ready while the caller does other work.

        Raises:
            BuildFailed: No process can be started.
        """
        with self._lock:
            self._started()

    def compile(
        self, text: str, target: Target, *, assembly: bool = False, optimize: bool = True
    ) -> bytes:
        """Returns the object file of a module, or the machine's assembly of it.

        Args:
            text: LLVM assembly.
            target: The machine it is for; it need not be this one.
            assembly: Whether people are to read the result.
            optimize: Whether LLVM may rewrite the module before it selects instructions.

        Raises:
            BuildFailed: LLVM rejects the module, ends its process or hangs.
        """
        content = text.encode()
        request = {
            "cpu": target.cpu,
            "features": sorted(target.features),
            "assembly": assembly,
            "optimize": optimize,
            "size": len(content),
        }
        message = json.dumps(request).encode() + b"\n" + content
        with self._lock:
            reply, code = self._exchange(message)
        if reply["error"]:
            raise BuildFailed(
                f"LLVM rejects a generated kernel: {reply['error']}",
                cure="This is a fault of the template.",
            )
        return code

    def close(self) -> None:
        """Ends the child."""
        with self._lock:
            self._end()

    def forget(self) -> None:
        """Leaves the child to the process that this one was forked from."""
        child, said = self._child, self._said
        self._lock, self._child, self._said = threading.Lock(), None, None
        if child is not None and child.stdin is not None and child.stdout is not None:
            child.stdin.close()
            child.stdout.close()
            child.returncode = 0  # not ours to wait for
        if said is not None:
            said.close()

    def _exchange(self, message: bytes) -> tuple[dict[str, Any], bytes]:
        child = self._started()
        try:
            return self._ask(child, message)
        except _Ended:
            if child.wait() != 0:
                raise self._failed(child.returncode) from None
        # It had been idle, and ended while it was asked.
        self._end()
        child = self._started()
        try:
            return self._ask(child, message)
        except _Ended:
            raise self._failed(child.wait()) from None

    def _ask(self, child: subprocess.Popen[bytes], message: bytes) -> tuple[dict[str, Any], bytes]:
        assert child.stdin is not None
        assert child.stdout is not None
        deadline = time.monotonic() + self._patience
        view = memoryview(message)
        try:
            while view:
                self._wait(deadline, [], [child.stdin])
                # A pipe that is ready takes this much at once: a hung child blocks nobody.
                view = view[child.stdin.write(view[: select.PIPE_BUF]) :]
        except BrokenPipeError as error:
            raise _Ended from error
        received = bytearray()
        while b"\n" not in received:
            received += self._read(child, deadline)
        line, _, code = bytes(received).partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        while len(code) < reply["size"]:
            code += self._read(child, deadline)
        return reply, code

    def _read(self, child: subprocess.Popen[bytes], deadline: float) -> bytes:
        assert child.stdout is not None
        self._wait(deadline, [child.stdout], [])
        part = os.read(child.stdout.fileno(), 1 << 16)
        if not part:
            raise _Ended
        return part

    def _wait(self, deadline: float, reads: list[IO[bytes]], writes: list[IO[bytes]]) -> None:
        """Returns when a pipe is ready; past the deadline the child is killed."""
        left = max(deadline - time.monotonic(), 0.0)
        if any(select.select(reads, writes, [], left)):
            return
        self._end()
        raise BuildFailed(
            f"LLVM took more than {self._patience:g} s for a kernel and was stopped.",
            cure="This is a fault of the template, or the machine is overloaded.",
        )

    def _started(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is None:
            return self._child
        self._end()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 # it lives as long as the child
        try:
            self._child = subprocess.Popen(
                self._program,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                bufsize=0,
            )
        except OSError as error:
            self._end()
            raise BuildFailed(
                f"No process can be started to compile kernels in: {error}",
                cure="Let this process start children, or give it a cache of compiled kernels.",
            ) from error
        return self._child

    def _failed(self, code: int) -> BuildFailed:
        """What to say of a child that died; the next kernel gets another one."""
        said = ""
        if self._said is not None:
            self._said.seek(0)
            said = " ".join(self._said.read().decode(errors="replace").split())[-_TAIL:]
        self._end()
        how = signal.Signals(-code).name if code < 0 else f"the code {code}"
        return BuildFailed(
            f"LLVM ended its process with {how} while it compiled a kernel: {said or 'no word'}",
            cure="This is a fault of the template; only this kernel is lost.",
        )

    def _end(self) -> None:
        child, self._child = self._child, None
        said, self._said = self._said, None
        if said is not None:
            said.close()
        if child is None or child.stdin is None or child.stdout is None:
            return
        child.kill()
        child.wait()
        child.stdin.close()
        child.stdout.close()


class _Ended(Exception):
    """The child ended, of its own accord or not, before it replied."""
