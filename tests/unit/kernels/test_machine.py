"""The machine, the cache of compiled kernels and the threads."""

import multiprocessing
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from adlik_kernels import BuildFailed, KernelError, configure, configured, prepare_dense
from adlik_kernels.codegen import build as build_room
from adlik_kernels.codegen.isa import dot_of
from adlik_kernels.machine.latency import edges, ring
from adlik_kernels.machine.pool import shared
from adlik_kernels.machine.pool_code import pool_module
from adlik_kernels.machine.roofline import Roofline, roofline
from adlik_kernels.machine.target import (
    CAP_VARIABLE,
    CAPS,
    LEVELS,
    capped,
    host,
    level_of,
    most_of,
    uncapped,
)
from adlik_kernels.schedules.schedule import Schedule
from adlik_kernels.templates.dense import dense_module
from adlik_kernels.workload import Dense

from .machines import MACHINES


def test_levels_need_all_below_them():
    assert level_of(frozenset()) == "portable"
    assert level_of(frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"})) == "portable"
    assert level_of(frozenset({"avx2", "fma", "f16c"})) == "avx2"


def test_masking_hides_what_is_above():
    if host().level == "portable":
        return
    masked = host().masked_to("portable")
    assert masked.level == level_of(masked.features) == "portable"
    assert not any(name.startswith(("avx", "fma", "amx")) for name in masked.features)


def test_a_level_that_is_not_here_is_refused():
    with pytest.raises(KernelError, match="no level"):
        host().masked_to("mmx")
    above = LEVELS[LEVELS.index(host().level) + 1 :]
    for level in above:
        with pytest.raises(KernelError, match="has no"):
            configure(level=level)


@pytest.mark.parametrize("name", MACHINES)
def test_code_has_the_registers_of_its_machine_and_no_wider_ones(name):
    """Compiled for every kind of machine, whatever this one is."""
    machine = MACHINES[name]
    text = str(dense_module(Dense(8, 64, 16), Schedule(4, 2), machine))
    assert build_room.compile_module(text, machine).startswith(b"\x7fELF")
    code = build_room.machine_code(text, machine)
    found = {width for width in ("xmm", "ymm", "zmm") if f"%{width}" in code}
    widest = {4: "xmm", 8: "ymm", 16: "zmm"}[machine.lanes]
    assert widest in found
    assert found <= set(("xmm", "ymm", "zmm")[: ("xmm", "ymm", "zmm").index(widest) + 1])


@pytest.mark.parametrize(
    ("dtype", "instruction", "users"),
    [
        ("int8", "vpdpbusd", {"avx512_vnni", "avx512_bf16"}),
        ("bf16", "vdpbf16ps", {"avx512_bf16"}),
        ("int8", "tdpbusd", {"amx"}),
        ("bf16", "tdpbf16ps", {"amx"}),
    ],
)
def test_products_of_short_numbers_use_what_their_machine_has(dtype, instruction, users):
    found = set()
    for name, machine in MACHINES.items():
        schedule = Schedule(16, 2) if name == "amx" else Schedule(4, 2)
        text = str(dense_module(Dense(16, 64, 64, dtype), schedule, machine))
        if instruction in build_room.machine_code(text, machine):
            found.add(name)
    assert found == users


def test_there_is_a_machine_for_every_cap():
    assert tuple(MACHINES) == CAPS
    for name, machine in MACHINES.items():
        assert most_of(machine.features) == name
        assert machine.level == level_of(machine.features)


@pytest.mark.parametrize("name", MACHINES)
def test_a_capped_machine_is_an_older_one(name):
    machine, below = MACHINES[name], CAPS[: CAPS.index(name) + 1]
    assert capped(machine, name) == machine
    for cap in below:
        older = capped(machine, cap)
        assert most_of(older.features) == cap
        assert older.level == level_of(older.features)
        assert older.features <= machine.features
        assert dot_of("int8", older) == dot_of("int8", MACHINES[cap])
    for cap in set(CAPS) - set(below):
        with pytest.raises(KernelError, match=f"no {cap}: it has {name}"):
            capped(machine, cap)
    with pytest.raises(KernelError, match="no instruction set 'sse9'"):
        capped(machine, "sse9")


@pytest.mark.parametrize("cap", CAPS)
def test_a_variable_caps_a_process_and_its_children(cap, monkeypatch):
    """Measured in a child; a cap above this machine is refused there in words."""
    monkeypatch.setenv(CAP_VARIABLE, cap)
    program = (
        "from adlik_kernels import KernelError\n"
        "from adlik_kernels.machine.target import host, most_of\n"
        "try: print(most_of(host().features))\n"
        "except KernelError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    has = CAPS.index(cap) <= CAPS.index(most_of(uncapped().features))
    assert done.stdout.strip() == cap if has else f"no {cap}" in done.stdout


def test_the_second_process_compiles_nothing(tmp_path):
    program = f"""
import numpy as np, time
import adlik_kernels as k
from adlik_kernels.codegen import build
k.configure(cache={str(tmp_path)!r})
if {{compiled}}:
    def refuse(*_): raise SystemExit("compiled again")
    build.compile_module = refuse
print(k.prepare_dense(np.ones((7, 9), np.float32))(np.ones((2, 7), np.float32)).sum())
"""
    for compiled in (False, True):
        command = [sys.executable, "-c", program.format(compiled=compiled)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.stdout.strip() == "126.0", done.stderr


def test_a_cache_that_others_can_write_is_refused(tmp_path):
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(BuildFailed, match="written by others"):
        build_room.private_folder(folder)


@pytest.mark.parametrize("damage", [b"", b"not an object file", b"x" * 1000])
def test_a_damaged_object_is_compiled_again(tmp_path, damage):
    before = configured()
    configure(cache=tmp_path)
    try:
        sound = build_room.object_code("pool", pool_module, host())
        (kept,) = (tmp_path / "objects").iterdir()
        kept.write_bytes(damage)
        assert build_room.object_code("pool", pool_module, host()) == sound
    finally:
        configure(cache=before.cache)


def test_bad_assembly_is_reported():
    with pytest.raises(BuildFailed, match="rejects"):
        build_room.compile_module("define void @kernel( {", host())


def test_settings_change_one_by_one(tmp_path):
    before = configured()
    try:
        assert configure(threads=3).cache == before.cache
        with pytest.raises(KernelError):
            configure(threads=-1)
        assert configured().threads == 3
    finally:
        configure(threads=before.threads)


def layer_and_input():
    rng = np.random.default_rng(0)
    w = rng.standard_normal((128, 512)).astype(np.float32)
    return prepare_dense(w), rng.standard_normal((64, 128)).astype(np.float32)


def test_callers_on_many_threads_get_their_own_results():
    layer, x = layer_and_input()
    inputs = [x * n for n in range(1, 5)]
    wanted = [layer(x) for x in inputs]
    wrong = []

    def work(n):
        same = [(layer(inputs[n]) == wanted[n]).all() for _ in range(200)]
        wrong.extend(n for fine in same if not fine)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_can_use_the_parents_layer():
    layer, x = layer_and_input()
    want = layer(x)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()

    def work():
        queue.put(bool((layer(x) == want).all()))

    child = context.Process(target=work)
    child.start()
    assert queue.get(timeout=60)
    child.join()
    assert child.exitcode == 0


def test_the_interpreter_runs_on_while_a_kernel_computes():
    """Counts in Python while a kernel runs on another thread: impossible if it held the lock."""
    rng = np.random.default_rng(0)
    layer = prepare_dense(rng.standard_normal((2048, 2048)).astype(np.float32))
    x = rng.standard_normal((2048, 2048)).astype(np.float32)
    started, counted = threading.Event(), []

    def compute():
        started.set()
        layer(x)
        counted.append(None)

    thread = threading.Thread(target=compute)
    thread.start()
    started.wait()
    steps = 0
    while not counted:
        steps += 1
    thread.join()
    assert steps > 1000


def test_workers_are_kept_off_the_callers_core():
    from adlik_kernels.machine.pool import Pool

    pool = Pool(2)
    place = os.sched_getaffinity(0)
    try:
        for core in sorted(place):
            os.sched_setaffinity(0, {core})
            pool.run(noop(), b"", 2)
            worker = pool._workers[0].native_id
            wanted = place - {core} if len(place) > 1 else place
            assert os.sched_getaffinity(worker) == wanted
    finally:
        os.sched_setaffinity(0, place)
        pool.close()


def noop():
    """The address of a kernel that does nothing."""
    from adlik_kernels.codegen.emit import Emitter, kernel_function
    from llvmlite import ir

    def module():
        made = ir.Module("noop")
        Emitter(kernel_function(made, "kernel")).builder.ret_void()
        return made

    return build_room.load("noop", "noop", module, host()).address


def test_a_pool_ends_its_workers():
    from adlik_kernels.machine.pool import Pool

    before = threading.active_count()
    pool = Pool(3)
    assert threading.active_count() == before + 2
    pool.close()
    assert threading.active_count() == before
    assert shared(2) is shared(2)


def test_the_edges_of_a_tlb_are_read_through_noise():
    counts = (16, 32, 64, 128, 256, 512)
    costs = [0.0, 0.6, 0.1, 2.0, 2.6, 9.0]  # nanoseconds; noise adds at 32 and 256
    found = edges(counts, [cost * 1e-9 for cost in costs], 1e-9)
    assert (found.first, found.second) == (64, 256)
    assert found.second_miss > found.first_miss > 0


@pytest.mark.parametrize("last", [2.5, 0.1])
def test_a_tlb_without_a_second_edge_has_one_level(last):
    found = edges((16, 32, 64), [0.0, last * 1e-9, last * 1e-9], 1e-9)
    assert found.second == found.first == (16 if last > 1 else 64)


def test_a_ring_visits_every_word_once():
    memory = np.zeros(64 * 40, np.uint8)
    start = ring(memory, range(0, 64 * 40, 64))
    words, base = memory.view(np.int64), memory.ctypes.data
    seen, here = [], start
    while here not in seen:
        seen.append(here)
        here = int(words[(here - base) // 8])
    assert here == start
    assert sorted(seen) == [base + 64 * n for n in range(40)]


def test_a_roofline_survives_its_file_and_an_older_one_is_measured_again():
    limits = roofline(1)
    assert Roofline.from_json(limits.to_json()) == limits
    assert list(limits.latency) == list(limits.bandwidth)
    assert limits.translation.first <= limits.translation.second
    assert Roofline.from_json('{"machine": "older"}') is None
