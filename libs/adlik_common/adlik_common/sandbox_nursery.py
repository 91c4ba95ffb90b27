"""The parent of warm children: it has imported what they need, and each is a copy of it.

`python -m adlik_common.sandbox_nursery MODULE…` reads orders, a line of JSON each, and tells what
becomes of them the same way. It never touches what a child works on, so that every copy is clean.
Between it and a child stands a process that waits for the child: each dies with the one above.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

from adlik_common import sandbox_child


def main(modules: list[str]) -> None:
    """Imports modules, then makes children until nobody orders any more."""
    sandbox_child.die_with(os.getppid())
    for module in modules:
        with contextlib.suppress(ImportError):  # an engine that is not installed
            importlib.import_module(module)
    gc.freeze()  # a collection would write to pages that all children share
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait for children
    _tell(ready=True)
    nursery = os.getpid()
    for line in sys.stdin.buffer:
        if os.fork() == 0:
            _supervise(json.loads(line), nursery)


def _tell(**facts: object) -> None:
    # One write: lines of several processes never mix.
    os.write(1, json.dumps(facts).encode() + b"\n")


def _supervise(order: dict[str, Any], nursery: int) -> NoReturn:
    sandbox_child.die_with(nursery)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    supervisor = os.getpid()
    placed, place = os.pipe()
    child = os.fork()
    if child == 0:
        os.setsid()
        for end in (placed, place):
            os.close(end)
        _work(order, supervisor)
    os.close(place)
    os.read(placed, 1)  # what is told of leads its group: it can be ended with all that it starts
    _tell(order=order["order"], pid=child)
    _, status = os.waitpid(child, 0)
    _tell(order=order["order"], status=os.waitstatus_to_exitcode(status))
    os._exit(0)


def _work(order: dict[str, Any], supervisor: int) -> NoReturn:
    """Answers the request as a process that `sandbox` starts anew does, with its folder and log."""
    status = 1
    try:
        os.chdir(order["workdir"])
        for stream, (path, flags) in enumerate(
            [(os.devnull, os.O_RDONLY), *[(order["log"], os.O_WRONLY | os.O_APPEND)] * 2]
        ):
            opened = os.open(path, flags)
            os.dup2(opened, stream)
            os.close(opened)
        sandbox_child.main(Path(order["request"]), supervisor)
        status = 0
    except SystemExit as leaving:
        status = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:  # noqa: BLE001 - the outermost edge of the process
        traceback.print_exc()
    atexit._run_exitfuncs()  # noqa: SLF001 - as at the end of any interpreter
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main(sys.argv[1:])
