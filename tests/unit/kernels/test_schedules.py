"""Schedules, their spaces, the records of them, and the choice among those."""

import random
from dataclasses import replace

import pytest
from adlik_kernels import (
    InvalidRecord,
    InvalidSchedule,
)
from adlik_kernels.machine import target
from adlik_kernels.machine.target import host
from adlik_kernels.schedules.db import Database, shipped, workload_of
from adlik_kernels.schedules.registry import choose, database_path
from adlik_kernels.schedules.schedule import Schedule
from adlik_kernels.schedules.space import Space
from adlik_kernels.templates.conv import conv2d_module
from adlik_kernels.templates.dense import dense_module
from adlik_kernels.workload import Conv2d, Dense
from hypothesis import given, settings
from hypothesis import strategies as st

from .machines import MACHINES
from .records import CONVOLUTION, WORKLOAD, record

shapes = st.builds(
    Dense,
    rows=st.integers(1, 300),
    columns=st.integers(1, 300),
    depth=st.integers(1, 600),
    dtype=st.sampled_from(["fp32", "bf16", "int8"]),
)


@settings(max_examples=60, deadline=None)
@given(workload=shapes, machine=st.sampled_from(list(MACHINES)), seed=st.integers())
def test_what_a_space_gives_is_allowed(workload, machine, seed):
    space = Space(workload, MACHINES[machine], 2)
    rng = random.Random(seed)
    schedule = space.sample(rng)
    for given_one in (schedule, space.neighbour(schedule, rng)):
        assert space.fits(given_one)
    for allowed in (space.default(), space.repaired(Schedule(28, 1, 4, 128))):
        assert space.fault(allowed) == ""


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    channels=st.integers(1, 40),
    filters=st.integers(1, 80),
    window=st.sampled_from([1, 3]),
    seed=st.integers(),
)
def test_a_convolutions_space(height, width, channels, filters, window, seed):
    pad = (window // 2,) * 2
    workload = Conv2d(height, width, channels, filters, kernel=(window, window), padding=pad)
    space, rng = Space(workload, host(), 2), random.Random(seed)
    for schedule in (space.sample(rng), space.default(), space.repaired(Schedule(28, 1, 4, 128))):
        assert space.fault(schedule) == ""
        conv2d_module(workload, schedule, host())


def test_blocks_that_no_cache_holds_are_not_tried():
    space = Space(Dense(784, 128, 4608), host(), 1)
    held = host().l2_bytes
    for schedule in space:
        words = schedule.k_block or 4608
        assert schedule.row_tiles == 1 or 4 * words * schedule.rows * schedule.row_tiles <= held
    shallow = Space(Dense(64, 256, 200), host(), 1)
    narrow = 4 * 200 * host().lanes * 2 <= host().l1_bytes
    assert narrow == all(s.k_block == 0 for s in shallow if s.vectors == 1)


def test_a_grid_is_the_space():
    space = Space(Dense(4, 32, 64), host(), 1)
    everything = list(space)
    assert len(everything) == len(set(everything)) > 50
    assert all(space.fits(schedule) for schedule in everything)


@pytest.mark.parametrize("workload", [Dense(3136, 64, 256), Dense(1, 1000, 2048), Dense(1, 16, 8)])
def test_every_thread_finds_work_in_a_schedule(workload):
    space = Space(workload, target.host(), 2)
    rng = random.Random(0)
    seen = [space.sample(rng) for _ in range(50)]
    assert all(space.shares(schedule) for schedule in seen)
    narrow = replace(seen[0], parallel="columns", vectors=4)
    wide = -(-workload.columns // (4 * space.target.lanes))
    assert space.shares(narrow) == (wide > 1 or workload.rows == 1)


EVERYWHERE = (
    (Schedule(0, 1), "needs rows"),
    (Schedule(40, 3), "spills"),
    (Schedule(4, 2, unroll=3), "unknown"),
    (Schedule(4, 2, parallel="both"), "unknown"),
    (Schedule(4, 2, k_block=128), "no smaller"),
    (Schedule(4, 2, pack=True), "copied"),
    (Schedule(8, 1, row_tiles=64, order="rows", pack=True), "copied"),
)
UNROLLED = Schedule(12, 2, unroll=2)
"""Too large to be unrolled where there are 32 registers, too large at all where there are 16."""


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_a_schedule_outside_the_space_is_refused(machine):
    unrolled = (UNROLLED, "unrolled" if machine.registers == 32 else "spills")
    for schedule, reason in (*EVERYWHERE, unrolled):
        with pytest.raises(InvalidSchedule, match=reason):
            dense_module(WORKLOAD, schedule, machine)
    dense_module(WORKLOAD, Schedule(4, 2, unroll=2), machine)


@pytest.mark.parametrize(
    "values", [{}, {**Schedule().to_dict(), "more": 1}, {**Schedule().to_dict(), "rows": "4"}]
)
def test_a_record_of_a_schedule_is_checked(values):
    with pytest.raises(InvalidSchedule):
        Schedule.from_dict(values)


def test_schedules_older_than_copied_rows_are_read():
    values = Schedule(8, 2).to_dict()
    del values["pack"]
    assert Schedule.from_dict(values) == Schedule(8, 2, pack=False)


def test_keys_name_their_workloads():
    others = [
        Conv2d(9, 7, 12, 40, kernel=(3, 3), padding=(0, 1, 2, 3)),
        Conv2d(9, 7, 12, 40, kernel=(3, 3), dilation=(2, 1), dtype="int8"),
        Conv2d(9, 7, 12, 40, kernel=(3, 3), dilation=(2, 1), groups=4),
        Conv2d(9, 7, 32, 48, in_layout="blocked"),
        Conv2d(9, 7, 3, 48, out_layout="blocked"),
        Conv2d(9, 7, 32, 96, groups=2, in_layout="blocked", out_layout="blocked"),
    ]
    for workload in (WORKLOAD, CONVOLUTION, Dense(1, 2, 3, "int8"), *others):
        assert workload_of(workload.key) == workload


def test_records_survive_a_round_trip_and_a_cut(tmp_path):
    database = Database(tmp_path / "deep" / "records.jsonl")
    assert list(database) == []
    records = [record(speed=1.5), record(Dense(1, 2, 3, "int8"), threads=1)]
    assert database.merge(records) == 2
    assert database.merge(records) == 0
    assert list(database) == records
    with database.path.open("a") as file:
        file.write('{"format": 1, "workl')
    assert list(database) == records


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "no json",
        "[1]",
        record().to_json().replace('"format": 1', '"format": 2'),
        record().to_json().replace("dense-fp32", "conv-fp32"),
        record().to_json().replace("64x256x128", "64x256"),
        record().to_json().replace("64x256x128", "axbxc"),
        record().to_json().replace('"speed": 1.0', '"speed": -1.0'),
        record().to_json().replace('"speed": 1.0', '"speed": "fast"'),
        record().to_json().replace('"seconds"', '"minutes"'),
    ],
)
def test_a_bad_line_is_named(tmp_path, line):
    database = Database(tmp_path / "records.jsonl")
    database.path.write_text(record().to_json() + "\n" + line + "\n")
    with pytest.raises(InvalidRecord, match="line 2"):
        list(database)


def test_shipped_records_fit_their_workloads():
    for found in shipped():
        space = Space(workload_of(found.workload), host(), found.threads)
        if found.target.endswith(host().level):
            assert space.fault(found.schedule) == ""


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_the_registry_goes_from_exact_to_near_to_default(machine, empty_cache):
    far, key = Dense(7, 3001, 5), machine.key
    assert choose(far, machine, 2).origin == "default"
    mine, other = Schedule(4, 2, unroll=2, parallel="columns"), Schedule(2, 2, parallel="columns")
    database = Database(database_path())
    database.add(record(far, mine, speed=1.2, target=key))
    database.add(record(far, other, speed=9.0, target=f"elsewhere-{machine.level}"))
    chosen = choose(far, machine, 2)
    assert (chosen.origin, chosen.schedule) == ("record", mine)
    near = choose(Dense(7, 3001, 9), machine, 2)
    assert (near.origin, near.schedule, near.source) == ("nearest", mine, far.key)
    assert choose(far, machine, 1).origin == "default"
    assert choose(Dense(7, 3001, 5, "bf16"), machine, 2).origin == "default"
    faster = Schedule(2, 4, parallel="columns")
    database.add(record(far, faster, speed=1.3, target=key))
    assert choose(far, machine, 2).schedule == faster
    database.add(record(far, faster, speed=1.1, target=key))
    assert choose(far, machine, 2).schedule == mine
    slow = Dense(3001, 7, 5)
    database.add(record(slow, mine, speed=0.99, target=key))
    assert choose(slow, machine, 2).origin == "default"


def test_a_record_that_this_machine_cannot_run_is_not_chosen(empty_cache):
    """A tile that fills the 32 registers of its own level spills where it was copied to."""
    far, wide = Dense(7, 3001, 5), Schedule(4, 4, parallel="columns")
    database = Database(database_path())
    for name in ("avx2", "avx512"):
        database.add(record(far, wide, speed=1.3, target=MACHINES[name].key))
    assert choose(far, MACHINES["avx512"], 2).schedule == wide
    chosen = choose(far, MACHINES["avx2"], 2)
    assert chosen.origin != "record"
    assert Space(far, MACHINES["avx2"], 2).fault(chosen.schedule) == ""
