"""The local mesh's processes: what hinders a start is said, what ends is started again."""

import contextlib
import socket
import sys
import time
from collections import Counter
from types import SimpleNamespace

import pytest
from adlik.errors import AdlikError
from adlik.launcher import mesh as mesh_module
from adlik.launcher import processes
from adlik.launcher.mesh import LocalMesh, MeshOptions
from adlik.launcher.processes import Child

NOTHING = Counter()


def refused(options):
    with pytest.raises(AdlikError) as caught, LocalMesh(options, print):
        pytest.fail("started")
    assert caught.value.cure
    return caught.value


def options(data_dir, **changes):
    """A mesh of no processes at all."""
    fields = {"http_port": 0, "grpc_port": 0, "processes": NOTHING, "nats_url": "nats://x"}
    return MeshOptions(data_dir, **{**fields, **changes})


def test_a_data_directory_belongs_to_one_mesh(tmp_path):
    with LocalMesh(options(tmp_path), print):
        error = refused(options(tmp_path))
        assert error.code == "IN_USE"
        assert str(tmp_path) in error.message
        with LocalMesh(options(tmp_path / "other"), print):
            pass
    with LocalMesh(options(tmp_path), print):
        pass


def test_a_data_directory_that_cannot_be_used_is_told(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        assert refused(options(path)).code == "INVALID_DATA_DIR"


@pytest.mark.parametrize("which", ["http_port", "grpc_port"])
def test_a_port_in_use_is_named_before_anything_starts(tmp_path, which):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        error = refused(options(tmp_path / "data", **{which: port}))
    assert error.code == "PORT_IN_USE"
    assert str(port) in error.message
    assert not (tmp_path / "data").exists()


def test_a_service_that_is_not_installed_is_named(tmp_path):
    error = refused(options(tmp_path / "data", processes=Counter(gateway=1, trainer=1)))
    assert error.code == "NOT_INSTALLED"
    assert "trainer" in error.message
    assert "gateway" not in error.message


def test_a_start_that_fails_half_way_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(mesh_module.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(mesh_module.shutil, "which", lambda _: None)
    assert refused(options(tmp_path, nats_url="")).code == "NOT_INSTALLED"
    with LocalMesh(options(tmp_path), print):
        pass  # the data directory is free again


def child(tmp_path, code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return Child("worker-0", command, {"A": "b"}, tmp_path / "worker.log")


def until(found, seconds=20):
    give_up = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < give_up
        time.sleep(0.01)
    return value


def ended(process):
    return process._process.poll() is not None


@contextlib.contextmanager
def started(process):
    process.start()
    try:
        yield process
    finally:
        process.stop()
        process.wait(5)


SLEEP = "import time; print('up', flush=True); time.sleep(60)"


def test_what_ends_by_itself_is_said_and_started_again(tmp_path):
    with started(child(tmp_path, "import os; print(dict(os.environ)); raise SystemExit(3)")) as one:
        first = one.pid
        news = until(one.mend)
        assert "worker-0 ended (exit status 3)" in news
        assert str(tmp_path / "worker.log") in news
        until(lambda: one.mend() or one.pid != first)
        until(lambda: ended(one))
    log = (tmp_path / "worker.log").read_text()
    assert log.count("'A': 'b'") == 2
    assert "PATH" not in log


def test_each_crash_waits_longer_up_to_a_limit_and_a_steady_run_forgets(tmp_path, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(processes, "time", SimpleNamespace(monotonic=lambda: now))
    pauses = []
    with started(child(tmp_path, "raise SystemExit(1)")) as one:
        for turn in range(9):
            one._process.wait()
            if turn == 8:
                now += processes.STEADY_SECONDS + 1
            assert "exit status 1" in one.mend()
            before = one.pid
            assert one.mend() == ""
            assert one.pid == before, "the pause is kept"
            pauses.append(one._restart_at - now)
            now = one._restart_at
            assert one.mend() == ""
            assert one.pid != before
    first, last = processes.FIRST_PAUSE_SECONDS, processes.MAX_PAUSE_SECONDS
    assert pauses == pytest.approx([*(min(first * 2**n, last) for n in range(8)), first])


def test_what_runs_is_left_alone_and_ends_when_asked(tmp_path):
    one = child(tmp_path, SLEEP)
    assert one.pid is None
    assert one.mend() == ""
    one.stop()
    one.wait(1)
    with started(one):
        until(lambda: "up" in (tmp_path / "worker.log").read_text())
        pid = one.pid
        assert one.mend() == ""
        one.stop()
        one.wait(20)
        assert one._how() == "SIGTERM"
        one.stop()
        assert one.pid == pid


def test_what_does_not_listen_is_killed(tmp_path):
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"
    with started(child(tmp_path, deaf)) as one:
        until(lambda: "up" in (tmp_path / "worker.log").read_text())
        one.stop()
        one.wait(0.1)
        assert one._how() == "SIGKILL"


def test_a_log_that_grew_too_large_is_put_aside(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "MAX_LOG_BYTES", 10)
    (tmp_path / "worker.log").write_text("x" * 11)
    with started(child(tmp_path, "print('new')")) as one:
        one._process.wait()
    assert (tmp_path / "worker.log").read_text() == "new\n"
    assert (tmp_path / "worker.old.log").read_text() == "x" * 11


NOTE_THE_END = """
import signal, sys, time
def end(*_):
    with open(sys.argv[2], "a") as file:
        print(sys.argv[1], file=file)
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
time.sleep(60)
"""


def test_the_door_is_closed_first_and_the_bus_goes_last(tmp_path):
    names = ["nats", "serving-0", "compiler-0", "optimizer-0", "gateway-0"]
    local = LocalMesh(options(tmp_path), print)
    with local:
        local._children = [
            Child(name, [sys.executable, "-c", NOTE_THE_END, name, str(tmp_path / "ends")], {},
                  tmp_path / f"{name}.log")
            for name in names
        ]  # fmt: skip
        for one in local._children:
            one.start()
        for name in names:
            until(lambda name=name: "up" in (tmp_path / f"{name}.log").read_text())
        assert set(local.pids) == set(names)
        assert all(local.pids.values())
    order = (tmp_path / "ends").read_text().split()
    assert (order[0], order[-1]) == ("gateway-0", "nats")
    assert sorted(order) == sorted(names)
