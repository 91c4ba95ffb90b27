"""The threads that share one call: join in a microsecond, no wait for a thread that is late.

Workers are Python threads that spend their lives in one native function, without the interpreter's
lock. They spin for some microseconds after a job, then sleep on a futex. A job is a kernel, its
arguments and a number of chunks. Each thread has a share of them, the same one in every call, so
that what its core's caches hold of weights and results stays of use; whoever is done takes from the
others. The caller takes part, and waits only for chunks that a worker has begun: a worker that the
system has put aside costs nothing.
When two callers meet, the second computes its job alone, so results never depend on the number of
threads.

    gate: one word, the number of workers inside the job, and a bit: may more enter?
"""

from __future__ import annotations

import atexit
import ctypes
import os
import platform
import sys
import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from adlik_kernels.codegen.build import load
from adlik_kernels.machine.pool_code import (
    ALLOWED,
    AVOIDED,
    CPU_WORDS,
    MOST_PLACED,
    PLACED,
    SHARE_BYTES,
    SHARES,
    SYSCALLS,
    TEAM,
    THREADS,
    pool_module,
)
from adlik_kernels.machine.target import host

PIECES = 2
"""Chunks of a shared call for each thread: a worker that comes late still finds some."""


class Pool:
    """Threads that share kernels' chunks.

    Args:
        threads: Threads that share a call, the caller among them.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads if _supported() else 1
        self._state = _aligned_words((SHARES + self.threads * SHARE_BYTES) // 8)
        self._state[TEAM // 8] = self.threads
        self._address = int(self._state.ctypes.data)
        code = load("pool", "pool", pool_module, host(), ("run", "plan", "work", "stop")).addresses
        words = ctypes.c_int64
        self._run = ctypes.CFUNCTYPE(None, words, words, ctypes.c_char_p, words)(code["run"])
        self._plan = ctypes.CFUNCTYPE(None, words, words, words)(code["plan"])
        self._stop = ctypes.CFUNCTYPE(None, words)(code["stop"])
        work = ctypes.CFUNCTYPE(None, words, words)(code["work"])
        self._workers = [
            threading.Thread(
                target=work, args=(self._address, number), name=f"kernels-{number}", daemon=True
            )
            for number in range(1, self.threads)
        ]
        for worker in self._workers:
            worker.start()
        self._keep_apart()

    @property
    def chunks(self) -> int:
        """Pieces to cut a call into that is worth sharing."""
        return PIECES * self.threads if self.threads > 1 else 1

    def run(self, kernel: int, arguments: bytes, chunks: int) -> None:
        """Runs one kernel, its chunks shared; the interpreter's lock is free meanwhile.

        Args:
            kernel: Address of a `void(i64 chunk, i64 chunks, i64* arguments)`.
            arguments: The argument words.
            chunks: Pieces that the work is cut into; 1 to stay on the caller's thread.
        """
        self._run(self._address, kernel, arguments, chunks)

    def run_plan(self, operations: NDArray[np.int64]) -> None:
        """Runs kernels one after the other in a single call.

        Args:
            operations: [operations, 3] words: kernel, address of its arguments, chunks.
        """
        self.run_calls(int(operations.ctypes.data), len(operations))

    def run_calls(self, operations: int, count: int) -> None:
        """Does the same for operations at an address.

        Args:
            operations: Address of the words.
            count: How many operations there are.
        """
        self._plan(self._address, operations, count)

    def _keep_apart(self) -> None:
        """Lets callers move workers off their own core, if there are cores enough."""
        allowed = os.sched_getaffinity(0) if _supported() else set()
        if len(allowed) < self.threads or max(allowed) >= 64 * CPU_WORDS:
            return
        for core in allowed:
            self._state[ALLOWED // 8 + core // 64] |= np.int64(np.uint64(1 << core % 64))
        placed = self._workers[:MOST_PLACED]
        for number, worker in enumerate(placed):
            self._state[THREADS // 8 + number] = worker.native_id or 0
        self._state[AVOIDED // 8] = -1
        self._state[PLACED // 8] = len(placed)

    def pin(self, cores: Sequence[int]) -> None:
        """Binds the caller to the first core and each worker to one of the others.

        For measurements: left alone, the system may put caller and worker on one core for a while.

        Args:
            cores: As many cores as threads share a call.
        """
        self._state[PLACED // 8] = 0
        for thread, core in zip(self._workers, cores[1:], strict=True):
            os.sched_setaffinity(thread.native_id or 0, {core})
        os.sched_setaffinity(0, {cores[0]})

    def close(self) -> None:
        """Ends the workers."""
        self._stop(self._address)
        for worker in self._workers:
            worker.join()
        self._workers.clear()


_lock = threading.Lock()
_shared: dict[int, Pool] = {}


def shared(threads: int) -> Pool:
    """Returns the pool of this process for a number of threads, starting it on first use."""
    found = _shared.get(threads)
    if found is None:
        with _lock:
            found = _shared.get(threads) or Pool(threads)
            _shared[threads] = found
    return found


def _close_all() -> None:
    with _lock:
        for pool in _shared.values():
            pool.close()
        _shared.clear()


def _forget() -> None:
    """After a fork the child has none of the workers: it starts its own when it needs them."""
    global _lock  # noqa: PLW0603 # the lock may be held by a thread that the child does not have
    _lock = threading.Lock()
    _shared.clear()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_forget)


def _supported() -> bool:
    """Whether this system has the futex that workers sleep on."""
    return sys.platform == "linux" and platform.machine() in SYSCALLS


def _aligned_words(count: int) -> NDArray[np.int64]:
    raw = np.zeros(count + 16, np.int64)
    start = (-(raw.ctypes.data // 8)) % 16
    return raw[start : start + count]
