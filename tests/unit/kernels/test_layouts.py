"""Algorithms and layouts chosen for whole models, and the costs that decide."""

import itertools
import json
import random

import numpy as np
import pytest
from adlik_kernels import configuration, configure, measure_model, merge_costs
from adlik_kernels.plans import costs
from adlik_kernels.plans.layouts import BLOCKED, LAST, arranged
from adlik_kernels.plans.onnx_graph import read_onnx
from adlik_kernels.plans.steps import residual_of
from adlik_kernels.plans.ways import Way, bare_workload, cost_key, reorder_key, ways_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

THREADS = 1


@pytest.fixture(autouse=True)
def own_cache(tmp_path):
    before = configuration.configured()
    configure(cache=tmp_path / "cache", threads=THREADS)
    yield
    configure(cache=before.cache, threads=before.threads)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.onnx"


def block_model(builder, path):
    """A convolution, a residual block behind it, a pool: seven places where layouts may change."""
    model = builder((16, 7, 9))
    stem = model.conv(16, 32, 3)
    model.conv(32, 16, 1)
    model.node("Relu")
    model.conv(16, 32, 3)
    model.node("Add", model.last, stem)
    model.node("Relu")
    model.node("MaxPool", kernel_shape=[2, 2])
    model.save(path)
    return model


def write(found):
    path = costs.costs_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    key = configuration.target().key
    lines = [
        json.dumps({"way": way, "target": key, "threads": THREADS, "seconds": seconds})
        for way, seconds in found.items()
    ]
    path.write_text("".join(f"{line}\n" for line in lines))


def priced(graph, seed):
    """Random costs for every way of a model and for every change of layout."""
    rng, found = random.Random(seed), {}
    for operator in graph.operators:
        if operator.kind == "conv":
            for way in ways_of(operator):
                work = bare_workload(graph, operator, way)
                found[cost_key(work, way.algorithm)] = rng.uniform(0.001, 0.01)
    for value in graph.values.values():
        found[reorder_key(value.shape)] = rng.uniform(0.0001, 0.004)
    return found


def cost_of(graph, found):
    """What an arranged model costs."""
    total = 0.0
    for operator in graph.operators:
        if operator.kind == "reorder":
            total += found[reorder_key(graph.values[operator.inputs[0]].shape)]
        elif operator.kind == "conv":
            given, made = (graph.values[n].layout for n in (operator.inputs[0], operator.output))
            way = Way(operator.algorithm, given, made)
            total += found[cost_key(bare_workload(graph, operator, way), way.algorithm)]
    return total


def cheapest(graph, found):
    """The least cost over all choices of ways, tried one by one."""
    convs = [operator for operator in graph.operators if operator.kind == "conv"]
    best = float("inf")
    for chosen in itertools.product(*(ways_of(operator) for operator in convs)):
        ways, total = dict(zip((o.output for o in convs), chosen, strict=True)), 0.0
        layouts = {name: {LAST} for name in graph.inputs}
        for operator in graph.operators:
            way = ways.get(operator.output, Way())
            reads = dict.fromkeys(operator.inputs, way.in_layout)
            if operator.kind == "conv" and residual_of(operator):
                reads[residual_of(operator)] = way.out_layout
            for name, layout in reads.items():
                if layout not in layouts[name]:
                    total += found[reorder_key(graph.values[name].shape)]
                    layouts[name].add(layout)
            if operator.kind == "conv":
                total += found[cost_key(bare_workload(graph, operator, way), way.algorithm)]
            layouts[operator.output] = {way.out_layout}
        best = min(best, total)
    return best


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 10**6))
def test_the_choice_is_the_cheapest_of_all_and_computes_the_same(builder, path, seed):
    model = block_model(builder, path)
    graph = read_onnx(path)
    found = priced(graph, seed)
    write(found)
    chosen = arranged(graph, configuration.target(), THREADS)
    assert cost_of(chosen, found) == pytest.approx(cheapest(graph, found))
    plan = model.check(path, batches=(1, 2))
    assert [o.kind for o in plan.graph.operators] == [o.kind for o in chosen.operators]


def test_cheap_blocks_are_used_from_end_to_end(builder, path):
    model = block_model(builder, path)
    graph = read_onnx(path)
    found = {key: 0.001 if key.endswith("-bb") else 0.01 for key in priced(graph, 0)}
    found.update({key: 0.0001 for key in found if key.startswith("reorder")})
    write(found)
    plan = model.check(path)
    kinds = [operator.kind for operator in plan.graph.operators]
    assert kinds == ["reorder", "conv", "conv", "conv", "reorder", "max"]
    made = [plan.graph.values[o.output].layout for o in plan.graph.operators]
    assert made == [BLOCKED, BLOCKED, BLOCKED, BLOCKED, LAST, LAST]


def test_without_costs_channels_stay_last(builder, path):
    block_model(builder, path)
    chosen = arranged(read_onnx(path), configuration.target(), THREADS)
    assert {value.layout for value in chosen.values.values()} == {LAST}


def test_costs_are_measured_once_kept_and_carried_elsewhere(builder, path, tmp_path):
    model = builder((16, 6, 6))
    model.conv(16, 16, 3)
    model.save(path)
    lines = measure_model(path, THREADS, seconds=30)
    graph = read_onnx(path)
    ways = ways_of(graph.operators[0])
    assert len(lines) == len(ways) + 1
    assert {way.algorithm for way in ways} == {"direct", "winograd2", "winograd4"}
    before = costs.costs_path().read_text()
    assert measure_model(path, THREADS, seconds=30) == lines
    assert costs.costs_path().read_text() == before
    carried = tmp_path / "costs.jsonl"
    carried.write_text("no cost\n" + "\n".join(lines) + '\n{"way": "cut o')
    configure(cache=tmp_path / "elsewhere")
    assert merge_costs(carried) == len(lines)
    assert merge_costs(carried) == 0
    assert len(costs.known_costs(configuration.target(), THREADS)) == len(lines)
    x = np.random.default_rng(0).standard_normal((1, 16, 6, 6)).astype(np.float32)
    assert model.check(path)(x).shape == (1, 16, 6, 6)
