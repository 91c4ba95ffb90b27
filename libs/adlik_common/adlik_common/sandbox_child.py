"""The far side of `adlik_common.sandbox`: a process that limits itself and calls one function.

It imports little, so that a child starts in about 0.1 s plus what its function imports.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from adlik_common.errors import AdlikError, EngineFailed, ResourceLimit

_PR_SET_PDEATHSIG = 1


def main(request_file: Path, parent: int = 0) -> None:
    """Answers the request in a file with a result file beside it.

    Args:
        request_file: JSON with `function`, `arguments`, `limits`, `parent` (process id) and
            `result` (file name).
        parent: Process id of a parent other than the one in the request; 0: there is none.
    """
    request = json.loads(request_file.read_text())
    die_with(parent or request["parent"])
    _limit(request["limits"])
    answer = _call(request["function"], request["arguments"])
    partial = request_file.with_name("partial.json")
    partial.write_text(json.dumps(answer))
    partial.replace(request["result"])


def die_with(parent: int) -> None:
    """Asks the kernel (Linux) to kill this process when its parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)  # it ended before we asked


def _limit(limits: dict[str, Any]) -> None:
    # The parent watches resident memory and says so kindly; this stops a burst between two looks.
    # Data counts reserved memory as well, so it is allowed twice as much.
    _set_limit(resource.RLIMIT_DATA, 2 * limits["memory_bytes"] + 2**30)
    _set_limit(resource.RLIMIT_CPU, limits["cpu_seconds"], grace=5)
    _set_limit(resource.RLIMIT_FSIZE, limits["file_bytes"])
    _set_limit(resource.RLIMIT_CORE, 0)
    os.nice(limits["niceness"])


def _set_limit(which: int, soft: int, grace: int = 0) -> None:
    """Sets a soft limit; the hard one, at which the kernel just kills, is `grace` above."""
    hard = soft + grace
    allowed = resource.getrlimit(which)[1]
    if allowed != resource.RLIM_INFINITY:
        soft, hard = min(soft, allowed), min(hard, allowed)
    resource.setrlimit(which, (soft, hard))


def _call(function: str, arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"result": _resolve(function)(**arguments)}
    except AdlikError as error:
        failure = error
    except Exception as error:  # noqa: BLE001 - the outermost edge of the process
        traceback.print_exc()
        failure = _failure(error)
    return {
        "error": {
            "code": failure.code,
            "message": failure.message,
            "cure": failure.cure,
            "details": failure.details,
        }
    }


def _failure(error: Exception) -> AdlikError:
    if isinstance(error, MemoryError) or "bad_alloc" in str(error):
        return ResourceLimit(
            "The work needed more memory than it may take.",
            cure="Raise the memory limit or use a smaller model.",
        )
    if isinstance(error, OSError) and error.errno == errno.EFBIG:
        return ResourceLimit(
            "The work wrote a larger file than it may.",
            cure="Raise the limit on files or use a smaller model.",
        )
    return EngineFailed(
        f"The engine failed with {type(error).__name__}: {error}",
        cure="The service's log has the engine's own words.",
    )


def _resolve(function: str) -> Callable[..., Any]:
    module, _, name = function.partition(":")
    resolved: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return resolved


if __name__ == "__main__":
    main(Path(sys.argv[1]))
