"""Trials, the cost model and the agents that search for schedules."""

import random
import sys
from dataclasses import replace

import numpy as np
import pytest
from adlik_kernels import (
    MeasureFailed,
)
from adlik_kernels.machine.latency import Translation
from adlik_kernels.machine.roofline import Roofline
from adlik_kernels.machine.target import host
from adlik_kernels.schedules.db import Database, workload_of
from adlik_kernels.schedules.registry import choose, database_path
from adlik_kernels.schedules.schedule import Schedule
from adlik_kernels.schedules.space import Space
from adlik_kernels.search import Annealing, Evolution, Grid, Learned, Policy, Random, cost, tune
from adlik_kernels.search.cost import BoostedTrees, CostModel
from adlik_kernels.search.features import FEATURES, features
from adlik_kernels.search.measure import Measurement, Meter
from adlik_kernels.search.trial import bench
from adlik_kernels.workload import Conv2d, Dense

from .machines import MACHINES
from .records import CONVOLUTION, WORKLOAD, let_the_fastest_win, record

SPACES = {name: Space(WORKLOAD, MACHINES[name], 2) for name in ("avx2", "avx512")}
"""With 16 registers there are a third of the schedules that 32 allow."""

IDEALS = {
    "avx2": Schedule(4, 2, row_tiles=2, parallel="columns", order="rows"),
    "avx512": Schedule(8, 3, row_tiles=2, parallel="columns", order="rows"),
}
"""The fastest schedule of each space, as tables have it."""

SPACE, IDEAL = SPACES["avx2"], IDEALS["avx2"]

registers = pytest.mark.parametrize("name", SPACES)

LIMITS = Roofline(
    machine="a machine",
    target=host().key,
    threads=1,
    operations={"fp32": 1.5e11, "bf16": 1.5e11, "int8": 6e11},
    bandwidth={"l1": 2.5e11, "l2": 1.1e11, "l3": 2e10, "memory": 6e9},
    latency={"l1": 1.4e-9, "l2": 6e-9, "l3": 3e-8, "memory": 1e-7},
    translation=Translation(64, 1536, 3e-9, 1.6e-8),
)


@pytest.fixture(autouse=True)
def the_same_machine_everywhere(monkeypatch):
    """What agents find must not depend on what else this machine did when it was measured."""
    monkeypatch.setattr(cost, "roofline", lambda threads: LIMITS)


class Table:
    """A meter that knows the answer: speed falls with the distance from a schedule of its own."""

    threads = 2

    def __init__(self, ideal):
        self.ideal, self.asked = ideal.to_dict(), []

    def measure(self, workload, schedule):
        self.asked.append(schedule)
        values = schedule.to_dict()
        wrong = sum(values[name] != value for name, value in self.ideal.items())
        return Measurement(seconds=1.0 + wrong, baseline_seconds=4.0)


@pytest.mark.parametrize("dtype", ["fp32", "int8"])
@pytest.mark.parametrize(
    "more",
    [
        {"groups": 2, "dilation": (1, 2)},
        {"in_layout": "blocked", "padding": (0, 1, 2, 0)},
        {"groups": 2, "in_layout": "blocked", "out_layout": "blocked"},
    ],
)
def test_trials_compute_every_kind_of_convolution(dtype, more):
    workload = workload_of(Conv2d(6, 5, 32, 96, kernel=(2, 3), dtype=dtype, **more).key)
    trial = bench(workload)
    for threads in (1, 2):
        trial.out.fill(np.nan)
        trial.call(Space(workload, host(), threads).default(), threads)()
        assert trial.is_right()


def test_boosted_trees_learn_steps_and_interactions():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (800, 5))
    y = np.where(x[:, 0] > 0.2, 1.0, 0.0) * np.where(x[:, 3] > 0, 1.0, -1.0)
    trees = BoostedTrees().fit(x[:600], y[:600])
    left = y[600:] - trees.predict(x[600:])
    assert (left**2).mean() < 0.1 * (y[600:] ** 2).mean()


def test_features_are_as_many_as_their_names():
    schedule = SPACE.default()
    assert len(features(WORKLOAD, schedule, host(), 2, LIMITS)) == len(FEATURES)


def test_features_are_relative_to_the_machine():
    """A machine whose every limit is twice as high, and everything it measures, looks the same."""
    twice = replace(
        LIMITS,
        operations={name: 2 * speed for name, speed in LIMITS.operations.items()},
        bandwidth={name: 2 * speed for name, speed in LIMITS.bandwidth.items()},
    )
    slow = replace(LIMITS, bandwidth={name: speed / 2 for name, speed in LIMITS.bandwidth.items()})
    large, schedule = Dense(512, 512, 2048), Schedule(8, 2, k_block=256)
    seen = [features(large, schedule, host(), 1, limits) for limits in (LIMITS, twice, slow)]
    np.testing.assert_allclose(seen[1], seen[0])
    waits = [FEATURES.index(f"wait for {name}") for name in ("w", "x", "sums")]
    for place in waits:
        assert seen[2][place] == pytest.approx(2 * seen[0][place])


def test_a_cost_model_transfers_between_shapes():
    """Trained where more rows in a tile are better, it prefers more rows on a new one."""
    rng = random.Random(0)
    records = []
    for rows in (32, 64, 128):
        workload = Dense(rows, 256, 128)
        space = Space(workload, host(), 2)
        drawn = [space.sample(rng) for _ in range(40)]
        records += [record(workload, schedule, speed=schedule.rows / 28) for schedule in drawn]
    model = CostModel(host(), 2, records)
    assert model.knows
    tall, flat = Schedule(12, 2), Schedule(4, 2)
    new = Dense(96, 512, 64)
    assert np.diff(model.predict(new, [flat, tall])) > 0


def other_shapes(count=60):
    """Records of other shapes, faster the nearer they are to the ideal schedule."""
    rng, records = random.Random(1), []
    for rows, columns, depth in ((32, 512, 128), (128, 256, 256), (96, 128, 512), (64, 512, 64)):
        workload = Dense(rows, columns, depth)
        space, table = Space(workload, SPACE.target, 2), Table(IDEAL)
        for _ in range(count):
            schedule = space.sample(rng)
            speed = table.measure(workload, schedule).speed
            records.append(record(workload, schedule, speed, target=SPACE.target.key))
    return records


AGENTS = {
    "random": Random,
    "evolution": Evolution,
    "annealing": Annealing,
    "learned": Learned,
    "policy": Policy,
    "grid": lambda space, seed: Grid(space, 40),
}


@registers
def test_ideals_lie_in_their_spaces(name):
    assert SPACES[name].fits(IDEALS[name])


@registers
@pytest.mark.parametrize("agent", AGENTS)
def test_agents_try_allowed_schedules_once(agent, name):
    space, table = SPACES[name], Table(IDEALS[name])
    result = tune(WORKLOAD, AGENTS[agent](space, 3), table, trials=40)
    assert len(table.asked) == len(set(table.asked)) == len(result.trials) == 40
    assert all(space.fits(schedule) or schedule == space.default() for schedule in table.asked)


@pytest.mark.parametrize("seed", range(2))
def test_annealing_goes_elsewhere_when_all_neighbours_were_tried(seed):
    space = Space(Dense(4, 32, 64), MACHINES["avx2"], 1)
    agent, everything = Annealing(space, seed), list(space)
    assert len(everything) > 60
    result = tune(space.workload, agent, Table(space.default()), trials=60)
    assert len(result.trials) == 60


@pytest.mark.parametrize("name", AGENTS)
def test_agents_go_on_where_every_trial_fails(name):
    class Broken(Table):
        def measure(self, workload, schedule):
            super().measure(workload, schedule)
            raise MeasureFailed("it crashed")

    table = Broken(IDEAL)
    result = tune(WORKLOAD, AGENTS[name](SPACE, 0), table, trials=12)
    assert [trial.fault for trial in result.trials] == ["it crashed"] * 12
    assert len(set(table.asked)) == 12


@registers
@pytest.mark.parametrize("agent", ["evolution", "annealing", "learned", "policy"])
def test_agents_that_learn_beat_chance(agent, name):
    def found(agent):
        runs = [
            tune(WORKLOAD, AGENTS[agent](SPACES[name], seed), Table(IDEALS[name]), trials=40)
            for seed in range(3)
        ]
        return np.mean([run.best.speed for run in runs])

    assert found(agent) > found("random")


def test_a_trained_policy_finds_sooner_what_an_untrained_one_finds():
    records = other_shapes()

    def found(records):
        runs = (
            tune(WORKLOAD, Policy(SPACE, seed, records), Table(IDEAL), trials=10)
            for seed in range(3)
        )
        return np.mean([run.best.speed for run in runs])

    assert found(records) > found([])


def test_a_policy_learns_the_same_from_the_same_records():
    records = other_shapes(30)
    first, second = (Policy(SPACE, seed, records).weights for seed in (1, 2))
    np.testing.assert_array_equal(first, second)
    assert np.abs(first[:-1]).max() > 0
    untrained = Policy(SPACE, 1).weights
    assert np.abs(untrained[:-1]).max() == 0
    np.testing.assert_array_equal(Policy(SPACE, 1, weights=first).weights, first)


@registers
def test_a_policy_moves_towards_what_was_faster_than_expected(name):
    """Told that every larger register block is faster, it comes to prefer them."""
    space = SPACES[name]
    agent = Policy(space, 3)
    for _ in range(24):
        schedule = agent.ask()
        agent.tell(schedule, schedule.rows * schedule.vectors / 30)
    assert np.abs(agent.weights[:-1]).max() > 0
    tried = [agent.ask() for _ in range(8)]
    rng = random.Random(0)
    drawn = [space.sample(rng) for _ in range(200)]
    of_tried, of_drawn = ([s.rows * s.vectors for s in group] for group in (tried, drawn))
    assert np.mean(of_tried) > np.mean(of_drawn) + np.std(of_drawn) / 2


def test_edits_differ_in_one_choice_and_fit():
    start = SPACE.default()
    near = SPACE.edits(start)
    assert len(near) > 10
    assert start not in near
    for schedule in near:
        before, after = start.to_dict(), schedule.to_dict()
        changed = {name for name, value in before.items() if after[name] != value}
        assert changed <= {"rows", "vectors"} or len(changed) == 1
        assert SPACE.fits(schedule)


def test_a_cost_model_is_corrected_by_what_is_measured():
    """Other shapes said that many rows are fast; here few are."""
    model = CostModel(SPACE.target, 2, other_shapes(), LIMITS)
    rng = random.Random(5)
    measured = list(dict.fromkeys(SPACE.sample(rng) for _ in range(24)))
    speeds = [1.0 / schedule.rows for schedule in measured]
    before = model.predict(WORKLOAD, measured)
    model.update(WORKLOAD, list(zip(measured, speeds, strict=True)))
    after = model.predict(WORKLOAD, measured)
    want = np.array(speeds) / max(speeds)
    assert np.abs(after - want).mean() < np.abs(before - want).mean() / 2


def test_records_are_judged_by_those_that_did_not_see_them():
    model = CostModel(SPACE.target, 2, other_shapes(30), LIMITS)
    judged = model.judged()
    assert [len(found.schedules) for found in judged] == [30] * 4
    for found in judged:
        assert found.table.shape == (30, len(FEATURES))
        assert found.speeds.max() == 1
        assert np.corrcoef(found.speeds, found.opinions)[0, 1] > 0
    assert CostModel(host(), 2, [], LIMITS).judged() == []


def test_a_run_goes_on_where_it_was_cut_off(tmp_path):
    database = Database(tmp_path / "records.jsonl")
    tune(WORKLOAD, Random(SPACE, 1), Table(IDEAL), trials=10, database=database)
    table = Table(IDEAL)
    result = tune(WORKLOAD, Random(SPACE, 1), table, trials=15, database=database)
    assert len(table.asked) == 5
    assert len(result.trials) == 15
    assert len(list(database)) == 15


def test_a_finished_run_is_not_measured_again_unless_it_shall(tmp_path):
    database = Database(tmp_path / "records.jsonl")

    def run(*, again=False):
        table = Table(IDEAL)
        agent = Random(SPACE, 1)
        tune(WORKLOAD, agent, table, trials=6, finalists=2, database=database, again=again)
        return len(table.asked)

    assert [run(), run(), run(again=True)] == [8, 0, 8]


def test_a_run_without_gain_stops_early():
    table = Table(Space(WORKLOAD, host(), 2).default())
    result = tune(WORKLOAD, Random(SPACE), table, trials=100, patience=6)
    assert len(result.trials) == 7


def test_finalists_are_measured_again_and_the_slower_time_counts(tmp_path):
    class Lucky(Table):
        def measure(self, workload, schedule):
            found = super().measure(workload, schedule)
            luck = 0.5 if self.asked.count(schedule) == 1 else 1.0
            return Measurement(found.seconds * luck, found.baseline_seconds)

    database = Database(tmp_path / "records.jsonl")
    agent, table = Random(SPACE, 2), Lucky(IDEAL)
    result = tune(WORKLOAD, agent, table, trials=6, finalists=6, database=database)
    honest = tune(WORKLOAD, Random(SPACE, 2), Table(IDEAL), trials=6)
    assert [trial.speed for trial in result.trials] == [trial.speed for trial in honest.trials]
    assert len(list(database)) == 12


def test_a_failed_trial_costs_a_trial_and_no_more():
    class Broken(Table):
        def measure(self, workload, schedule):
            if not self.asked:
                self.asked.append(schedule)
                raise MeasureFailed("it crashed")
            return super().measure(workload, schedule)

    told = []
    result = tune(WORKLOAD, Random(SPACE), Broken(IDEAL), trials=3, progress=told.append)
    assert [trial.fault for trial in result.trials] == ["it crashed", "", ""]
    assert len(told) == 3
    assert result.best.speed > 0


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "int8"])
def test_a_meter_measures(dtype):
    workload = Dense(5, 40, 33, dtype)
    with Meter(1, burst=0.001) as meter:
        found = meter.measure(workload, Schedule(4, 2))
        assert found.seconds > 0
        with pytest.raises(MeasureFailed, match="spills"):
            meter.measure(workload, Schedule(60, 2))
        assert meter.measure(workload, Schedule(2, 2)).speed > 0


def test_a_meter_measures_convolutions_and_the_registry_uses_them(empty_cache):
    space, database = Space(CONVOLUTION, host(), 1), Database(database_path())
    assert choose(CONVOLUTION, host(), 1).origin == "default"
    with Meter(1, burst=0.001) as meter:
        result = tune(CONVOLUTION, Random(space), meter, trials=4, database=database)
    assert not any(trial.fault for trial in result.trials)
    assert [found.schedule for found in database] == [trial.schedule for trial in result.trials]
    best = let_the_fastest_win(database)
    chosen = choose(CONVOLUTION, host(), 1)
    assert (chosen.origin, chosen.schedule) == ("record", best)
    larger = Conv2d(12, 9, 12, 40, kernel=(3, 3), stride=(2, 1), padding=(1, 1))
    assert choose(larger, host(), 1).origin == "nearest"
    other = Conv2d(9, 7, 12, 40, kernel=(3, 3), padding=(1, 1))
    assert choose(other, host(), 1).origin == "default"


CHILDREN = {
    "crash": ("import os, sys; sys.stdin.readline(); os.abort()", "died with the code -6"),
    "hang": ("import time; time.sleep(60)", "killed"),
    "wrong": (
        'import sys\nfor _ in sys.stdin: print(\'{"error": "it is wrong"}\', flush=True)',
        "wrong",
    ),
}


@pytest.mark.parametrize("fault", CHILDREN)
def test_a_meter_survives_its_child(fault):
    program, message = CHILDREN[fault]
    with Meter(1, patience=1.0, program=(sys.executable, "-c", program)) as meter:
        for _ in range(2):
            with pytest.raises(MeasureFailed, match=message):
                meter.measure(WORKLOAD, Schedule(4, 2))
