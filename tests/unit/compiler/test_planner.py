"""The planner finds what trying every path finds, and says what can be reached."""

from __future__ import annotations

import itertools

import pytest
from adlik_common.errors import UnsupportedFormat
from adlik_compiler.planner import Step, plan_path
from adlik_compiler.steps import registered_steps
from hypothesis import given
from hypothesis import strategies as st

FORMATS = "abcde"


def step(source, target, cost=1.0, why_not=""):
    return Step(
        source, target, f"m:{source}{target}{cost}", "", "", cost, unavailable=lambda: why_not
    )


edges = st.lists(
    st.tuples(st.sampled_from(FORMATS), st.sampled_from(FORMATS), st.integers(0, 5), st.booleans()),
    max_size=12,
)


def cheapest_by_trying_all(steps, source, target):
    """The cost over every sequence of different formats; None where none leads there."""
    best = None
    between = [f for f in FORMATS if f not in (source, target)]
    for length in range(len(between) + 1):
        for middle in itertools.permutations(between, length):
            stops = (source, *middle, target)
            cost = 0.0
            for here, there in itertools.pairwise(stops):
                legs = [s.cost for s in steps if (s.source, s.target) == (here, there)]
                cost = cost + min(legs) if legs else float("inf")
            if cost != float("inf"):
                best = cost if best is None else min(best, cost)
    return best


@given(edges=edges, source=st.sampled_from(FORMATS), target=st.sampled_from(FORMATS))
def test_no_path_is_cheaper(edges, source, target):
    steps = [step(a, b, c, "" if ok else "broken") for a, b, c, ok in edges]
    usable = [s for s in steps if not s.unavailable()]
    if source == target:
        assert plan_path(steps, source, target) == ()
        return
    best = cheapest_by_trying_all(usable, source, target)
    if best is None:
        with pytest.raises(UnsupportedFormat):
            plan_path(steps, source, target)
        return
    path = plan_path(steps, source, target)
    assert sum(s.cost for s in path) == best
    assert [s.source for s in path] == [source, *(s.target for s in path[:-1])]
    assert path[-1].target == target
    assert all(s in usable for s in path)


@given(order=st.permutations([("a", "b"), ("b", "d"), ("a", "c"), ("c", "d")]))
def test_equally_cheap_paths_are_chosen_between_in_one_way(order):
    path = plan_path([step(*edge) for edge in order], "a", "d")
    assert [s.target for s in path] == ["b", "d"]


def test_fewer_steps_win_a_tie():
    steps = [step("a", "b", 1), step("b", "c", 1), step("a", "c", 2)]
    assert len(plan_path(steps, "a", "c")) == 1


def test_the_error_names_what_can_be_reached():
    steps = [step("a", "b"), step("b", "c"), step("c", "d", why_not="no library")]
    with pytest.raises(UnsupportedFormat, match=r"from 'a' to 'd'") as caught:
        plan_path(steps, "a", "d")
    assert "['b', 'c']" in caught.value.cure
    with pytest.raises(UnsupportedFormat) as caught:
        plan_path(steps, "z", "d")
    assert "No step reads it" in caught.value.cure


def test_the_registered_steps_lead_from_onnx_to_each_engine_that_runs_here():
    steps = registered_steps()
    assert [s.target for s in plan_path(steps, "onnx", "onnxruntime")] == ["onnxruntime"]
    assert [s.target for s in plan_path(steps, "onnx", "openvino_ir")] == ["openvino_ir"]
