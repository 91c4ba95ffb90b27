"""A child may crash, hang, eat memory or be abandoned; its parent always gets a typed answer."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from adlik_common import errors
from adlik_common.sandbox import Limits, run_isolated
from adlik_common.sandbox_warm import Nursery

WARM: dict[str, Nursery] = {}

WORK = """
import ctypes, json, os, subprocess, sys, time
from adlik_common.errors import InvalidModel

def add(left, right):
    return {"sum": left + right, "directory": os.getcwd()}

def refuse():
    raise InvalidModel("Not a graph.", cure="Export it again.", node="conv_1")

def stumble():
    print("words of the engine", file=sys.stderr)
    raise RuntimeError("internal state")

def crash():
    print("about to crash", flush=True)
    ctypes.string_at(0)

def leave():
    sys.exit(3)

def hang(marker=None):
    grandchild = subprocess.Popen(["sleep", "600"])
    if marker:
        with open(marker + ".part", "w") as f:
            json.dump([os.getpid(), grandchild.pid], f)
        os.rename(marker + ".part", marker)
    time.sleep(600)

def spin():
    while True:
        pass

def devour():
    hoard = []
    while True:
        hoard.append(b"x" * 2**22)
        time.sleep(0.01)

def gulp():
    return len(bytes(2**36))

def scribble():
    with open("large", "wb") as f:
        f.write(bytes(2**21))

def niceness():
    return os.nice(0)

def surroundings():
    modules = ["decimal" in sys.modules]
    return {"modules": modules, "parent": os.getppid(), "session": os.getsid(0) == os.getpid()}
"""


@pytest.fixture
def workdir(tmp_path, monkeypatch):
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "sandbox_work.py").write_text(WORK)
    monkeypatch.setenv("PYTHONPATH", str(modules))
    directory = tmp_path / "work"
    directory.mkdir()
    return directory


@pytest.fixture(params=["cold", "warm"], autouse=True)
async def nursery(request, workdir):
    """Every child is started anew, and again as a copy of a warm parent."""
    if request.param == "cold":
        yield None
        return
    made = WARM["nursery"] = Nursery(["decimal", "no_such_module"])
    running = asyncio.create_task(made.run())
    await made.ready()
    yield made
    del WARM["nursery"]
    running.cancel()
    await asyncio.wait({running})


async def call(name, workdir, **options):
    arguments = options.pop("arguments", {})
    return await run_isolated(
        f"sandbox_work:{name}", arguments, workdir=workdir, nursery=WARM.get("nursery"), **options
    )


async def test_returns_what_the_function_returns_and_leaves_no_files(workdir):
    got = await call("add", workdir, arguments={"left": 2, "right": 3})
    assert got == {"sum": 5, "directory": str(workdir)}
    assert list(workdir.iterdir()) == []


async def test_files_in_the_work_directory_are_never_imported(workdir):
    (workdir / "json.py").write_text("raise SystemExit(9)")
    got = await call("add", workdir, arguments={"left": 1, "right": 1})
    assert got["sum"] == 2


async def test_an_error_of_the_tree_comes_back_as_its_class(workdir):
    with pytest.raises(errors.InvalidModel) as caught:
        await call("refuse", workdir)
    assert caught.value.message == "Not a graph."
    assert caught.value.cure == "Export it again."
    assert caught.value.details == {"node": "conv_1"}


async def test_other_errors_become_engine_failed_with_the_log_aside(workdir):
    with pytest.raises(errors.EngineFailed) as caught:
        await call("stumble", workdir)
    assert caught.value.message == "The engine failed with RuntimeError: internal state"
    assert "words of the engine" in caught.value.details["log"]


async def test_a_crash_names_its_signal(workdir):
    with pytest.raises(errors.EngineFailed, match="SIGSEGV") as caught:
        await call("crash", workdir)
    assert "about to crash" in caught.value.details["log"]


async def test_leaving_without_a_result_is_a_failure(workdir):
    with pytest.raises(errors.EngineFailed, match="exit status 3"):
        await call("leave", workdir)


@pytest.mark.parametrize(
    ("name", "limits", "words"),
    [
        ("hang", Limits(seconds=0.5), "longer than 0.5 s"),
        ("spin", Limits(cpu_seconds=1), "processor time"),
        ("devour", Limits(memory_bytes=64 * 2**20), "64 MiB"),
        ("gulp", Limits(memory_bytes=2**30), "more memory"),
        ("scribble", Limits(file_bytes=2**20), "larger file"),
    ],
)
async def test_over_a_limit(workdir, name, limits, words):
    with pytest.raises(errors.ResourceLimit, match=words):
        await call(name, workdir, limits=limits)


async def test_work_yields_to_serving(workdir):
    assert await call("niceness", workdir, limits=Limits(niceness=7)) == os.nice(0) + 7


async def wait_for(marker: Path) -> list[int]:
    while not marker.exists():
        await asyncio.sleep(0.02)
    return [int(pid) for pid in marker.read_text().strip("[]").split(",")]


def wait_gone(*pids: int) -> None:
    deadline = time.monotonic() + 20
    while any(psutil.pid_exists(pid) and alive(pid) for pid in pids):
        assert time.monotonic() < deadline, f"still running: {pids}"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_cancelling_kills_the_child_and_what_it_started(workdir):
    marker = workdir / "pids"
    task = asyncio.create_task(call("hang", workdir, arguments={"marker": str(marker)}))
    pids = await wait_for(marker)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    wait_gone(*pids)


async def test_a_failing_heartbeat_ends_the_work(workdir):
    async def lost() -> None:
        raise errors.Unavailable("The bus is gone.")

    with pytest.raises(errors.Unavailable, match="bus is gone"):
        await call("hang", workdir, heartbeat=lost, heartbeat_seconds=0.1)


async def test_a_child_killed_from_outside_may_be_tried_again(workdir):
    marker = workdir / "pids"
    task = asyncio.create_task(call("hang", workdir, arguments={"marker": str(marker)}))
    os.kill((await wait_for(marker))[0], signal.SIGKILL)
    with pytest.raises(errors.Unavailable) as caught:
        await task
    assert caught.value.retryable


async def test_the_child_dies_with_its_parent(workdir):
    marker = workdir / "pids"
    program = textwrap.dedent(
        f"""
        import asyncio, pathlib
        from adlik_common.sandbox import run_isolated
        arguments, workdir = {{"marker": {str(marker)!r}}}, pathlib.Path({str(workdir)!r})
        asyncio.run(run_isolated("sandbox_work:hang", arguments, workdir=workdir))
        """
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    child, grandchild = await wait_for(marker)
    parent.kill()
    await parent.wait()
    wait_gone(child)
    os.kill(grandchild, signal.SIGKILL)


async def test_a_warm_child_has_imported_already_and_leads_a_session_of_its_own(workdir, nursery):
    found = await call("surroundings", workdir)
    assert found["session"]
    assert found["modules"] == [nursery is not None]
    assert (found["parent"] == os.getpid()) == (nursery is None)


async def test_children_of_one_nursery_run_beside_each_other(workdir, nursery):
    folders = [workdir / str(number) for number in range(8)]
    for folder in folders:
        folder.mkdir()
    answers = await asyncio.gather(
        *(
            call("add", folder, arguments={"left": 1, "right": at})
            for at, folder in enumerate(folders)
        )
    )
    assert [answer["sum"] for answer in answers] == list(range(1, 9))
    assert [answer["directory"] for answer in answers] == list(map(str, folders))


@pytest.mark.parametrize("nursery", ["warm"], indirect=True)
async def test_a_nursery_that_ends_takes_its_children_along_and_another_follows(workdir, nursery):
    marker = workdir / "pids"
    task = asyncio.create_task(call("hang", workdir, arguments={"marker": str(marker)}))
    child, grandchild = await wait_for(marker)
    supervisor = psutil.Process(child).ppid()
    psutil.Process(psutil.Process(supervisor).ppid()).kill()
    with pytest.raises(errors.Unavailable) as caught:
        await task
    assert caught.value.retryable
    wait_gone(child, grandchild, supervisor)
    # The next is started anew, and in the meantime a warm parent comes up again.
    assert (await call("surroundings", workdir))["modules"] == [False]
    await nursery.ready()
    assert (await call("surroundings", workdir))["modules"] == [True]
